"""Statistics against values worked out by hand, and every verdict on either side of its edge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedalt.claims.judge import FAILS, HOLDS, UNDECIDED, interval, judge, overall
from fedalt.claims.statements import parse_statement

T2 = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
"""The 97.5 % point of Student's t with 2 degrees of freedom in closed form; tables say 4.303."""


def said(values: dict[str, list[float]], **data: Any) -> tuple[str, float, float | None]:
    statement = parse_statement({"measure": "m", **data}, list(values), "claim.holds[0]")
    found = judge(statement, values)
    return found.verdict, found.found.mean, found.found.half


def test_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])
    # s = 1, so half = t / √3.
    assert found.mean == 2.0 and found.half == pytest.approx(T2 / math.sqrt(3), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((2.0 - 2.484138, 2.0 + 2.484138), abs=1e-6)
    # Two values: s = √2, standard error 1, and t(0.975, 1) = tan(0.475 π).
    assert interval([0.0, 2.0]).half == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)
    assert interval([4.0, 4.0, 4.0]).half == 0.0
    assert interval([4.0]).half is None


def test_arms_are_compared_seed_by_seed() -> None:
    # Far apart between seeds, close within: unpaired, nothing could be told.
    values = {"a": [1.1, 5.1, 9.2], "b": [1.0, 5.0, 9.0]}
    verdict, mean, half = said(values, more="a", than="b")
    # Differences .1, .1, .2: mean .4/3, s = .1/√3, standard error .1/3.
    assert mean == pytest.approx(0.4 / 3) and half == pytest.approx(T2 * 0.1 / 3)
    assert verdict == UNDECIDED, "0.1333 − 0.1434 is below 0"
    verdict, _, _ = said({"a": [1.1, 5.11, 9.1], "b": [1.0, 5.0, 9.0]}, more="a", than="b")
    assert verdict == HOLDS


@pytest.mark.parametrize(
    ("by", "verdict"),
    # The difference is 2 ± 2.484: from −0.484 to 4.484.
    [(-0.49, HOLDS), (-0.48, UNDECIDED), (0, UNDECIDED), (4.48, UNDECIDED), (4.49, FAILS)],
)
def test_more_by_so_much(by: float, verdict: str) -> None:
    assert said({"a": [1.0, 2.0, 3.0], "b": [0.0] * 3}, more="a", than="b", by=by)[0] == verdict


def test_more_is_more() -> None:
    assert said({"a": [1.0, 2.0], "b": [1.0, 2.0]}, more="a", than="b")[0] == FAILS
    assert said({"a": [2.0, 3.0], "b": [1.0, 2.0]}, more="a", than="b", by=1)[0] == FAILS
    assert said({"a": [2.0, 3.0], "b": [1.0, 2.0]}, more="a", than="b", by=0.99)[0] == HOLDS


def test_so_many_times_more() -> None:
    values = {"a": [46.0, 37.0, 36.0], "b": [2.0, 2.0, 1.0]}
    verdict, mean, half = said(values, more="a", than="b", times=10)
    # 26, 17, 26: mean 23, s = √27, standard error 3.
    assert (verdict, mean) == (HOLDS, 23.0) and half == pytest.approx(3 * T2)
    assert said(values, more="a", than="b", times=20)[0] == UNDECIDED


def test_a_gap_that_grows() -> None:
    values = {"a": [9.0, 8.0], "b": [1.0, 1.0], "c": [5.0, 4.0], "d": [2.0, 2.0]}
    verdict, mean, _ = said(values, more=["a", "b"], than=["c", "d"])
    # (8 − 3, 7 − 2)
    assert (verdict, mean) == (HOLDS, 5.0)
    assert said(values, more=["c", "d"], than=["a", "b"])[0] == FAILS
    assert said(values, more=["a", "b"], than=["c", "d"], times=3)[1] == pytest.approx(-0.0)


def test_the_same_within_so_much_judges_every_pair() -> None:
    values = {"a": [1.0, 1.0], "b": [1.1, 1.1], "c": [1.3, 1.3]}
    names = ["a", "b", "c"]
    assert said(values, same=names, within=0.31)[0] == HOLDS
    verdict, mean, _ = said(values, same=names, within=0.15)
    assert verdict == FAILS and mean == pytest.approx(-0.3), "the furthest pair is told"
    assert said({"a": [1.0, 1.1], "b": [1.1, 1.0]}, same=["a", "b"], within=0.5)[0] == UNDECIDED


def test_a_published_value_lies_near_the_mean() -> None:
    values = {"a": [1.0, 2.0, 3.0]}
    assert said(values, arm="a", near=2.05, within=0.1)[0] == HOLDS, "however wide the interval"
    assert said(values, arm="a", near=4.0, within=0.5)[0] == UNDECIDED
    assert said(values, arm="a", near=5.0, within=0.5)[0] == FAILS


def test_one_seed_is_judged_by_its_value() -> None:
    assert said({"a": [2.0], "b": [1.0]}, more="a", than="b") == (HOLDS, 1.0, None)
    assert said({"a": [2.0], "b": [1.0]}, more="b", than="a") == (FAILS, -1.0, None)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("more", ["a", "b"])
def test_what_is_no_number_decides_nothing(odd: float, more: str) -> None:
    values = {"a": [odd, 1.0, 1.0], "b": [0.0, 0.0, 0.0]}
    assert said(values, more=more, than="ab".replace(more, ""))[0] == UNDECIDED
    assert said({k: v[:1] for k, v in values.items()}, same=["a", "b"], within=1)[0] == UNDECIDED


def test_the_whole_claim() -> None:
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, UNDECIDED]) == UNDECIDED
    assert overall([UNDECIDED, FAILS, HOLDS]) == FAILS
    assert overall([]) == UNDECIDED
