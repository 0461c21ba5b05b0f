"""Weights set by the history: ``adaptive`` and its policies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from fedalt.alternation.draws import advance
from fedalt.alternation.history import History
from fedalt.alternation.phase import Phase
from fedalt.alternation.schedule import Moment, Schedule, State, Step, as_schedules, pick
from fedalt.errors import ScheduleError

HUGE = 1e150
"""What a value counts as at most, so that no sum of a diverging metric overflows."""


class Policy(ABC):
    """Weights of several items from what their phases measured."""

    @abstractmethod
    def weights(self, history: History, names: tuple[tuple[str, ...], ...]) -> np.ndarray:
        """Return one weight an item; ``names`` are the names of each item's phases."""


@dataclass(frozen=True)
class Proportional(Policy):
    """w ∝ the metric's last value; negative counts as 0, unknown as the others' mean."""

    metric: str

    def weights(self, history: History, names: tuple[tuple[str, ...], ...]) -> np.ndarray:
        """Average the last values of an item's phases."""
        found = np.full(len(names), np.nan)
        for place, phases in enumerate(names):
            values = [history.last(f"{name}/{self.metric}") for name in phases]
            finite = [max(v, 0.0) for v in values if v is not None and math.isfinite(v)]
            if finite:
                # Divided first: a sum of huge values must not overflow.
                found[place] = sum(value / len(finite) for value in finite)
        known = found[~np.isnan(found)]
        if not known.size or not known.any():
            return np.ones(len(names))
        return np.where(np.isnan(found), (known / known.size).sum(), found)


@dataclass(frozen=True)
class Exponentiated(Policy):
    """w ∝ exp(rate · Σ past values of the metric)."""

    metric: str
    rate: float

    def weights(self, history: History, names: tuple[tuple[str, ...], ...]) -> np.ndarray:
        """Sum over an item's phases and all rounds; the largest weight is 1."""
        sums = [
            math.fsum(
                min(max(value, -HUGE), HUGE)
                for name in phases
                for value in history.values(f"{name}/{self.metric}")
                if math.isfinite(value)
            )
            for phases in names
        ]
        scores = self.rate * np.asarray(sums)
        found: np.ndarray = np.exp(scores - scores.max())
        return found


@dataclass(frozen=True)
class Adaptive(Schedule):
    """One of several each round, drawn by a policy's weights; each keeps its own place."""

    items: tuple[Schedule, ...]
    policy: Policy
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor * len(self.items) <= 1.0:
            raise ScheduleError(
                f"adaptive: floor is {self.floor}, but must lie in [0, 1/{len(self.items)}]"
            )

    def probabilities(self, history: History) -> np.ndarray:
        """Return each item's probability; none is below the floor."""
        names = tuple(tuple(dict.fromkeys(p.name for p in x.phases())) for x in self.items)
        weights = self.policy.weights(history, names)
        # Divided by the largest first: a sum of huge weights must not overflow.
        weights = weights / weights.max()
        spread = 1.0 - self.floor * len(self.items)
        found: np.ndarray = self.floor + spread * weights / weights.sum()
        return found

    def init(self) -> State:
        """Every item at its start."""
        return [item.init() for item in self.items]

    def next(self, state: State, moment: Moment) -> Step:
        """Draw an item and advance it."""
        place = pick(self.probabilities(moment.history), moment.rng())
        return advance("adaptive", self.items, state, place, moment)

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The items."""
        return self.items

    @property
    def endless(self) -> bool:
        """Always."""
        return True


def proportional(metric: str) -> Policy:
    """Weigh an item by the last value of its phases' ``metric``."""
    return Proportional(metric)


def exponentiated(metric: str, rate: float) -> Policy:
    """Weigh an item by ``exp(rate · Σ past values)`` of its phases' ``metric``."""
    return Exponentiated(metric, float(rate))


def adaptive(*xs: Schedule | Phase, policy: Policy, floor: float = 0.0) -> Schedule:
    """Draw one of them each round, by weights that a policy reads from the history.

    All are alike as long as nothing is measured. Each keeps its own place and begins again at
    its end; none is drawn with a probability below ``floor``.
    """
    return Adaptive(as_schedules("adaptive", xs), policy, float(floor))
