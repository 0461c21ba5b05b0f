"""Environments: counts against closed forms, exact sums, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedalt.alternation import PRESETS, Environment
from fedalt.alternation.environment import KINDS, apportion, read_environment
from fedalt.errors import ScheduleError

PLENTY = [10**6] * 20
BUDGETED = [
    Environment("last"),
    Environment("uniform"),
    Environment("exponential", scale=1.0),
    Environment("exponential", scale=0.01),
    PRESETS["inverse_lag"],
    PRESETS["power_5.6"],
]


def test_unrestricted_power_law_is_the_published_table() -> None:
    """n = N₀(1 + l/10)^−5.6: 57 927 rows of the new task, then these of older ones."""
    law = Environment("unrestricted", exponent=5.6, scale=10.0)
    counts = law.counts([1, 2, 3, 4, 5], 57_927, 0.0, [60_000] * 5)
    published = [33_969, 20_867, 13_329, 8_802, 5_981]
    assert counts == pytest.approx(published, rel=2e-4)


@pytest.mark.parametrize("rehearsal", [1.0, 0.75, 0.5, 0.25, 0.1, 0.02, 0.07, 0.29, 0.0])
@pytest.mark.parametrize("environment", BUDGETED, ids=str)
@pytest.mark.parametrize("past", [1, 2, 7, 20])
def test_counts_sum_exactly_to_the_budget(
    environment: Environment, rehearsal: float, past: int
) -> None:
    lags = list(range(past, 0, -1))
    for new in (1, 99, 100, 2000):
        counts = environment.counts(lags, new, rehearsal, PLENTY[:past])
        assert sum(counts) == math.floor(round(rehearsal * new, 6))
        assert min(counts) >= 0


def test_counts_follow_the_weights_to_within_one_row() -> None:
    lags = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    for environment, weight in (
        (Environment("uniform"), lambda lag: 1.0),
        (Environment("exponential", scale=1.0), lambda lag: math.exp(-lag)),
        (PRESETS["inverse_lag"], lambda lag: 1 / lag),
        (PRESETS["power_5.6"], lambda lag: (1 + lag / 10) ** -5.6),
    ):
        weights = np.array([weight(lag) for lag in lags])
        exact = 200 * weights / weights.sum()
        found = environment.counts(lags, 2000, 0.1, [2000] * 9)
        assert np.abs(found - exact).max() < 1.0, environment


def test_last_none_and_upper() -> None:
    assert Environment("last").counts([3, 2, 1], 100, 0.5, [100] * 3) == [0, 0, 50]
    assert Environment("none").counts([3, 2, 1], 100, 0.5, [100] * 3) == [0, 0, 0]
    assert Environment("upper").counts([3, 2, 1], 100, 0.1, [100, 90, 80]) == [100, 90, 80]
    assert Environment("uniform").counts([], 100, 0.5, []) == []


def test_a_long_stream_does_not_underflow() -> None:
    lags = list(range(2000, 0, -1))
    counts = Environment("exponential", scale=1.0).counts(lags, 10_000, 1.0, [10_000] * 2000)
    assert sum(counts) == 10_000 and counts[-1] == 6321
    counts = Environment("power_law", exponent=300.0).counts(lags, 100, 1.0, [100] * 2000)
    assert counts[-1] == 100


@given(st.integers(0, 500), st.lists(st.floats(0, 1e6), min_size=1, max_size=12))
def test_apportion_sums_and_is_within_one(total: int, weights: list[float]) -> None:
    shares = apportion(total, weights)
    if sum(weights) <= 0:
        assert shares == [0] * len(weights)
        return
    assert sum(shares) == total
    exact = total * np.array(weights) / np.sum(weights)
    assert np.abs(np.array(shares) - exact).max() <= 1.0 + 1e-6


def test_of_equal_remainders_the_later_place_comes_first() -> None:
    assert apportion(7, [1, 1, 1]) == [2, 2, 3]
    assert apportion(8, [1, 1, 1]) == [2, 3, 3]


def test_more_than_was_seen_is_refused() -> None:
    with pytest.raises(ScheduleError, match=r"rehearses 200 rows .* of which 150 were seen"):
        Environment("last").counts([2, 1], 2000, 0.1, [2000, 150])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("unifrom", "unknown environment 'unifrom' (did you mean 'uniform'?)"),
        ({"power_law": {"exponent": 0}}, "exponent is 0, but must be above 0"),
        ({"power_law": {"exponent": -1}}, "exponent is -1, but must be above 0"),
        ({"power_law": {"scale": -1}}, "scale is -1, but must be 0 or more"),
        ({"exponential": {"scale": 0}}, "scale is 0, but must be above 0"),
        ({"hazard": {"p_new": 0}}, "p_new is 0, but must lie in (0, 1]"),
        ({"uniform": {"exponent": 1}}, "unknown key 'exponent'"),
        ({"power_law": {"exponnt": 1}}, "unknown key 'exponnt'"),
        ({"power_law": {"exponent": "x"}}, "a number expected"),
        ({"power_law": {"exponent": float("nan")}}, "must be finite"),
        ({}, "environment is one entry"),
    ],
)
def test_bad_settings_are_named(data: object, message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        read_environment(data, "schedule.stream.environment")
    assert message in str(caught.value) and "schedule.stream.environment" in str(caught.value)


@pytest.mark.parametrize("kind", [*KINDS, *PRESETS])
def test_plain_data_reads_back(kind: str) -> None:
    environment = read_environment(kind)
    assert read_environment(environment.to_data()) == environment
