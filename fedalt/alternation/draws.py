"""Seeded draws: ``choose`` with fixed weights, and ``power_law`` recurrence of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.alternation.phase import Phase
from fedalt.alternation.recurrence import Hazard
from fedalt.alternation.schedule import (
    Moment,
    Schedule,
    State,
    Step,
    as_schedules,
    next_or_again,
    pick,
)
from fedalt.errors import ScheduleError


@dataclass(frozen=True)
class Choose(Schedule):
    """One of several each round, drawn by weight; each keeps its own place."""

    items: tuple[Schedule, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.items):
            raise ScheduleError(
                f"choose: {len(self.weights)} weights for {len(self.items)} schedules"
            )
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or not any(self.weights):
            raise ScheduleError(
                f"choose: weights are {list(self.weights)}, but must be finite and not negative, "
                "at least one of them positive"
            )

    def init(self) -> State:
        """Every item at its start."""
        return [item.init() for item in self.items]

    def next(self, state: State, moment: Moment) -> Step:
        """Draw an item and advance it."""
        place = pick(np.asarray(self.weights), moment.rng())
        return advance("choose", self.items, state, place, moment)

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The items."""
        return self.items

    @property
    def endless(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class PowerLaw(Schedule):
    """Tasks that come back by a power law of the time since they last came.

    In its round t: with probability ``p_new`` (and in the first round) the next unseen item;
    else a seen item j with probability ∝ (t − last_j + offset)^(−exponent).
    """

    items: tuple[Schedule, ...]
    exponent: float = 0.5
    offset: float = 0.0
    p_new: float = 0.1

    def __post_init__(self) -> None:
        try:
            law = self.law
        except ScheduleError as error:
            raise ScheduleError(f"power_law: {error}") from error
        law.warn_if_few_live(len(self.items), "power_law", 4)

    @property
    def law(self) -> Hazard:
        """The law by which tasks come back."""
        return Hazard(self.exponent, self.offset, self.p_new)

    def init(self) -> State:
        """Before its round 1; ``last`` holds when each seen item last came."""
        return {"time": 0, "last": [], "items": [item.init() for item in self.items]}

    def next(self, state: State, moment: Moment) -> Step:
        """Introduce an item or bring one back."""
        time, last = state["time"] + 1, list(state["last"])
        place = self.law.draw(last, time, len(self.items), moment.rng())
        last[place : place + 1] = [time]
        phases, items = advance("power_law", self.items, state["items"], place, moment)
        return phases, {"time": time, "last": last, "items": items}

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The items."""
        return self.items

    @property
    def endless(self) -> bool:
        """Always."""
        return True


def advance(
    what: str, items: Sequence[Schedule], states: State, place: int, moment: Moment
) -> Step:
    """Advance the item drawn, which begins again at its end, and leave the others in place."""
    phases, after = next_or_again(what, items[place], states[place], moment.child(place))
    return phases, [*states[:place], after, *states[place + 1 :]]


def choose(*xs: Schedule | Phase, weights: Sequence[float] | None = None) -> Schedule:
    """Draw one of them each round, by weight (default: all alike).

    Each keeps its own place, and begins again at its end.
    """
    items = as_schedules("choose", xs)
    given = [1.0] * len(items) if weights is None else weights
    return Choose(items, tuple(float(weight) for weight in given))


def power_law(
    *tasks: Schedule | Phase, exponent: float = 0.5, offset: float = 0.0, p_new: float = 0.1
) -> Schedule:
    """Introduce tasks at random and bring seen ones back by a power law of their lag.

    Warns at an exponent of 1 or more, where all but a few tasks die out.
    """
    items = as_schedules("power_law", tasks)
    return PowerLaw(items, float(exponent), float(offset), float(p_new))
