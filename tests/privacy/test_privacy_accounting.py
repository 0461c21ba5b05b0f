"""Known answers: published figures, closed forms, and one bound against another."""

from __future__ import annotations

import math

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedalt.errors import ConfigError
from fedalt.privacy.accounting import Accountant, exact_gaussian, joint_noise
from fedalt.privacy.calibrate import noise_for, rounds_within
from fedalt.privacy.events import (
    EVERYTHING,
    fixed_sample,
    from_plain,
    gaussian,
    sampled,
    times,
    to_plain,
    user_sampled,
)
from fedalt.privacy.tuning import tuning_cost

DELTA = 1e-5
KNOWN = [
    (256 / 60000, 1.1, 14062, 2.597, 2.382),
    (256 / 60000, 0.7, 10546, 6.32, 5.639),
    (256 / 60000, 1.3, 3515, 0.954, 0.864),
    (0.004, 1.1, 15000, 2.503, 2.295),
    (0.01, 4.0, 10000, 1.035, 0.947),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "rdp", "pld"), KNOWN)
def test_published_settings(rate: float, noise: float, steps: int, rdp: float, pld: float) -> None:
    history, accountant = {sampled(rate, gaussian(noise)): steps}, Accountant()
    fast, tight = accountant.fast(history, DELTA), accountant.tight(history, DELTA)
    assert (fast.method, tight.method) == ("rdp", "pld")
    assert fast.epsilon == pytest.approx(rdp, abs=0.005)
    assert tight.epsilon == pytest.approx(pld, abs=0.01)


@pytest.mark.parametrize(("noise", "epsilon"), [(1.0, 4.3772), (8.0 / math.sqrt(75), 4.7993)])
def test_gaussians_are_exact(noise: float, epsilon: float) -> None:
    found = Accountant().tight({gaussian(noise): 1}, DELTA)
    assert found.method == "gaussian" and found.epsilon == pytest.approx(epsilon, abs=1e-3)
    # The condition of Balle and Wang's Theorem 8 holds with equality.
    normal = math.erf
    first = 0.5 * (1 + normal((0.5 / noise - found.epsilon * noise) / math.sqrt(2)))
    second = 0.5 * (1 + normal((-0.5 / noise - found.epsilon * noise) / math.sqrt(2)))
    assert first - math.exp(found.epsilon) * second == pytest.approx(DELTA, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "touches", "epsilon"), [(8.0, 100, 5.68), (8.0, 25, 2.56), (8.0, 75, 4.80)]
)
def test_fewer_touches_cost_less(noise: float, touches: int, epsilon: float) -> None:
    assert Accountant().fast({gaussian(noise): touches}, DELTA).epsilon == pytest.approx(
        epsilon, abs=0.005
    )


@pytest.mark.parametrize(
    ("rate", "rounds", "epsilon"), [(0.05, 200, 4.77), (0.2, 50, 10.13), (0.2, 200, 21.54)]
)
def test_turns_against_uniform_samples(rate: float, rounds: int, epsilon: float) -> None:
    found = Accountant().tight({sampled(rate, gaussian(1.0)): rounds}, DELTA)
    assert found.epsilon == pytest.approx(epsilon, abs=0.01)


def test_noise_that_was_lost_costs_more() -> None:
    planned, left = gaussian(4.0), gaussian(4.0 * math.sqrt(0.7))
    assert left.noise_multiplier == pytest.approx(3.35, abs=0.005)
    found = [Accountant().fast({event: 50}, DELTA).epsilon for event in (planned, left)]
    assert found == pytest.approx([8.60, 10.70], abs=0.01)


@settings(max_examples=12)
@given(rate=st.floats(0.001, 1.0), noise=st.floats(0.8, 8.0), steps=st.integers(1, 100))
def test_the_tight_bound_is_never_above_the_quick_one(
    rate: float, noise: float, steps: int
) -> None:
    history, accountant = {sampled(rate, gaussian(noise)): steps}, Accountant()
    fast, tight = accountant.fast(history, DELTA), accountant.tight(history, DELTA)
    assert 0.0 <= tight.epsilon <= fast.epsilon


@settings(max_examples=40)
@given(noise=st.floats(0.3, 30.0), delta=st.floats(1e-12, 0.1), count=st.integers(1, 500))
def test_composed_gaussians_are_one_with_less_noise(noise: float, delta: float, count: int) -> None:
    found = Accountant().tight({gaussian(noise): count}, delta)
    assert found.epsilon == pytest.approx(exact_gaussian(noise / math.sqrt(count), delta), rel=1e-9)
    assert found.epsilon >= 0.0


def test_nothing_costs_nothing_and_no_mechanism_everything() -> None:
    accountant = Accountant()
    assert accountant.tight({}, DELTA).epsilon == accountant.fast({}, DELTA).epsilon == 0.0
    assert accountant.tight({gaussian(1e4): 1}, 0.1).epsilon == 0.0
    found = accountant.fast({gaussian(1.0): 3, EVERYTHING: 1}, DELTA)
    assert math.isinf(found.epsilon) and found.method == "unprotected"


def test_losses_at_a_tiny_rate_are_laid_out_finely() -> None:
    history, delta = {sampled(1e-5, gaussian(1.0)): 1_000_000}, 1e6**-1.1
    accountant = Accountant()
    coarse = accountant._composed(history, 1e-4).get_epsilon_for_delta(delta)
    assert coarse == pytest.approx(0.1111, abs=1e-4)
    assert accountant.tight(history, delta).epsilon == pytest.approx(0.0498, abs=1e-4)


def test_replacing_one_moves_a_sum_twice_as_far() -> None:
    replace, add = Accountant("replace_one"), Accountant()
    found = replace.tight({gaussian(2.0): 1}, DELTA)
    assert found.epsilon == pytest.approx(add.tight({gaussian(1.0): 1}, DELTA).epsilon)
    pld = replace._composed({gaussian(2.0): 1}, 1e-3).get_epsilon_for_delta(DELTA)
    assert pld == pytest.approx(found.epsilon, abs=1e-4)
    rdp = replace._rdp({gaussian(2.0): 1}, DELTA)
    assert rdp is not None and found.epsilon <= rdp.epsilon < 1.2 * found.epsilon


def test_a_sample_of_fixed_size_is_no_poisson_sample() -> None:
    """Reported as Poisson, it claims a fraction of what is true."""
    fixed, delta = {fixed_sample(10, 100, gaussian(2.0)): 100}, 1e-3
    claimed = Accountant().tight({sampled(0.1, gaussian(2.0)): 100}, delta)
    true = Accountant("replace_one").tight(fixed, delta)
    assert claimed.epsilon == pytest.approx(1.54, abs=0.01)
    assert true.method == "rdp" and true.epsilon == pytest.approx(10.8, abs=0.05)
    with pytest.raises(ConfigError, match="a sample of fixed size needs"):
        Accountant().tight(fixed, delta)


@pytest.mark.parametrize("noise", [0.7, 1.0, 2.0])
def test_a_poisson_sample_under_replace_one_lies_between_what_bounds_it(noise: float) -> None:
    """Replacing is removing and adding; without a sample it costs most."""
    history = {sampled(0.1, gaussian(noise)): 10}
    replace, add = Accountant("replace_one"), Accountant()
    found = replace.tight(history, DELTA)
    assert found.method == "pld"
    assert found.epsilon > add.tight(history, DELTA).epsilon
    assert found.epsilon < replace.tight({gaussian(noise): 10}, DELTA).epsilon
    with pytest.raises(ConfigError, match="running ε"):
        replace.tight(history, DELTA, adaptive=True)


def test_zeroing_out_costs_what_adding_does_without_a_sample() -> None:
    history = {gaussian(1.5): 4}
    assert Accountant("zero_out").tight(history, DELTA) == Accountant().tight(history, DELTA)


def test_parameters_from_a_running_epsilon_have_rdp_alone() -> None:
    history = {sampled(0.05, gaussian(1.0)): 100}
    found = Accountant().tight(history, DELTA, adaptive=True)
    assert found.method == "rdp" and found.epsilon > Accountant().tight(history, DELTA).epsilon


def test_epsilon_falls_as_delta_grows() -> None:
    deltas = [1e-8, 1e-6, 1e-4, 1e-2]
    history = {sampled(0.05, gaussian(1.0)): 100}
    found = [bound.epsilon for bound in Accountant().curve(history, deltas)]
    assert found == sorted(found, reverse=True)
    each = [Accountant().tight(history, delta).epsilon for delta in deltas]
    assert found == pytest.approx(each, abs=1e-3)
    with pytest.raises(ConfigError, match="no bound covers"):
        Accountant().curve({fixed_sample(1, 9, gaussian(1.0)): 1}, deltas)


def test_noise_for_a_target() -> None:
    def history(noise: float) -> dict[dp.DpEvent, int]:
        return {sampled(0.04, gaussian(noise)): 2250}

    assert noise_for(8.0, DELTA, history, method="fast") == pytest.approx(1.416, abs=1e-3)
    noise = noise_for(8.0, DELTA, history)
    assert noise == pytest.approx(1.3459, abs=2e-4)
    assert Accountant().tight(history(noise), DELTA).epsilon <= 8.0
    for target, method in ((0.0, "tight"), (math.nan, "tight"), (8.0, "slow")):
        with pytest.raises(ConfigError, match=r"above 0|unknown method"):
            noise_for(target, DELTA, history, method=method)


@settings(max_examples=25, deadline=None)
@given(target=st.floats(0.01, 300.0), count=st.integers(1, 100), scale=st.floats(0.1, 10.0))
def test_the_noise_found_is_the_smallest(target: float, count: int, scale: float) -> None:
    def epsilon(noise: float) -> float:
        return Accountant().tight({gaussian(scale * noise): count}, DELTA).epsilon

    noise = noise_for(target, DELTA, lambda z: {gaussian(scale * z): count})
    assert epsilon(noise) <= target < epsilon(noise * (1 - 1.1e-4))


def test_rounds_for_a_budget() -> None:
    event = gaussian(2.0)
    found = rounds_within(5.0, DELTA, lambda rounds: {event: rounds}, 100)
    spent = [Accountant().tight({event: n}, DELTA).epsilon for n in (found, found + 1)]
    assert spent[0] <= 5.0 < spent[1]
    assert rounds_within(5.0, DELTA, lambda rounds: {gaussian(100.0): rounds}, 7) == 7
    assert rounds_within(0.1, DELTA, lambda rounds: {event: rounds}, 7) == 0
    step, accountant = sampled(0.1, gaussian(1.0)), Accountant()
    found = rounds_within(3.0, DELTA, lambda rounds: {step: rounds}, 300)
    assert accountant.fast({step: found}, DELTA).epsilon > 3.0
    spent = [accountant.tight({step: n}, DELTA).epsilon for n in (found, found + 1)]
    assert spent[0] <= 3.0 < spent[1]


def test_blocks_of_one_release_share_its_noise() -> None:
    assert joint_noise([4.0, 4.0]) == pytest.approx(4.0 / math.sqrt(2.0))
    assert joint_noise([2.0]) == 2.0
    for nothing in ([], [1.0, 0.0]):
        with pytest.raises(ConfigError, match="above 0"):
            joint_noise(nothing)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_an_epsilon_has_a_delta_between_0_and_1(delta: float) -> None:
    for event in (gaussian(1.0), sampled(0.1, gaussian(1.0))):
        for bound in (Accountant().fast, Accountant().tight):
            with pytest.raises(ConfigError, match="between 0 and 1"):
                bound({event: 1}, delta)


def test_numbers_that_no_mechanism_has_are_refused() -> None:
    for noise in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="noise multiplier"):
            gaussian(noise)
    for rate in (-0.1, math.nan):
        with pytest.raises(ConfigError, match="sampling rate"):
            sampled(rate, gaussian(1.0))
    with pytest.raises(ConfigError, match="0 rows"):
        user_sampled(0.1, 0, 1.0)


@pytest.mark.parametrize(
    "event",
    [gaussian(0.0), sampled(0.1, gaussian(0.0)), dp.ComposedDpEvent((gaussian(1.0), EVERYTHING))],
)
def test_without_noise_nothing_is_protected(event: dp.DpEvent) -> None:
    for bound in (Accountant().fast, Accountant().tight, Accountant().coarse):
        found = bound({event: 1}, DELTA)
        assert math.isinf(found.epsilon) and found.method == "unprotected"


def test_a_composition_is_its_parts() -> None:
    step = sampled(0.1, gaussian(1.0))
    both = dp.ComposedDpEvent((times(step, 20), gaussian(3.0), times(gaussian(3.0), 2)))
    apart = {step: 40, gaussian(3.0 / math.sqrt(3.0)): 2}
    accountant = Accountant()
    for bound in (accountant.fast, accountant.tight):
        assert bound({both: 2}, DELTA).epsilon == pytest.approx(bound(apart, DELTA).epsilon)
    # Two releases of one sample are one with less noise.
    inner = dp.PoissonSampledDpEvent(0.1, times(gaussian(math.sqrt(2.0)), 2))
    found = accountant.tight({inner: 40, gaussian(math.sqrt(3.0)): 2}, DELTA)
    assert found.epsilon == pytest.approx(accountant.tight(apart, DELTA).epsilon)


def test_tuning_costs_more_than_a_run_and_less_than_all() -> None:
    history = {sampled(256 / 60000, gaussian(1.1)): 14062}
    cost = tuning_cost(history, 10, DELTA)
    assert 2 * cost.one.epsilon < cost.random_stopping.epsilon < 2.6 * cost.one.epsilon
    assert cost.naive.epsilon > 3.5 * cost.one.epsilon
    with pytest.raises(ConfigError, match="at least 2"):
        tuning_cost(history, 1, DELTA)


@pytest.mark.parametrize(
    "event",
    [
        gaussian(1.25),
        sampled(0.3, gaussian(0.5)),
        times(sampled(0.3, gaussian(0.5)), 40),
        fixed_sample(3, 20, gaussian(2.0)),
        user_sampled(0.2, 4, 1.0),
        EVERYTHING,
        dp.ComposedDpEvent((gaussian(1.0), times(gaussian(2.0), 2))),
    ],
)
def test_events_come_back_from_plain_data(event: dp.DpEvent) -> None:
    assert from_plain(to_plain(event)) == event


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "laplace"},
        {"kind": "gaussian"},
        {"kind": "gaussian", "noise": -1.0},
        {"kind": "times", "of": 3},
        {"kind": "times", "count": -2, "of": {"kind": "nothing"}},
        {"kind": "poisson", "rate": -0.5, "of": {"kind": "nothing"}},
        {"kind": "mixture", "noise": 1.0, "sensitivities": [1.0], "chances": [0.5]},
        {"kind": "mixture", "noise": 1.0, "sensitivities": [-1.0], "chances": [1.0]},
    ],
)
def test_other_data_are_no_events(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="privacy"):
        from_plain(data)
