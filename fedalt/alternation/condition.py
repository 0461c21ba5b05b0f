"""Conditions: tests of the history, and of sites.

A condition is a pure function of the metrics since a round. It answers yes, no, or *unknown*
(``None``) where the metric was never measured or is not a number; unknown passes through
``not_``, ``any_of`` and ``all_of`` as in Kleene's three-valued logic, and counts as no in the
end. So nothing stops, or is refused, because of a number that is not there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fedalt.alternation.history import History
from fedalt.errors import ScheduleError


class Condition(ABC):
    """A test of the history since a round."""

    @abstractmethod
    def judge(self, history: History, since: int = 1) -> bool | None:
        """Say whether it is true of the rounds from ``since`` on; ``None`` if unknown."""

    def holds(self, history: History, since: int = 1) -> bool:
        """Say whether it is known to be true."""
        return self.judge(history, since) is True

    @property
    def needs_metrics(self) -> bool:
        """Whether it depends on what a run measures, and so is open before a run."""
        return True


@dataclass(frozen=True)
class Threshold(Condition):
    """The newest value lies strictly below (or above) a bound."""

    metric: str
    value: float
    side: str = "below"

    def judge(self, history: History, since: int = 1) -> bool | None:
        """Compare the newest value since then."""
        last = history.last(self.metric, since)
        if last is None or math.isnan(last):
            return None
        return last < self.value if self.side == "below" else last > self.value

    def __str__(self) -> str:
        return f"{self.metric} {'<' if self.side == 'below' else '>'} {self.value:g}"


@dataclass(frozen=True)
class Plateau(Condition):
    """The metric changed by at most ``relative`` of itself, ``rounds`` times in a row."""

    metric: str
    relative: float
    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.relative > 0:
            raise ScheduleError(
                f"plateau of '{self.metric}': relative must be positive and rounds at least 1"
            )

    def judge(self, history: History, since: int = 1) -> bool | None:
        """Look at the last ``rounds`` changes since then; fewer are no plateau."""
        values = history.values(self.metric, since)[-self.rounds - 1 :]
        if not values or not all(math.isfinite(value) for value in values):
            return None
        if len(values) <= self.rounds:
            return False
        pairs = pairwise(values)
        return all(abs(new - old) <= self.relative * abs(old) for old, new in pairs)

    def __str__(self) -> str:
        return f"{self.metric} changes ≤ {self.relative:g} for {self.rounds} rounds"


@dataclass(frozen=True)
class Rounds(Condition):
    """At least so many rounds have passed."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ScheduleError(f"rounds is {self.count}, but must be at least 1")

    def judge(self, history: History, since: int = 1) -> bool:
        """Count the rounds since then."""
        return len(history) - since + 1 >= self.count

    @property
    def needs_metrics(self) -> bool:
        """Never: rounds are counted without a run."""
        return False

    def __str__(self) -> str:
        return f"{self.count} rounds"


@dataclass(frozen=True)
class Several(Condition):
    """Any or all of several conditions."""

    parts: tuple[Condition, ...]
    mode: str = "any"

    def __post_init__(self) -> None:
        if not self.parts:
            raise ScheduleError(f"'{self.mode}' needs at least one condition")

    def judge(self, history: History, since: int = 1) -> bool | None:
        """Combine in three-valued logic."""
        answers = [part.judge(history, since) for part in self.parts]
        decisive = self.mode == "any"
        if decisive in answers:
            return decisive
        return None if None in answers else not decisive

    @property
    def needs_metrics(self) -> bool:
        """Whether any part does."""
        return any(part.needs_metrics for part in self.parts)

    def __str__(self) -> str:
        word = " or " if self.mode == "any" else " and "
        return "(" + word.join(map(str, self.parts)) + ")"


@dataclass(frozen=True)
class Not(Condition):
    """The opposite; the opposite of unknown is unknown."""

    part: Condition

    def judge(self, history: History, since: int = 1) -> bool | None:
        """Turn yes and no around."""
        answer = self.part.judge(history, since)
        return None if answer is None else not answer

    @property
    def needs_metrics(self) -> bool:
        """Whether the part does."""
        return self.part.needs_metrics

    def __str__(self) -> str:
        return f"not {self.part}"


@dataclass(frozen=True)
class Fits:
    """A test of a site's attributes: every key has one of its allowed values."""

    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.where or not all(self.where.values()):
            raise ScheduleError("a test of sites needs an attribute, each with a value or more")

    def __str__(self) -> str:
        return " and ".join(f"{key} in {'|'.join(v)}" for key, v in self.where.items())


def below(metric: str, value: float) -> Condition:
    """Hold when the metric's newest value is less than ``value``."""
    return Threshold(metric, float(value), "below")


def above(metric: str, value: float) -> Condition:
    """Hold when the metric's newest value is more than ``value``."""
    return Threshold(metric, float(value), "above")


def plateau(metric: str, relative: float, rounds: int) -> Condition:
    """Hold when the metric moved by at most ``relative`` of itself ``rounds`` times running."""
    return Plateau(metric, float(relative), rounds)


def rounds(count: int) -> Condition:
    """Hold once ``count`` rounds have passed."""
    return Rounds(count)


def any_of(*conditions: Condition) -> Condition:
    """Hold when one of them does."""
    return Several(conditions, "any")


def all_of(*conditions: Condition) -> Condition:
    """Hold when every one of them does."""
    return Several(conditions, "all")


def not_(condition: Condition) -> Condition:
    """Hold when the condition is known to be false."""
    return Not(condition)


def fits(attributes: Mapping[str, str | Sequence[str]] | None = None, **more: str) -> Fits:
    """Test a site's attributes, for example ``fits(modality="ct")``."""
    given: dict[str, str | Sequence[str]] = {**(attributes or {}), **more}
    return Fits(
        {
            str(key): (value,) if isinstance(value, str) else tuple(map(str, value))
            for key, value in given.items()
        }
    )
