"""One after the other: ``chain``, ``repeat``, ``cycle`` and ``until``."""

from __future__ import annotations

from dataclasses import dataclass

from fedalt.alternation.condition import Condition
from fedalt.alternation.phase import Phase
from fedalt.alternation.schedule import (
    Moment,
    Schedule,
    State,
    Step,
    as_schedule,
    as_schedules,
    next_or_again,
)
from fedalt.errors import ScheduleError


@dataclass(frozen=True)
class Chain(Schedule):
    """Each item to its end, then the next."""

    items: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        for place, item in enumerate(self.items[:-1]):
            if item.endless:
                raise ScheduleError(
                    f"chain: item {place} never ends, so item {place + 1} would never come; "
                    "bound it with repeat(times) or until(max_rounds)"
                )

    def init(self) -> State:
        """At the start of the first item."""
        return [0, self.items[0].init()]

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the current item, or move on to the first that still has a round."""
        place, inner = state
        while True:
            phases, inner = self.items[place].next(inner, moment.child(place))
            if phases is not None:
                return phases, [place, inner]
            if place + 1 == len(self.items):
                return None, [place, inner]
            place += 1
            inner = self.items[place].init()

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The items."""
        return self.items


@dataclass(frozen=True)
class Repeat(Schedule):
    """The item again and again, ``times`` times or for ever."""

    item: Schedule
    times: int | None = None

    def __post_init__(self) -> None:
        if self.times is not None and self.times < 0:
            raise ScheduleError(f"repeat: times is {self.times}, but must not be negative")

    def init(self) -> State:
        """In the first pass."""
        return [1, self.item.init()]

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the item; at its end begin the next pass."""
        number, inner = state
        below = moment.child(0)
        if self.times is None:
            phases, inner = next_or_again("repeat", self.item, inner, below)
            return phases, [1, inner]
        if self.times == 0:
            return None, state
        phases, after = self.item.next(inner, below)
        if phases is None and number < self.times:
            number += 1
            # A pass that is empty now is empty in every later pass of this round too.
            phases, after = self.item.next(self.item.init(), below)
        return (None, state) if phases is None else (phases, [number, after])

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The item."""
        return (self.item,)

    @property
    def endless(self) -> bool:
        """Whether it repeats for ever, or what it repeats does."""
        return self.times is None or (self.times > 0 and self.item.endless)


@dataclass(frozen=True)
class Until(Schedule):
    """The item again and again until a condition holds of the rounds since it began."""

    item: Schedule
    stop: Condition
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        if self.max_rounds is not None and self.max_rounds < 1:
            raise ScheduleError(f"until: max_rounds is {self.max_rounds}, but must be at least 1")

    def init(self) -> State:
        """Not begun: its first round is not known yet."""
        return {"since": 0, "done": 0, "item": self.item.init()}

    def next(self, state: State, moment: Moment) -> Step:
        """Test, then advance the item."""
        since = state["since"] or moment.round
        if self.max_rounds is not None and state["done"] >= self.max_rounds:
            return None, state
        if self.stop.holds(moment.history, since):
            return None, state
        phases, inner = next_or_again("until", self.item, state["item"], moment.child(0))
        return phases, {"since": since, "done": state["done"] + 1, "item": inner}

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The item."""
        return (self.item,)

    @property
    def endless(self) -> bool:
        """Never known: the condition may end it."""
        return False


def chain(*xs: Schedule | Phase) -> Schedule:
    """Do each to its end, one after the other; ``chain`` is associative."""
    items: list[Schedule] = []
    for item in as_schedules("chain", xs):
        # Flattened, so that grouping changes neither the plan nor the places of its draws.
        items.extend(item.items if isinstance(item, Chain) else (item,))
    return items[0] if len(items) == 1 else Chain(tuple(items))


def repeat(x: Schedule | Phase, times: int | None = None) -> Schedule:
    """Do ``x`` ``times`` times over, or for ever; ``times=0`` leaves it out."""
    return Repeat(as_schedule(x), times)


def cycle(*xs: Schedule | Phase) -> Schedule:
    """Do ``chain(*xs)`` again and again, for ever."""
    as_schedules("cycle", xs)
    return repeat(chain(*xs))


def until(x: Schedule | Phase, condition: Condition, max_rounds: int | None = None) -> Schedule:
    """Repeat ``x`` until the condition holds of the rounds since it began.

    The condition is tested before each round; at most ``max_rounds`` rounds are done.
    """
    return Until(as_schedule(x), condition, max_rounds)
