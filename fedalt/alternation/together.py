"""Several phases in one round: ``parallel``, ``fork``; and ``when``, which splits or decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedalt.alternation.condition import Condition, Fits, fits
from fedalt.alternation.phase import Phase
from fedalt.alternation.schedule import Moment, Schedule, State, Step, as_schedule, as_schedules
from fedalt.errors import ScheduleError, nearest

Group = tuple[Phase, ...]


@dataclass(frozen=True)
class Parallel(Schedule):
    """All branches side by side, to the end of the longest."""

    branches: tuple[Schedule, ...]

    def init(self) -> State:
        """Every branch at its start."""
        return start_all(self.branches)

    def next(self, state: State, moment: Moment) -> Step:
        """Return all branches' phases of this round."""
        groups, after = step_all(self.branches, state, [moment.child(i) for i in range(len(state))])
        return union("parallel", groups, moment.round), after

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The branches."""
        return self.branches


@dataclass(frozen=True)
class Fork(Schedule):
    """Branches that all start from the round's model; their results go to the bank, apart."""

    names: tuple[str, ...]
    branches: tuple[Schedule, ...]

    def __post_init__(self) -> None:
        if not self.names or not all(self.names):
            raise ScheduleError("fork needs at least one branch, and a name for each")

    def init(self) -> State:
        """Every branch at its start."""
        return start_all(self.branches)

    def next(self, state: State, moment: Moment) -> Step:
        """Return all branches' phases, each marked with its branch."""
        below = [
            replace(moment.child(name), history=moment.history.renamed(suffix=f"@{name}"))
            for name in self.names
        ]
        groups, after = step_all(self.branches, state, below)
        marked = [
            None if group is None else tuple(_branched(phase, name) for phase in group)
            for name, group in zip(self.names, groups, strict=True)
        ]
        return union("fork", marked, moment.round), after

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The branches."""
        return self.branches

    def phases(self) -> list[Phase]:
        """Return the branches' phases, as marked."""
        pairs = zip(self.names, self.branches, strict=True)
        return [_branched(phase, name) for name, x in pairs for phase in x.phases()]


@dataclass(frozen=True)
class When(Schedule):
    """A condition decides which of two takes the round; both keep their place."""

    condition: Condition
    yes: Schedule
    no: Schedule

    def init(self) -> State:
        """Both at their start, neither chosen."""
        return [None, self.yes.init(), self.no.init()]

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the one chosen; end when the one chosen last has come to its end."""
        last, *inner = state
        if last is not None and self._at(last, inner, moment)[0] is None:
            return None, state
        chosen = 0 if self.condition.holds(moment.history) else 1
        phases, inner[chosen] = self._at(chosen, inner, moment)
        return (None, state) if phases is None else (phases, [chosen, *inner])

    def _at(self, place: int, inner: Sequence[State], moment: Moment) -> Step:
        return self.children[place].next(inner[place], moment.child(place))

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The two."""
        return (self.yes, self.no)

    @property
    def endless(self) -> bool:
        """Whether neither has an end."""
        return self.yes.endless and self.no.endless


@dataclass(frozen=True)
class Split(Schedule):
    """A test of sites decides, in one round: ``yes`` for those who fit, ``no`` for the others."""

    test: Fits
    yes: Schedule
    no: Schedule | None = None

    def init(self) -> State:
        """Both at their start."""
        return start_all(self.children)

    def next(self, state: State, moment: Moment) -> Step:
        """Return both sides' phases, each for its own sites."""
        below = [moment.child(i) for i in range(len(self.children))]
        groups, after = step_all(self.children, state, below)
        sided = [
            None if group is None else tuple(self._sided(phase, i) for phase in group)
            for i, group in enumerate(groups)
        ]
        return union("when", sided, moment.round), after

    def _sided(self, phase: Phase, side: int) -> Phase:
        clients, where = phase.clients, self.test.where
        return replace(phase, clients=clients.excluding(where) if side else clients.narrowed(where))

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The two, or the one."""
        return (self.yes,) if self.no is None else (self.yes, self.no)

    def phases(self) -> list[Phase]:
        """Return both sides' phases, each for its own sites."""
        return [self._sided(p, i) for i, child in enumerate(self.children) for p in child.phases()]


def start_all(branches: Sequence[Schedule]) -> State:
    """Return the state of branches that advance together: whether alive, and each one's own."""
    return [[True, branch.init()] for branch in branches]


def step_all(
    branches: Sequence[Schedule], state: State, moments: Sequence[Moment]
) -> tuple[list[Group | None], State]:
    """Advance every branch that is alive; ended ones answer ``None``."""
    groups: list[Group | None] = []
    after = []
    for branch, (alive, inner), moment in zip(branches, state, moments, strict=True):
        group, inner = branch.next(inner, moment) if alive else (None, inner)
        groups.append(group)
        after.append([group is not None, inner])
    return groups, after


def union(what: str, groups: Sequence[Group | None], number: int) -> Group | None:
    """Join the groups of one round; ``None`` if all have ended.

    Raises :class:`ScheduleError` if two phases of the round have one name.
    """
    if all(group is None for group in groups):
        return None
    seen: dict[str, int] = {}
    for place, group in enumerate(groups):
        for phase in group or ():
            if phase.name in seen:
                raise ScheduleError(
                    f"{what} at round {number}: branches {seen[phase.name]} and {place} both emit "
                    f"a phase '{phase.name}'; phases of one round need different names"
                )
            seen[phase.name] = place
    return tuple(phase for group in groups for phase in group or ())


def _branched(phase: Phase, name: str) -> Phase:
    branch = f"{name}/{phase.branch}" if phase.branch else name
    return replace(phase, name=f"{phase.name}@{name}", branch=branch)


def parallel(*xs: Schedule | Phase) -> Schedule:
    """Do all of them side by side: different clients do different phases in one round."""
    branches = as_schedules("parallel", xs)
    return branches[0] if len(branches) == 1 else Parallel(branches)


def fork(
    branches: Mapping[str, Schedule | Phase] | None = None, **more: Schedule | Phase
) -> Schedule:
    """Do several from one snapshot of the model in one round, and keep their results apart.

    A phase ``p`` of the branch ``b`` is named ``p@b``, and its result is the bank's ``b``.
    """
    named = {**(branches or {}), **more}
    return Fork(tuple(map(str, named)), tuple(as_schedule(x) for x in named.values()))


def when(
    condition: Condition | Fits | Mapping[str, str | Sequence[str]],
    a: Schedule | Phase,
    b: Schedule | Phase | None = None,
    level: str = "round",
) -> Schedule:
    """Do ``a`` where the condition holds, else ``b``.

    At the level of the ``round`` the condition tests the whole history before each round, and
    ``when`` ends when the one it chose last has ended. At the level of the ``client`` it tests
    the sites' attributes: ``a`` for those who fit, ``b`` (if any) for the others, in one round.
    """
    if level not in ("round", "client"):
        raise ScheduleError(f"when: unknown level '{level}'{nearest(level, ('round', 'client'))}")
    other = None if b is None else as_schedule(b)
    if level == "client":
        if isinstance(condition, Condition):
            raise ScheduleError(
                "when: level 'client' tests a site's attributes, for example fits(modality='ct'), "
                f"not the history ({condition})"
            )
        test = condition if isinstance(condition, Fits) else fits(condition)
        return Split(test, as_schedule(a), other)
    if not isinstance(condition, Condition):
        raise ScheduleError("when: a test of sites needs level 'client'")
    if other is None:
        raise ScheduleError("when: level 'round' needs something to do when the condition fails")
    return When(condition, as_schedule(a), other)
