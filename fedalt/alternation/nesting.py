"""Alternation inside an alternation: ``nest``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedalt.alternation.edit import narrow
from fedalt.alternation.phase import Phase
from fedalt.alternation.schedule import Moment, Schedule, State, Step, as_schedule
from fedalt.alternation.together import start_all, step_all, union
from fedalt.errors import ScheduleError

LOCAL_LIMIT = 1000
"""The most phases that a client alternates between within one round."""


@dataclass(frozen=True)
class Nest(Schedule):
    """Every round of ``outer`` becomes one full run of ``inner``, narrowed by it.

    Where a round of ``outer`` has several phases, each has its own run of ``inner``, side by
    side. An inner phase ``p`` under the outer phase ``o`` is named ``o.p``.
    """

    outer: Schedule
    inner: Schedule

    def __post_init__(self) -> None:
        _check_finite(self.inner)

    def init(self) -> State:
        """Before the first round of ``outer``; ``runs`` holds its phases and their inner states."""
        return {"outer": self.outer.init(), "given": [], "runs": []}

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the runs of ``inner``; when all have ended, take the next round of ``outer``."""
        given = [Phase.from_dict(data) for data in state["given"]]
        if given:
            phases, runs = self._step(given, state["runs"], moment)
            if phases is not None:
                return phases, {**state, "runs": runs}
        outer_phases, outer = self.outer.next(state["outer"], moment.child("outer"))
        if outer_phases is None:
            return None, state
        _check_plain(outer_phases, moment)
        phases, runs = self._step(
            outer_phases, start_all([self.inner for _ in outer_phases]), moment
        )
        if phases is None:
            raise ScheduleError(f"nest at round {moment.round}: its inner schedule has no round")
        return phases, {"outer": outer, "given": [p.to_dict() for p in outer_phases], "runs": runs}

    def _step(
        self, given: list[Phase] | tuple[Phase, ...], runs: State, moment: Moment
    ) -> tuple[tuple[Phase, ...] | None, State]:
        below = [
            replace(
                moment.child("inner").child(outer.name),
                history=moment.history.renamed(prefix=f"{outer.name}."),
            )
            for outer in given
        ]
        groups, after = step_all([self.inner for _ in given], runs, below)
        named = [
            None if group is None else tuple(_under(inner, outer) for inner in group)
            for outer, group in zip(given, groups, strict=True)
        ]
        return union("nest", named, moment.round), after

    @property
    def children(self) -> tuple[Schedule, ...]:
        """Outer and inner."""
        return (self.outer, self.inner)

    @property
    def endless(self) -> bool:
        """Whether ``outer`` is."""
        return self.outer.endless

    def phases(self) -> list[Phase]:
        """Return every inner phase under every outer one."""
        return [_under(i, o) for o in self.outer.phases() for i in self.inner.phases()]


@dataclass(frozen=True)
class LocalNest(Schedule):
    """Every phase of ``outer`` stays one phase, within which the client alternates ``inner``."""

    outer: Schedule
    inner: Schedule

    def __post_init__(self) -> None:
        _check_finite(self.inner)

    def init(self) -> State:
        """The state of ``outer``; ``inner`` runs from start to end in every round."""
        return self.outer.init()

    def next(self, state: State, moment: Moment) -> Step:
        """Give each phase of this round of ``outer`` its inner phases."""
        phases, after = self.outer.next(state, moment.child("outer"))
        if phases is None:
            return None, state
        _check_plain(phases, moment)
        return tuple(self._filled(phase, moment) for phase in phases), after

    def _filled(self, outer: Phase, moment: Moment) -> Phase:
        found: list[Phase] = []
        below = moment.child("inner").child(outer.name)
        state = self.inner.init()
        for number in range(LOCAL_LIMIT + 1):
            # Every step draws from its own place: the round's number does not move here.
            phases, state = self.inner.next(state, below.child(number))
            if phases is None:
                break
            found.extend(_within(phase, outer) for phase in phases)
        else:
            raise ScheduleError(
                f"nest at round {moment.round}: the local inner schedule of '{outer.name}' has "
                f"not ended after {LOCAL_LIMIT} steps; metrics do not change within a round, so "
                "bound it with repeat(times) or until(max_rounds)"
            )
        if not found:
            raise ScheduleError(f"nest at round {moment.round}: its inner schedule has no phase")
        return replace(outer, inner=tuple(found))

    @property
    def children(self) -> tuple[Schedule, ...]:
        """Outer and inner."""
        return (self.outer, self.inner)

    @property
    def endless(self) -> bool:
        """Whether ``outer`` is."""
        return self.outer.endless

    def phases(self) -> list[Phase]:
        """Return the outer phases, each with every inner phase it may hold."""
        inner = self.inner.phases()
        return [replace(o, inner=tuple(_within(i, o) for i in inner)) for o in self.outer.phases()]


def _under(inner: Phase, outer: Phase) -> Phase:
    return replace(narrow(inner, outer), name=f"{outer.name}.{inner.name}")


def _within(inner: Phase, outer: Phase) -> Phase:
    # The client itself applies the outer view and params, which a ramp may yet change: a copy
    # of them would restrict the rows twice, and hold the params where they were.
    return replace(narrow(inner, outer), view=inner.view, params=inner.params)


def _check_plain(phases: tuple[Phase, ...], moment: Moment) -> None:
    for phase in phases:
        if phase.inner:
            raise ScheduleError(
                f"nest at round {moment.round}: the outer phase '{phase.name}' has inner phases "
                "already; put the local alternation into the inner schedule"
            )


def _check_finite(inner: Schedule) -> None:
    if inner.endless:
        raise ScheduleError(
            "nest: the inner schedule never ends, so the outer one would never move on; "
            "bound it with repeat(times) or until(max_rounds)"
        )


def nest(outer: Schedule | Phase, inner: Schedule | Phase, local: bool = False) -> Schedule:
    """Expand each round of ``outer`` into one full run of ``inner``.

    The outer phase supplies the clients, modality, task, view and hyper-parameters that an
    inner phase leaves at their default. With ``local`` the clients alternate by themselves:
    each outer phase stays one round, and ``inner`` becomes its inner phases.
    """
    kind = LocalNest if local else Nest
    return kind(as_schedule(outer), as_schedule(inner))
