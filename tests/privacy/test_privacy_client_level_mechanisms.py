"""The parts of client-level privacy, each against plain numpy: clips, quantiles, bands."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numbers
from private_cohorts import (
    SEEDS,
    SITES,
    Named,
    blocks_of,
    identify,
    model,
    moved,
    norm,
    phase_of,
    release,
    reply,
    wrapped,
)

from fedalt.alternation import Phase, Selector
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import AdmissionError, ConfigError
from fedalt.privacy.adaptive import next_clip, share_within, update_multiplier
from fedalt.privacy.banded import (
    coefficients,
    correlated,
    encoded_sensitivity,
    inverse_coefficients,
    min_separation,
)
from fedalt.privacy.clipping import bounded_groups, clip_update
from fedalt.privacy.noise import noise_generator


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    identify(monkeypatch)


# --- clipping -----------------------------------------------------------------------------


def exact_square(arrays: Named) -> Fraction:
    return sum(
        (Fraction(float(x)) ** 2 for v in arrays.values() for x in v.reshape(-1)), Fraction()
    )


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    update=numbers(np.float64, 7, elements=FINITE),
    clip=st.floats(min_value=1e-6, max_value=1e6),
)
def test_no_clipped_update_is_longer_than_the_clip(update: np.ndarray, clip: float) -> None:
    clipped = clip_update({"a": update[:3], "b": update[3:]}, PrivacySpec(clip=clip))
    limit = Fraction(clip) * (1 + Fraction(1, 10**12))
    assert exact_square(clipped.arrays) <= limit**2
    # Clipping shortens, and does not turn.
    before = {"a": update[:3], "b": update[3:]}
    if exact_square(before) <= Fraction(clip) ** 2 * (1 - Fraction(1, 10**12)):
        for name, values in before.items():
            np.testing.assert_array_equal(clipped.arrays[name], values)
        assert clipped.scale == 1.0
    elif exact_square(before) > Fraction(clip) ** 2 * (1 + Fraction(1, 10**12)):
        assert math.sqrt(exact_square(clipped.arrays)) == pytest.approx(clip, rel=1e-12)
        together = np.concatenate(list(clipped.arrays.values()))
        assert (np.sign(together) * np.sign(update) >= 0).all()


@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_long_updates_are_clipped_in_float64(size: int, dtype: Any) -> None:
    values = np.random.default_rng(size).normal(0.0, 3.0, size).astype(dtype)
    clipped = clip_update({"a": values}, PrivacySpec(clip=0.1))
    wanted = values.astype(np.float64)
    wanted *= min(1.0, 0.1 / np.linalg.norm(wanted))
    assert clipped.arrays["a"].dtype == np.float64
    np.testing.assert_allclose(clipped.arrays["a"], wanted, rtol=1e-12)
    assert clipped.norm == pytest.approx(np.linalg.norm(values.astype(np.float64)), rel=1e-12)
    assert norm(clipped.arrays) <= 0.1 * (1 + 1e-12)


def test_an_update_of_nothing_stays_nothing() -> None:
    for values in (np.zeros(3), np.zeros((0, 2))):
        clipped = clip_update({"a": values}, PrivacySpec())
        assert clipped.scale == 1.0 and clipped.norm == 0.0
        np.testing.assert_array_equal(clipped.arrays["a"], values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(AdmissionError, match="cannot be clipped: b is not finite"):
        clip_update({"a": np.ones(2), "b": np.array([1.0, bad])}, PrivacySpec())


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex128])
def test_only_floating_point_numbers_are_clipped(dtype: Any) -> None:
    with pytest.raises(ConfigError, match="array 'steps' is"):
        clip_update({"a": np.ones(2), "steps": np.ones(2, dtype)}, PrivacySpec())


def test_blocks_are_clipped_each_by_its_own_bound() -> None:
    arrays = model()
    spec = PrivacySpec(clips={"head": 0.3, "enc": 2.0})
    members = blocks_of(arrays).members
    clipped = clip_update({k: 10 * v for k, v in arrays.items()}, spec, members)
    for block, bound in spec.clips.items():
        own = {k: v for k, v in clipped.arrays.items() if k.startswith(block)}
        raw = {k: 10 * v for k, v in arrays.items() if k.startswith(block)}
        assert norm(own) == pytest.approx(bound, rel=1e-12)
        for name, values in own.items():
            np.testing.assert_allclose(values, raw[name] * (bound / norm(raw)), rtol=1e-12)
    assert list(clipped.arrays) == list(arrays)


def test_bounds_have_to_fit_the_arrays() -> None:
    arrays = model()
    members: dict[str, Any] = {**blocks_of(arrays).members, "both": ("enc.b", "head.w")}
    for clips, text in (
        ({"enc": 1.0}, "bounds none of the blocks of head.w"),
        ({"enc": 1.0, "hed": 1.0}, "'hed' is no block"),
        ({"enc": 1.0, "both": 1.0}, "'enc.b' belongs to both 'enc' and 'both'"),
    ):
        with pytest.raises(ConfigError, match=text):
            bounded_groups(PrivacySpec(clips=clips), list(arrays), members)
    # All of a block's arrays may stay at the sites.
    groups = bounded_groups(PrivacySpec(clips={"enc": 1.0, "head": 2.0}), ["head.w"], members)
    assert [(g.name, g.bound, g.arrays) for g in groups] == [
        ("enc", 1.0, ()),
        ("head", 2.0, ("head.w",)),
    ]


# --- adaptive clipping --------------------------------------------------------------------


def test_update_and_count_share_the_noise_multiplier() -> None:
    z_update = update_multiplier(1.0, 0.8)
    assert z_update**-2 + (2 * 0.8) ** -2 == pytest.approx(1.0)
    assert update_multiplier(1.0, 1e6) == pytest.approx(1.0, rel=1e-9)
    for count_noise in (0.0, 0.4, 0.5):
        with pytest.raises(ConfigError, match="above noise/2"):
            update_multiplier(1.0, count_noise)


def test_one_client_moves_the_count_by_a_half() -> None:
    for within, replies in ((0, 0), (3, 7), (7, 7)):
        share = share_within(within, replies, 10.0, 0.0)
        for inside in (0, 1):
            one_more = share_within(within + inside, replies + 1, 10.0, 0.0)
            assert abs(one_more - share) * 10.0 == pytest.approx(0.5)
    # Where as many come as are expected it is the share itself.
    assert share_within(3, 10, 10.0, 0.0) == pytest.approx(0.3)


def test_a_bound_stays_a_number_whatever_the_noise() -> None:
    for share in (-1e300, 1e300):
        clip = 1.0
        for _ in range(100):
            clip = next_clip(clip, share, 0.5, 10.0)
        assert math.isfinite(clip) and clip > 0.0


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.01, 50.0])
def test_the_clip_finds_the_quantile_of_the_norms(quantile: float, start: float) -> None:
    """As a loop of numpy's does, with the same noise, on norms of a known distribution."""
    arrays, m, z, count_noise = model(shapes={"enc.w": (2,), "head.w": (1,)}), 20, 0.5, 1.0
    spec = {"noise": z, "quantile": quantile, "count_noise": count_noise, "rate": 0.6}
    phase = phase_of(Selector(), clip=start, **spec)
    private, clip, clips = wrapped(arrays, phase), start, []
    rng = np.random.default_rng(8)
    for number in range(1, 121):
        norms = rng.lognormal(0.0, 0.5, m)
        replies = [reply(i, moved(arrays, length, i)) for i, length in enumerate(norms)]
        _, metrics = release(private, arrays, replies, number)
        applied = private.applied
        assert applied is not None
        # The clip that clipped is the one that the noise is for.
        assert metrics["clip"] == applied.clip == applied.sensitivity == pytest.approx(clip)
        z_update = (z**-2 - (2 * count_noise) ** -2) ** -0.5
        assert applied.noise_std == pytest.approx(z_update * clip)
        assert applied.noise_multiplier == z
        noise = noise_generator("seeded", SEEDS.at("round", number, "phase", "train"))
        noise.standard_normal(sum(v.size for v in arrays.values()))
        share = np.mean(norms <= clip) + noise.normal(0.0, count_noise) / m
        assert metrics["within_clip"] == pytest.approx(share)
        clip *= np.exp(-0.6 * (share - quantile))
        clips.append(clip)
    # Of a lognormal norm: exp(0.5·Φ⁻¹(γ)).
    from scipy import stats

    wanted = math.exp(0.5 * stats.norm.ppf(quantile))
    assert np.median(clips[-40:]) == pytest.approx(wanted, rel=0.15)


def test_noise_of_adaptive_clipping_is_of_the_clip_that_clipped() -> None:
    arrays = model(shapes={"enc.w": (300, 400), "head.w": (1, 1)})
    phase = phase_of(clip=0.5, noise=1.0, rng="os", quantile=0.9, count_noise=0.8, rate=2.0)
    private = wrapped(arrays, phase)
    for _ in range(3):
        found, metrics = release(private, arrays, [])
        noise = np.concatenate([(found[k] - arrays[k]).reshape(-1) for k in arrays]) * 20.0
        assert private.applied is not None
        low, high = deviations(noise.size)
        assert low < noise.std() / private.applied.noise_std < high
        # The next clip is another by far more than that test's width.
        assert abs(private._memory.clip / metrics["clip"] - 1.0) > 0.1


def deviations(size: int) -> tuple[float, float]:
    """Between which a measured standard deviation lies, but for a chance of 1e-6."""
    from scipy import stats

    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], size - 1)
    return math.sqrt(low / size), math.sqrt(high / size)


# --- banded matrix factorisation ----------------------------------------------------------


def dense(bands: int, rounds: int) -> np.ndarray:
    """The encoder C, from the binomial coefficients of (1 − x)^(−1/2)."""
    column = [math.comb(2 * k, k) / 4**k for k in range(bands)]
    encoder = np.zeros((rounds, rounds))
    for k in range(min(bands, rounds)):
        encoder += column[k] * np.eye(rounds, k=-k)
    return encoder / math.hypot(*column)


@pytest.mark.parametrize("bands", [2, 3, 8, 40])
def test_streamed_noise_is_that_of_the_dense_inverse(bands: int) -> None:
    rounds, rng = 30, np.random.default_rng(bands)
    fresh = rng.standard_normal((rounds, 5, 2))
    inverse = np.linalg.inv(dense(bands, rounds))
    wanted = np.einsum("ts,sij->tij", inverse, fresh)
    past: Named = {}
    for t in range(rounds):
        noise, past = correlated({"a": fresh[t]}, past, bands)
        np.testing.assert_allclose(noise["a"], wanted[t], atol=1e-12)
        assert past["a"].shape == (min(bands - 1, t + 1), 5, 2)
    np.testing.assert_allclose(inverse_coefficients(bands, rounds), inverse[:, 0], atol=1e-12)


@pytest.mark.parametrize("bands", [2, 5, 16])
def test_a_turn_every_b_rounds_costs_one_gaussian_each(bands: int) -> None:
    rounds, separation = 4 * bands, min_separation(bands)
    assert np.linalg.norm(coefficients(bands)) == pytest.approx(1.0)
    encoder = dense(bands, rounds + bands)
    for turns in ([0], [3], [0, separation], [1, separation + 1, 2 * separation + 4]):
        moved_by = np.zeros(rounds + bands)
        moved_by[turns] = 1.0
        told = encoded_sensitivity(bands, turns)
        assert told == pytest.approx(np.linalg.norm(encoder @ moved_by))
        # k events of multiplier z are one of z/√k: what the ledger adds up.
        assert told == pytest.approx(math.sqrt(len(turns)))
    # Any closer, and the same noise hides less than that.
    assert encoded_sensitivity(bands, [0, separation - 1]) > math.sqrt(2) * (1 + 1e-4)
    # The signs of a client's moves cannot make it more, as columns do not overlap.
    columns = encoder[:, :rounds:separation]
    np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-12)


@pytest.mark.parametrize(("bands", "rounds"), [(4, 32), (16, 64), (64, 64)])
def test_sums_over_rounds_have_less_noise_than_with_independent_noise(
    bands: int, rounds: int
) -> None:
    """At the same z a turn, by the root of the mean square error of all prefix sums."""
    prefix = np.tril(np.ones((rounds, rounds)))
    error = np.linalg.norm(prefix @ np.linalg.inv(dense(bands, rounds))) / math.sqrt(rounds)
    independent = np.linalg.norm(prefix) / math.sqrt(rounds)
    assert error < independent * {4: 0.8, 16: 0.6, 64: 0.6}[bands]
    # And as streamed: 4000 coordinates are as many runs.
    rng, past = np.random.default_rng(1), dict[str, np.ndarray]()
    total, squares = np.zeros(4000), 0.0
    for _ in range(rounds):
        noise, past = correlated({"a": rng.standard_normal(4000)}, past, bands)
        total += noise["a"]
        squares += float(np.square(total).mean())
    assert math.sqrt(squares / rounds) == pytest.approx(error, rel=0.1)


def test_the_wrapper_releases_banded_noise() -> None:
    arrays, bands, z, clip = model(shapes={"enc.w": (300, 400), "head.w": (1, 1)}), 3, 1.3, 0.7
    phase = phase_of(clip=clip, noise=z, rng="os", mechanism="banded", bands=bands)
    private = wrapped(arrays, phase)
    released = []
    for number in range(1, 7):
        found, metrics = release(private, arrays, [], number)
        released.append((found["enc.w"] - arrays["enc.w"]).reshape(-1) * 20.0)
        assert private.applied is not None
        told = (private.applied.noise_std, private.applied.sensitivity)
        assert told == (pytest.approx(z * clip), clip)
        assert private.applied.noise_multiplier == z
        assert metrics["noise_std"] == pytest.approx(z * clip)
    # Encoded, the noise is fresh in every round: independent, and of the size told.
    fresh = dense(bands, 6) @ np.array(released)
    low, high = deviations(fresh.shape[1])
    assert all(low < row.std() / (z * clip) < high for row in fresh)
    correlations = np.corrcoef(fresh) - np.eye(6)
    assert np.abs(correlations).max() < 5.5 / math.sqrt(fresh.shape[1])
    raw = np.corrcoef(np.array(released))
    assert raw[3, 4] < -0.2


@pytest.mark.parametrize("change", [{"clip": 0.4}, {"noise": 0.9}])
def test_banded_noise_may_not_shrink_on_the_way(change: dict[str, float]) -> None:
    arrays = model()
    spec = {"clip": 0.5, "noise": 1.0, "mechanism": "banded", "bands": 3}
    private = wrapped(arrays, phase_of(**spec))
    release(private, arrays, [], 1)
    private.enter_phase(phase_of(**{**spec, **change}), blocks_of(arrays), SITES)
    with pytest.raises(ConfigError, match="noise and clip must stay as they began"):
        release(private, arrays, [], 2)


def test_a_phase_without_privacy_is_not_wrapped() -> None:
    from fedalt.server.strategies.blockwise import Blockwise
    from fedalt.server.strategies.book import StrategyBook
    from fedalt.server.strategies.private import Private

    book = StrategyBook(Blockwise, blocks_of(model()), SITES, SEEDS)
    phases = {
        "plain": Phase("plain"),
        "record": Phase("record", privacy=PrivacySpec(unit="record")),
        "local": Phase("local", privacy=PrivacySpec(unit="client", trust="local")),
    }
    for phase in phases.values():
        assert type(book(phase)) is Blockwise
    for trust in ("central", "distributed"):
        assert type(book(Phase(trust, privacy=PrivacySpec(trust=trust)))) is Private
