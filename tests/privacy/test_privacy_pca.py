"""Sums over records with noise at the site: against numpy, their sensitivity, their noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.anomaly import SiteRows
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.private_statistics import bounded_rows
from fedalt.clients.protect import protect
from fedalt.errors import ConfigError
from fedalt.manifold import qf
from fedalt.privacy import site_account
from fedalt.privacy.accounting import Accountant, exact_gaussian
from fedalt.privacy.noise import NAMES, noise_generator
from fedalt.seeds import Seeds
from fedalt.server.admission import protections_of
from fedalt.task import Task

D, K = 5, 2
SCALER = ("scaler/mean", "scaler/std")
RETURNS = {
    "moments": SCALER,
    "covariance": ("covariance", "subspace"),
    "power": ("subspace",),
    "curvature": ("penalty",),
    "score_histogram": ("histogram", "threshold"),
    "grassmann": ("subspace",),
    "euclidean": ("subspace",),
}
MADE = {"moments": "scaler/mean", "covariance": "covariance", "power": "subspace"}
SPEC = PrivacySpec(unit="record", clip=0.7, noise=1.5, rng="seeded")
NASTY = (1e30, -1e308, 1.7e308, np.inf, -np.inf, np.nan, 1e-310, 0.0, 3.0)


class Rows:
    """A task of one site, which is all these kernels use."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def site_data(self, site: int) -> SiteRows:
        return SiteRows(self.rows, self.rows[:3])


def sent(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "scaler/mean": rng.normal(size=D),
        "scaler/std": rng.uniform(0.5, 2.0, D),
        "subspace": np.linalg.qr(rng.normal(size=(D, K)))[0],
        "penalty": np.ones(1),
        "histogram": np.zeros(1202),
        "threshold": np.zeros(1),
    }


ARRAYS = sent(np.random.default_rng(7))
DATA = np.random.default_rng(3).normal(size=(40, D))


def phase_of(kernel: str, spec: PrivacySpec | None = SPEC, **params: Any) -> Phase:
    given_ = {"std": "received", **params} if kernel == "moments" else params
    return Phase("test", kernel=kernel, params=given_, privacy=spec)


def work(
    kernel: str,
    rows: np.ndarray = DATA,
    arrays: dict[str, np.ndarray] = ARRAYS,
    spec: PrivacySpec | None = SPEC,
    seeds: Seeds | None = None,
    state: dict[str, np.ndarray] | None = None,
    **params: Any,
) -> Work:
    order = Order("run", 1, phase_of(kernel, spec, **params), arrays, RETURNS[kernel])
    held: dict[str, np.ndarray] = {} if state is None else state
    site = SiteContext(cast(Task, Rows(rows)), 0, held, seeds or Seeds(5))
    return KernelTable()(kernel)(order, site)


def told(kernel: str, rows: np.ndarray, arrays: dict[str, np.ndarray] = ARRAYS) -> np.ndarray:
    """Return what a site sends, as a noisy sum in the units of its rows."""
    array = work(kernel, rows, arrays).arrays[MADE[kernel]]
    if kernel == "moments":
        array = (array - arrays["scaler/mean"]) / arrays["scaler/std"]
    return array * len(rows)


def clipped(rows: np.ndarray, bound: float) -> np.ndarray:
    scaled = (rows - ARRAYS["scaler/mean"]) / ARRAYS["scaler/std"]
    norms = np.linalg.norm(scaled, axis=1)
    assert (norms > bound).any() and (norms < 3 * bound).any()
    return scaled * np.minimum(1.0, bound / norms)[:, None]


def noise(count: int) -> np.ndarray:
    rng = noise_generator("seeded", Seeds(5))
    return rng.normal(0.0, 1.5 * 0.7, count)


def test_noisy_moments_are_those_of_numpy() -> None:
    found = work("moments")
    mean = (clipped(DATA, 0.7).sum(axis=0) + noise(D)) / 40
    expected = ARRAYS["scaler/mean"] + ARRAYS["scaler/std"] * mean
    np.testing.assert_allclose(found.arrays["scaler/mean"], expected, rtol=1e-12)
    np.testing.assert_array_equal(found.arrays["scaler/std"], ARRAYS["scaler/std"])


def test_a_noisy_covariance_is_that_of_numpy() -> None:
    found = work("covariance").arrays
    rows, drawn, places = clipped(DATA, 0.7**0.5), noise(D * (D + 1) // 2), iter(range(99))
    expected = rows.T @ rows
    for i in range(D):
        for j in range(i, D):
            one = drawn[next(places)] / (1.0 if i == j else 2**0.5)
            expected[i, j] += one
            if i != j:
                expected[j, i] += one
    np.testing.assert_allclose(found["covariance"], expected / 40, rtol=1e-12)
    np.testing.assert_array_equal(found["covariance"], found["covariance"].T)
    np.testing.assert_array_equal(found["subspace"], ARRAYS["subspace"])


def test_a_noisy_power_iteration_is_that_of_numpy() -> None:
    basis = qf(torch.from_numpy(ARRAYS["subspace"])).numpy()
    rows = clipped(DATA, 0.7**0.5)
    expected = (rows.T @ rows @ basis + noise(D * K).reshape(D, K)) / 40
    np.testing.assert_allclose(work("power").arrays["subspace"], expected, rtol=1e-12)


def test_summaries_are_made_of_the_noisy_covariance() -> None:
    noisy = work("covariance").arrays["covariance"]
    leading = np.linalg.eigh(noisy)[1][:, -K:]
    found = work("covariance", summary="projector").arrays["covariance"]
    np.testing.assert_allclose(found, leading @ leading.T, atol=1e-12)
    scaled = work("covariance", summary="scaled").arrays["covariance"]
    np.testing.assert_allclose(scaled, found @ noisy @ found, atol=1e-12)


number = st.one_of(st.sampled_from(NASTY), st.floats(-1e6, 1e6))


@pytest.mark.parametrize("kernel", list(MADE))
@given(row=st.lists(number, min_size=D, max_size=D), place=st.integers(0, 40))
def test_no_row_moves_a_sum_by_more_than_the_clip(
    kernel: str, row: list[float], place: int
) -> None:
    """The noise is drawn alike with and without the row, so that the difference is the row's."""
    more = np.insert(DATA, place, row, axis=0)
    moved = float(np.linalg.norm(told(kernel, more) - told(kernel, DATA)))
    assert moved <= 0.7 * (1 + 1e-9)


@pytest.mark.parametrize("kernel", list(MADE))
def test_a_row_can_move_a_sum_by_all_of_the_clip(kernel: str) -> None:
    far = ARRAYS["scaler/mean"] + 1e30 * ARRAYS["scaler/std"] * ARRAYS["subspace"][:, 0]
    moved = np.linalg.norm(told(kernel, np.vstack([DATA, far])) - told(kernel, DATA))
    assert moved == pytest.approx(0.7, rel=1e-9)


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        # Not the mean of the moments: added to it, a noisy sum is rounded away.
        ("moments", "scaler/std"),
        *((kernel, name) for kernel in ("covariance", "power") for name in (*SCALER, "subspace")),
    ],
)
@pytest.mark.parametrize("value", [1e-30, 1e30, -1.0])
def test_who_sends_the_arrays_need_not_be_trusted(kernel: str, name: str, value: float) -> None:
    arrays = {**ARRAYS, name: ARRAYS[name] * value}
    more = np.vstack([DATA, 5.0 * np.ones(D)])
    moved = np.linalg.norm(told(kernel, more, arrays) - told(kernel, DATA, arrays))
    assert moved <= 0.7 * (1 + 1e-6)


def test_rows_of_any_size_end_within_the_bound() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, D)) * 10.0 ** rng.integers(-300, 300, (5000, 1))
    for bound in (1e-3, 1.0, 7.3):
        found = bounded_rows(rows, np.zeros(D), np.ones(D), bound)
        assert np.linalg.norm(found, axis=1).max() <= bound
        small = np.abs(rows).max(axis=1) < bound / D
        np.testing.assert_array_equal(found[small], rows[small])
        long = np.abs(rows).max(axis=1) > bound
        np.testing.assert_allclose(np.linalg.norm(found[long], axis=1), bound, rtol=1e-12)


@pytest.mark.parametrize("kernel", list(MADE))
def test_the_noise_measured_is_the_noise_stated(kernel: str) -> None:
    draws, expected = 400, np.zeros(0)
    spread = []
    for i in range(draws):
        found = work(kernel, seeds=Seeds(i))
        array = found.arrays[MADE[kernel]] * len(DATA)
        if kernel == "moments":
            array = array / ARRAYS["scaler/std"]
        spread.append(array[np.triu_indices(D)] if kernel == "covariance" else array.ravel())
    (stated,) = found.applied
    deviations = np.std(spread, axis=0, ddof=1)
    expected = np.full(len(deviations), stated.noise_std)
    if kernel == "covariance":
        upper = np.triu_indices(D)
        expected[upper[0] != upper[1]] /= 2**0.5
    low, high = stats.chi2.ppf([5e-5, 1 - 5e-5], draws - 1)
    ratio = np.square(deviations / expected) * (draws - 1)
    assert (ratio > low).all() and (ratio < high).all()
    correlation = np.corrcoef(np.array(spread).T) - np.eye(len(deviations))
    assert np.abs(correlation).max() < 4.5 / draws**0.5


@pytest.mark.parametrize("kernel", list(MADE))
def test_a_site_says_and_keeps_what_it_did(kernel: str) -> None:
    state: dict[str, np.ndarray] = {}
    found = work(kernel, state=state)
    (stated,) = found.applied
    assert (stated.unit, stated.clip, stated.noise_multiplier) == ("record", 0.7, 1.5)
    assert stated.noise_std == pytest.approx(1.5 * 0.7)
    assert (stated.sample_rate, stated.steps, stated.rng) == (0.0, 1, NAMES["seeded"])
    (asked,) = protections_of(phase_of(kernel), Site(0, "site-0", len(DATA)))
    assert (asked.clip, asked.noise_multiplier, asked.steps) == (0.7, 1.5, 1)
    work(kernel, state=state)
    spent = Accountant().tight(site_account.history(state[site_account.KEY]), 1e-5)
    # Two releases at z = 1.5 are one at 1.5/√2.
    assert spent.method == "gaussian"
    assert spent.epsilon == pytest.approx(exact_gaussian(1.5 / 2**0.5, 1e-5), rel=1e-9)
    # Nothing of the rows stays in the state but that.
    assert set(state) == {site_account.KEY}


@pytest.mark.parametrize("kernel", list(MADE))
def test_noise_of_the_operating_system_is_never_the_same(kernel: str) -> None:
    spec = replace(SPEC, rng="os")
    one, other = (work(kernel, spec=spec).arrays[MADE[kernel]] for _ in range(2))
    assert not np.array_equal(one, other)


def test_what_a_client_measured_stays_with_it() -> None:
    order = Order("run", 1, phase_of("covariance"), ARRAYS, RETURNS["covariance"])
    site = SiteContext(cast(Task, Rows(DATA)), 0, {}, Seeds(5))
    assert protect(order, site, KernelTable()("covariance")(order, site)).metrics == {}


def test_without_a_spec_nothing_changed() -> None:
    mean, std = ARRAYS["scaler/mean"], ARRAYS["scaler/std"]
    scaled = torch.from_numpy((DATA - mean) / std)
    exact = scaled.T @ scaled / len(DATA)
    found = work("covariance", spec=None)
    np.testing.assert_array_equal(found.arrays["covariance"], exact.numpy())
    assert set(found.metrics) == {"objective"} and found.applied == ()
    image = work("power", spec=None).arrays["subspace"]
    np.testing.assert_array_equal(image, (exact @ torch.from_numpy(ARRAYS["subspace"])).numpy())
    own = work("moments", spec=None, std="own").arrays
    np.testing.assert_array_equal(own["scaler/mean"], DATA.mean(axis=0))
    np.testing.assert_array_equal(own["scaler/std"], DATA.std(axis=0))
    kept = work("moments", spec=None).arrays
    np.testing.assert_array_equal(kept["scaler/mean"], DATA.mean(axis=0))
    np.testing.assert_array_equal(kept["scaler/std"], std)


def test_a_clients_own_privacy_is_not_the_kernels_business() -> None:
    spec = PrivacySpec(unit="client", rng="seeded")
    for kernel in RETURNS:
        found = work(kernel, spec=spec)
        assert found.applied == ()
        KernelTable()(kernel).check(phase_of(kernel, spec))  # type: ignore[attr-defined]


@pytest.mark.parametrize("unit", ["record", "user"])
@pytest.mark.parametrize("kernel", [name for name in RETURNS if name not in MADE])
def test_kernels_without_a_mechanism_refuse(kernel: str, unit: str) -> None:
    spec = PrivacySpec(unit=unit, contributions=1 if unit == "record" else 3)
    message = rf"phase 'test': kernel '{kernel}' cannot hide a {unit}.* moments, covariance, power"
    with pytest.raises(ConfigError, match=message):
        KernelTable()(kernel).check(phase_of(kernel, spec))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=message):
        work(kernel, spec=spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PrivacySpec(unit="user", contributions=3), "protects single records, not a user"),
        (replace(SPEC, sample_rate=0.1), "sums over all rows .*sample_rate is 0.1; leave it at 0"),
    ],
)
@pytest.mark.parametrize("kernel", list(MADE))
def test_specs_that_a_sum_cannot_keep(kernel: str, spec: PrivacySpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KernelTable()(kernel).check(phase_of(kernel, spec))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=message):
        work(kernel, spec=spec)


def test_moments_refuse_deviations_that_no_noise_covers() -> None:
    for params in ({"std": "own"}, {"std": "recieved"}):
        with pytest.raises(ConfigError, match=r"params.std is .*received"):
            work("moments", **params)


def test_a_subspace_of_another_size_is_refused() -> None:
    arrays = {**ARRAYS, "subspace": np.linalg.qr(np.ones((D + 1, 1)))[0]}
    with pytest.raises(ConfigError, match="the subspace has 6 rows, but the records have 5"):
        work("power", arrays=arrays)
