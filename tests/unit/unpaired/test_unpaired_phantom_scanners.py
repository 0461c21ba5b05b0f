"""Scanners of phantoms: signal equations, noise and sharpness against closed forms."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedalt.errors import ConfigError
from fedalt.scenarios.unpaired_ct_mr.ct_scanner import CTScanner, correlated_noise, point_spread
from fedalt.scenarios.unpaired_ct_mr.mr_scanner import (
    FLOW_VOID,
    MRScanner,
    bias_field,
    rician,
    spin_echo,
    spoiled_gradient_echo,
)
from fedalt.scenarios.unpaired_ct_mr.phantom import scanner
from fedalt.scenarios.unpaired_ct_mr.tissues import NAMES, ORGANS, Jitter, properties

T1, T2 = np.array([343.0, 586.0, 1057.0, 2400.0]), np.array([58.0, 46.0, 79.0, 350.0])
DENSITY = np.array([0.9, 0.8, 0.87, 1.0])


def test_spoiled_gradient_echo_is_strongest_at_the_ernst_angle() -> None:
    angles = np.radians(np.arange(0.5, 90.0, 0.01))
    for t1, t2, density in zip(T1, T2, DENSITY, strict=True):
        signal = spoiled_gradient_echo(density, t1, t2, 120.0, 4.6, angles)
        assert angles[signal.argmax()] == pytest.approx(np.arccos(np.exp(-120.0 / t1)), abs=2e-4)


def test_spoiled_gradient_echo_without_saturation_is_a_free_decay() -> None:
    found = spoiled_gradient_echo(DENSITY, T1, T2, 1e6, 5.0, np.pi / 6)
    np.testing.assert_allclose(found, DENSITY * 0.5 * np.exp(-5.0 / T2))


def test_spoiled_gradient_echo_is_the_steady_state_of_repeated_pulses() -> None:
    flip, tr = np.radians(25.0), 40.0
    along = np.ones_like(T1)
    for _ in range(2000):
        along = 1 - (1 - along * np.cos(flip)) * np.exp(-tr / T1)
    found = spoiled_gradient_echo(DENSITY, T1, T2, tr, 0.0, flip)
    np.testing.assert_allclose(found, DENSITY * along * np.sin(flip), rtol=1e-10)


def test_spin_echo_has_its_limits() -> None:
    np.testing.assert_allclose(spin_echo(DENSITY, T1, T2, 1e6, 0.0), DENSITY)
    short = spin_echo(DENSITY, T1, T2, 1e-3, 0.0)
    np.testing.assert_allclose(short, DENSITY * 1e-3 / T1, rtol=1e-5)
    halves = spin_echo(DENSITY, T1, T2, 1e6, 0.0) / spin_echo(DENSITY, T1, T2, 1e6, 69.0)
    np.testing.assert_allclose(np.log(halves), 69.0 / T2)


def test_blood_that_flows_loses_its_spin_echo_alone() -> None:
    values = properties(NAMES)
    still = replace(values, flows=np.zeros_like(values.flows))
    aorta, liver = NAMES.index("aorta"), NAMES.index("liver")
    flowing, resting = MRScanner("se").signals(values), MRScanner("se").signals(still)
    assert flowing[aorta] == pytest.approx((1 - FLOW_VOID) * resting[aorta])
    assert flowing[liver] == resting[liver]
    echo = MRScanner("spgr", 120.0, 4.6, 70.0)
    np.testing.assert_array_equal(echo.signals(values), echo.signals(still))


@pytest.mark.parametrize("signal", [0.0, 0.3, 2.0, 10.0])
def test_rician_noise_has_its_moments(signal: float) -> None:
    sigma, n = 0.7, 400_000
    found = rician(np.full(n, signal), sigma, np.random.default_rng(0))
    # E[M²] = S² + 2σ² and Var[M²] = 4σ²(S² + σ²); E[M] is scipy's.
    error = 5 * 2 * sigma * np.sqrt((signal**2 + sigma**2) / n)
    assert (found**2).mean() == pytest.approx(signal**2 + 2 * sigma**2, abs=error)
    wanted = stats.rice.mean(signal / sigma, scale=sigma)
    assert found.mean() == pytest.approx(wanted, abs=5 * sigma / np.sqrt(n))


def test_air_in_mr_is_rayleigh_noise_in_proportion_to_the_body_signal() -> None:
    tissues = np.zeros((200, 200), np.uint8)
    tissues[:40] = NAMES.index("liver")
    seen = MRScanner("se", bias=0.0, noise=0.1, gain=500.0, psf_mm=0.0)
    values = properties(NAMES)
    air = seen.image(tissues, values, (2.0, 2.0), np.random.default_rng(1))[40:].astype(float)
    sigma = 0.1 * 500 * seen.signals(values)[NAMES.index("liver")]
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.015)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)


def test_bias_is_smooth_within_its_bounds_and_scales_the_signal() -> None:
    field = bias_field((60, 50, 20), 0.4, np.random.default_rng(2))
    assert np.abs(np.log(field)).max() == pytest.approx(0.4)
    assert all(np.abs(np.diff(np.log(field), 2, axis)).max() < 0.01 for axis in range(2))
    tissues = np.full((30, 30), NAMES.index("liver"), np.uint8)
    plain, biased = (
        MRScanner("se", bias=bias, noise=0.0, psf_mm=0.0).image(
            tissues, properties(NAMES), (3.0, 3.0), np.random.default_rng(3)
        )
        for bias in (0.0, 0.4)
    )
    expected = bias_field((30, 30), 0.4, np.random.default_rng(3))
    np.testing.assert_allclose(biased / plain, expected, rtol=1e-5)


def test_ct_edges_are_as_sharp_as_the_scanner_says() -> None:
    tissues = np.full((400, 8), NAMES.index("fat"), np.uint8)
    tissues[200:] = NAMES.index("liver")
    quiet = CTScanner("unenhanced", psf_mm=4.0, noise_hu=0.0)
    spacing = 0.25
    edge = quiet.image(tissues, properties(NAMES), (spacing, spacing), np.random.default_rng(0))
    line = np.diff(edge[:, 4].astype(float))
    wide = np.flatnonzero(line >= line.max() / 2)
    # The edge's derivative is the line spread: its width at half maximum is psf_mm.
    assert (wide[-1] - wide[0] + 1) * spacing == pytest.approx(4.0, abs=2 * spacing)
    assert line.sum() == pytest.approx(58 + 100, abs=0.01)
    assert edge[0, 4] == pytest.approx(-100) and edge[-1, 4] == pytest.approx(58)


@pytest.mark.parametrize("psf_mm", [0.0, 3.0, 9.0])
def test_ct_noise_has_its_strength_everywhere_and_neighbours_share_it(psf_mm: float) -> None:
    tissues = np.full((300, 300), NAMES.index("liver"), np.uint8)
    seen = CTScanner("portal", psf_mm=psf_mm, noise_hu=15.0)
    found = seen.image(tissues, properties(NAMES), (2.0, 2.0), np.random.default_rng(4))
    assert found.mean() == pytest.approx(112, abs=1.5)
    assert found.std() == pytest.approx(15.0, rel=0.05)
    noise = correlated_noise((300, 300), psf_mm, (2.0, 2.0), np.random.default_rng(5))
    assert noise[:3].std() == pytest.approx(noise.std(), rel=0.25)
    # White noise through a filter: neighbours correlate as the filter with itself, one apart.
    sigma = max(psf_mm / 2.3548 / 2.0, 0.01)
    filtered = np.exp(-(np.arange(-20, 21) ** 2) / (2 * sigma**2))
    wanted = (filtered[1:] * filtered[:-1]).sum() / (filtered**2).sum()
    assert (noise[1:] * noise[:-1]).mean() == pytest.approx(wanted, abs=0.04)


def test_ct_calibration_leaves_air_in_place_but_for_the_shift() -> None:
    tissues = np.array([[0, NAMES.index("liver")]], np.uint8)
    seen = CTScanner("unenhanced", 0.0, 0.0, shift_hu=6.0, scale=1.01)
    found = seen.image(tissues, properties(NAMES), (1.0, 1.0), np.random.default_rng(0))
    np.testing.assert_allclose(found, [[-994.0, 1.01 * 1058 - 994]], rtol=1e-6)


def test_blur_goes_by_millimetres_not_by_voxels() -> None:
    point = np.zeros((61, 61))
    point[30, 30] = 1.0
    blurred = point_spread(point, 6.0, (1.0, 2.0))
    places = np.arange(61) - 30
    wide, narrow = (blurred.sum(axis) @ places**2 for axis in (1, 0))
    assert np.sqrt(wide) == pytest.approx(2 * np.sqrt(narrow), rel=0.01)
    assert np.sqrt(wide) == pytest.approx(6.0 / 2.3548, rel=0.01)


def test_contrast_order_is_another_in_mr_than_in_ct() -> None:
    values = properties(NAMES)
    at = [NAMES.index(organ) for organ in ORGANS]
    ct = values.hu_portal[at]
    for protocol in ("se", "spgr"):
        for vendor in "abc":
            seen = scanner("mr", vendor, protocol)
            assert isinstance(seen, MRScanner)
            mr = seen.signals(values)[at]
            swapped = [
                (ORGANS[i], ORGANS[j])
                for i, j in itertools.combinations(range(len(at)), 2)
                if (ct[i] - ct[j]) * (mr[i] - mr[j]) < 0
            ]
            assert len(swapped) >= 2, (protocol, vendor, swapped)


def test_subjects_differ_as_much_as_the_jitter_says() -> None:
    names = ["liver"] * 4000
    found = properties(names, np.random.default_rng(6), Jitter(hu=4.0, t1=0.1, t2=0.2))
    assert found.hu.std() == pytest.approx(4.0, rel=0.05)
    assert np.log(found.t1[0]).std() == pytest.approx(0.1, rel=0.05)
    assert np.log(found.t2[1]).std() == pytest.approx(0.2, rel=0.05)
    # Contrast agent reaches all of a subject's tissues alike.
    assert np.ptp(found.hu_portal - found.hu) == pytest.approx(0, abs=1e-9)
    assert properties(["air"], np.random.default_rng(6)).hu == [-1000]


def test_settings_that_are_no_scanner_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'portal'"):
        CTScanner("portl")
    with pytest.raises(ConfigError, match="noise_hu"):
        CTScanner(noise_hu=-1.0)
    with pytest.raises(ConfigError, match="did you mean 'spgr'"):
        MRScanner("spgre")
    with pytest.raises(ConfigError, match="not 7"):
        MRScanner(field=7.0)
    with pytest.raises(ConfigError, match="tr_ms"):
        MRScanner(tr_ms=float("nan"))
    with pytest.raises(ConfigError, match="bias"):
        MRScanner(bias=-0.1)
    with pytest.raises(ConfigError, match="flip_degrees 0"):
        MRScanner(flip_degrees=0.0)
    with pytest.raises(ConfigError, match="jitter"):
        Jitter(t1=float("inf"))
    with pytest.raises(ConfigError, match=r"'livr'.*'liver'"):
        properties(["livr"])
