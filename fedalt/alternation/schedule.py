"""Schedule: a finite or endless sequence of rounds, as an immutable value.

A node's state is explicit plain data (JSON), handed in and returned, so a schedule has no
memory of its own and resuming it is reading a file. A round is a tuple of phases; several
mean that different clients do different work in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedalt.alternation.history import History
from fedalt.alternation.phase import Phase
from fedalt.errors import ScheduleError
from fedalt.seeds import Label, Seeds

State = Any
"""Plain JSON data."""
Step = tuple[tuple[Phase, ...] | None, State]
"""What a node answers: the round's phases, or ``None`` at its end, and its next state."""


@dataclass(frozen=True)
class Moment:
    """Where the run stands: the round to plan (from 1), what was measured, and the seeds.

    ``seeds`` is this node's own place in the tree of seeds; :meth:`child` walks down it.
    """

    round: int
    history: History
    seeds: Seeds

    def child(self, label: Label) -> Moment:
        """Return the moment for a node further down."""
        return replace(self, seeds=self.seeds.at(label))

    def rng(self) -> np.random.Generator:
        """Return this node's generator for this round."""
        return self.seeds.at("round", self.round).numpy()


class Schedule(ABC):
    """A node of a schedule."""

    @abstractmethod
    def init(self) -> State:
        """Return the state before the first round."""

    @abstractmethod
    def next(self, state: State, moment: Moment) -> Step:
        """Return the phases of this round and the state after it; ``None`` is the end."""

    @property
    @abstractmethod
    def children(self) -> tuple[Schedule, ...]:
        """The nodes that it is made of."""

    @property
    def endless(self) -> bool:
        """Whether it is known to have no end; one that a metric may end is not."""
        return any(child.endless for child in self.children)

    def phases(self) -> list[Phase]:
        """Return every phase it may emit, as far as known before a run."""
        return [phase for child in self.children for phase in child.phases()]


@dataclass(frozen=True)
class Leaf(Schedule):
    """One phase, once."""

    phase: Phase

    def init(self) -> State:
        """Not done yet."""
        return 0

    def next(self, state: State, moment: Moment) -> Step:
        """Emit the phase, then end."""
        return (None, state) if state else ((self.phase,), 1)

    @property
    def children(self) -> tuple[Schedule, ...]:
        """None."""
        return ()

    def phases(self) -> list[Phase]:
        """Return the phase."""
        return [self.phase]


def as_schedule(x: Schedule | Phase) -> Schedule:
    """Return ``x``, a phase as the schedule of one round."""
    if isinstance(x, Phase):
        return Leaf(x)
    if not isinstance(x, Schedule):
        raise ScheduleError(f"{x!r} is a {type(x).__name__}, not a schedule or a phase")
    return x


def as_schedules(what: str, xs: tuple[Schedule | Phase, ...]) -> tuple[Schedule, ...]:
    """Return several as schedules; at least one is needed."""
    if not xs:
        raise ScheduleError(f"{what} needs at least one schedule or phase")
    return tuple(as_schedule(x) for x in xs)


def next_or_again(what: str, child: Schedule, state: State, moment: Moment) -> Step:
    """Advance a child that begins again at its end.

    Raises :class:`ScheduleError` if it ends before its first round: it would loop for ever.
    """
    phases, after = child.next(state, moment)
    if phases is None:
        phases, after = child.next(child.init(), moment)
    if phases is None:
        raise ScheduleError(
            f"{what} at round {moment.round}: what it repeats ends before its first round, "
            "so no round would ever come; check its times and its stop condition"
        )
    return phases, after


def pick(weights: np.ndarray, rng: np.random.Generator) -> int:
    """Draw an index with probability proportional to its weight."""
    cumulative = np.cumsum(weights)
    found = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return min(found, int(np.flatnonzero(weights)[-1]))


def walk(schedule: Schedule) -> Iterator[Schedule]:
    """Yield a schedule's nodes, each before those below it."""
    yield schedule
    for child in schedule.children:
        yield from walk(child)
