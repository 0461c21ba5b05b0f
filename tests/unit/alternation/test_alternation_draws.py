"""Draws: frequencies, places, weights from the history, and the power law's hazard."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from alternation_toys import names, unroll

from fedalt.alternation import (
    History,
    Phase,
    adaptive,
    chain,
    choose,
    exponentiated,
    power_law,
    proportional,
)
from fedalt.alternation.adapt import Adaptive

A, B, C = (Phase(name) for name in "abc")


def test_choose_draws_by_weight() -> None:
    weights = np.array([4, 3, 2, 1, 0])
    found = Counter(names(choose(*map(Phase, "abcde"), weights=weights), 3000, seed=7))
    expected = 3000 * weights / weights.sum()
    seen = np.array([found[name] for name in "abcde"])
    assert seen[4] == 0
    # The 99.9 % point of chi-square with 3 degrees of freedom.
    assert float(((seen - expected)[:4] ** 2 / expected[:4]).sum()) < 16.27


def test_choose_keeps_every_childs_place() -> None:
    lengths = {"x": 2, "y": 3, "z": 1}
    parts = [chain(*(Phase(f"{n}{i}") for i in range(k))) for n, k in lengths.items()]
    found = names(choose(*parts), 60, seed=3)
    for name, length in lengths.items():
        visits = [entry for entry in found if entry[0] == name]
        assert len(visits) > 5
        assert visits == [f"{name}{k % length}" for k in range(len(visits))]


def test_choose_differs_between_seeds_and_places() -> None:
    assert names(choose(A, B), 40, seed=1) != names(choose(A, B), 40, seed=2)
    two = unroll(choose(choose(A, B), choose(A, B)), 40)
    assert len({p[0].name for p in two}) == 2


def weights_of(schedule: object, *entries: dict[str, float]) -> list[float]:
    assert isinstance(schedule, Adaptive)
    return [float(p) for p in schedule.probabilities(History(entries))]


def test_proportional_by_hand() -> None:
    schedule = adaptive(A, B, C, policy=proportional("loss"))
    assert weights_of(schedule) == pytest.approx([1 / 3] * 3)
    seen = [{"a/loss": 9.0, "b/loss": 1.0}, {"a/loss": 3.0}]
    # c was never seen: it weighs as much as the others on average, here 2.
    assert weights_of(schedule, *seen) == pytest.approx([3 / 6, 1 / 6, 2 / 6])
    odd = {"a/loss": float("nan"), "b/loss": -1.0, "c/loss": 2.0}
    assert weights_of(schedule, odd) == pytest.approx([1 / 3, 0, 2 / 3])
    assert weights_of(schedule, {"a/loss": 0.0}) == pytest.approx([1 / 3] * 3)
    huge = {f"{name}/loss": 1e308 for name in "abc"}
    assert weights_of(schedule, huge) == pytest.approx([1 / 3] * 3)


def test_exponentiated_by_hand() -> None:
    schedule = adaptive(A, B, policy=exponentiated("gain", 0.5), floor=0.1)
    assert weights_of(schedule) == pytest.approx([0.5, 0.5])
    record = [{"a/gain": 1.0}, {"a/gain": 3.0, "b/gain": 2.0}]
    share = np.exp(2.0) / (np.exp(2.0) + np.exp(1.0))
    assert weights_of(schedule, *record) == pytest.approx([0.1 + 0.8 * share, 0.9 - 0.8 * share])
    assert weights_of(schedule, {"a/gain": 1e6}) == pytest.approx([0.9, 0.1])


def test_adaptive_follows_its_weights() -> None:
    schedule = adaptive(A, B, policy=proportional("loss"))
    found = Counter(names(schedule, 1000, metrics=lambda r: {"a/loss": 3.0, "b/loss": 1.0}))
    assert found["a"] == pytest.approx(750, abs=60)


def test_power_law_introduces_in_order_and_falls_off_as_a_power() -> None:
    tasks, exponent = 20, 0.5
    schedule = power_law(*(Phase(str(i)) for i in range(tasks)), exponent=exponent, p_new=0.1)
    found = [int(name) for name in names(schedule, 8000, seed=1)]
    assert list(dict.fromkeys(found)) == list(range(tasks))
    start = found.index(tasks - 1)
    assert len(set(found[4000:])) == tasks
    longest = 150
    at_risk, came = np.zeros(longest + 1), np.zeros(longest + 1)
    last: dict[int, int] = {}
    for time, task in enumerate(found):
        if time > start:
            for other, seen in last.items():
                if time - seen <= longest:
                    at_risk[time - seen] += 1
                    came[time - seen] += other == task
        last[task] = time
    edges = np.unique(np.geomspace(1, longest, 12).astype(int))
    pairs = [slice(a, b) for a, b in itertools.pairwise(edges)]
    lag = [np.average(np.arange(longest + 1)[s], weights=at_risk[s]) for s in pairs]
    hazard = [came[s].sum() / at_risk[s].sum() for s in pairs]
    slope = np.polyfit(np.log(lag), np.log(hazard), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)


def test_power_law_offset_flattens() -> None:
    """With a huge offset all seen tasks are alike."""
    schedule = power_law(A, B, C, exponent=0.9, offset=1e9, p_new=1.0)
    found = names(schedule, 1500)
    assert found[:3] == ["a", "b", "c"]
    assert min(Counter(found).values()) > 430


def test_power_law_warns_of_dying_tasks() -> None:
    with pytest.warns(UserWarning, match="only 1 of 2 tasks stay alive"):
        power_law(A, B, exponent=1.0)
