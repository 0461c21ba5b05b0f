"""Whether a statement holds: means over seeds, their t-intervals, and a verdict.

Arms are compared seed by seed: a contrast is formed within each seed, and the interval is that
of its mean (Student 1908). Intervals are one by one at 95 %, not all together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.claims.statements import Contrast, Statement
from fedalt.evaluation import intervals

LEVEL = 0.95
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

Values = Mapping[str, Sequence[float]]
"""One measure: an arm's values, one a seed, in the same order of seeds for all arms."""


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` seeds and half of its 95 % t-interval; None for a single seed."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """The lower end; the mean itself where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the mean itself where there is no interval."""
        return self.mean + (self.half or 0.0)


@dataclass(frozen=True)
class Judged:
    """A statement's verdict, and the contrast that it rests on with its interval."""

    statement: Statement
    verdict: str
    contrast: str
    found: Interval


def interval(values: Sequence[float]) -> Interval:
    """Return mean ± t(0.975, n − 1) · s / √n of values (n,)."""
    if len(values) < 2:
        return Interval(float(values[0]), None, 1)
    if not np.isfinite(values).all():
        # There a value that is no number is left out; here it leaves nothing to be said.
        return Interval(math.nan, math.nan, len(values))
    found = intervals.interval(values, level=LEVEL)
    mean = float(found.mean)
    return Interval(mean, float(found.high) - mean, len(values))


def judge(statement: Statement, values: Values) -> Judged:
    """Judge a statement by its measure's values.

    It holds if every contrast's interval lies in the claimed range, does not hold if one lies
    wholly outside, and is undecided else, also where a value is not finite.
    """
    found = [(contrast, interval(_formed(contrast, values))) for contrast in statement.contrasts]
    verdicts = [_verdict(statement, item) for _, item in found]
    order = {HOLDS: 0, UNDECIDED: 1, FAILS: 2}
    # The verdict is the worst contrast's; of several equal ones, the furthest is told.
    verdict, (contrast, shown) = max(
        zip(verdicts, found, strict=True),
        key=lambda pair: (order[pair[0]], abs(pair[1][1].mean) + (pair[1][1].half or 0.0)),
    )
    return Judged(statement, verdict, contrast.label, shown)


def overall(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim by those on its statements."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else UNDECIDED


def _formed(contrast: Contrast, values: Values) -> list[float]:
    """Return the contrast within each seed."""
    terms = [weight * np.asarray(values[arm], float) for arm, weight in contrast.weights]
    # inf − inf is no number, and is judged as such.
    with np.errstate(invalid="ignore"):
        return [float(value) for value in np.sum(terms, axis=0)]


def _verdict(statement: Statement, found: Interval) -> str:
    low, high = statement.low, statement.high
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return UNDECIDED
    if statement.by_mean and low <= found.mean <= high:
        return HOLDS
    if found.high < low or found.low > high:
        return FAILS
    inside = low <= found.low and found.high <= high and not statement.by_mean
    return HOLDS if inside else UNDECIDED
