"""``stream``: a schedule that goes through a stream of tasks, experience by experience."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedalt.alternation.environment import Environment, read_environment
from fedalt.alternation.phase import Phase
from fedalt.alternation.recurrence import Hazard
from fedalt.alternation.schedule import Moment, Schedule, State, Step, as_schedule, walk
from fedalt.alternation.stream_view import StreamView
from fedalt.errors import ScheduleError


@dataclass(frozen=True)
class TaskStream(Schedule):
    """The item ``rounds`` times over in each experience, its phases viewing that experience."""

    item: Schedule
    view: StreamView
    rounds: int = 1
    experiences: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.experiences < 1:
            raise ScheduleError(
                f"stream: rounds is {self.rounds} and experiences is {self.experiences}, but "
                "both must be at least 1"
            )
        if self.experiences > len(self.view.tasks) and not self.view.stochastic:
            raise ScheduleError(
                f"stream: {self.experiences} experiences need as many tasks, but there are "
                f"{len(self.view.tasks)}; only a 'hazard' environment brings tasks back"
            )
        if self.item.endless:
            raise ScheduleError(
                "stream: what it repeats never ends, so the second task would never come; bound "
                "it with repeat(times) or until(max_rounds)"
            )
        if any(isinstance(node, TaskStream) for node in walk(self.item)):
            raise ScheduleError(
                "stream: there is a stream within it, but a client is at one task at a time; do "
                "one after the other with chain, the second with 'first'"
            )
        for environment in self.view.environments:
            if environment.stochastic:
                law = Hazard(environment.exponent, environment.scale, environment.p_new)
                law.warn_if_few_live(len(self.view.tasks), "stream: environment 'hazard'", 4)

    def init(self) -> State:
        """Before the first experience: its number, passes done in it, the item's state."""
        return [0, 0, self.item.init()]

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the item; at its end begin the next pass, or the next experience."""
        experience, passes, inner = state
        below = moment.child(0)
        phases, inner = self.item.next(inner, below)
        if phases is None:
            passes += 1
            if passes == self.rounds:
                experience, passes = experience + 1, 0
            if experience == self.experiences:
                return None, state
            # A pass that is empty now is empty in every later pass of this round too.
            phases, inner = self.item.next(self.item.init(), below)
        if phases is None:
            return None, state
        return tuple(self._seen(p, experience) for p in phases), [experience, passes, inner]

    def _seen(self, phase: Phase, experience: int) -> Phase:
        """Return the phase with its view of an experience."""
        there = replace(self.view, experience=self.view.first + experience)
        return replace(phase, view=replace(phase.view, stream=there))

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The item."""
        return (self.item,)

    def phases(self) -> list[Phase]:
        """Return the item's phases as the first experience shows them."""
        return [self._seen(phase, 0) for phase in self.item.phases()]


def stream(
    x: Schedule | Phase,
    tasks: int | Sequence[int],
    *,
    environment: str | Environment | Sequence[str | Environment] = "none",
    rehearsal: float = 0.0,
    new: int = 0,
    rounds: int = 1,
    order: str = "sync",
    budget: str = "steps",
    experiences: int | None = None,
    first: int = 0,
) -> Schedule:
    """Go through tasks one after the other; in each, do ``x`` ``rounds`` times over.

    ``tasks`` is their number or their order. In an experience a client trains on ``new`` rows of
    a new task (0: all it has) and on ⌊rehearsal·new⌋ rows of those met before, shared among
    them by its ``environment`` (:mod:`fedalt.alternation.environment`); with several, site k
    lives in the k-th, in turn. ``order`` is ``sync``, ``shift`` or ``shuffle``, ``budget``
    ``steps`` or ``epochs`` (:class:`StreamView`). ``experiences`` are as many as tasks unless
    an environment ``hazard`` draws them; they are numbered from ``first``, so that a stream that
    follows another in a chain can go on where that ended.
    """
    given = environment if isinstance(environment, list | tuple) else [environment]
    base = tuple(range(tasks)) if isinstance(tasks, int) else tuple(tasks)
    if isinstance(tasks, int) and tasks < 1:
        raise ScheduleError(f"stream: tasks is {tasks}, but must be at least 1")
    view = StreamView(
        tasks=base,
        new=new,
        rehearsal=rehearsal,
        environments=tuple(map(read_environment, given)),
        order=order,
        budget=budget,
        experience=first,
        first=first,
    )
    return TaskStream(
        as_schedule(x), view, rounds, len(base) if experiences is None else experiences
    )
