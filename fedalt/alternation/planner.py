"""The planner: round and history in, the round's phases and their cohorts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedalt.alternation.block import ALL, BlockMap
from fedalt.alternation.dump import to_dict
from fedalt.alternation.history import History
from fedalt.alternation.local import LOCAL, local_arrays
from fedalt.alternation.phase import Phase, with_inner
from fedalt.alternation.roster import Roster
from fedalt.alternation.schedule import Moment, Schedule, State, as_schedule
from fedalt.alternation.site import Site
from fedalt.errors import ScheduleError, nearest
from fedalt.hashing import json_hash
from fedalt.seeds import Seeds


@dataclass(frozen=True)
class PlannedPhase:
    """A phase and the sites that do it, in index order; a Poisson draw may leave it empty."""

    phase: Phase
    cohort: tuple[Site, ...]


@dataclass(frozen=True)
class RoundSchedule:
    """What one round does."""

    round: int
    parts: tuple[PlannedPhase, ...]


class Planner:
    """Walks a schedule round by round, and draws the cohorts.

    The plan follows from (schedule, seed, sites, history) alone, in any process.
    With a ``secret``, a seed that nobody else knows, Poisson draws of clients that the server
    protects come from that instead: such a draw hides who takes part only while it cannot be
    drawn again. Raises :class:`ScheduleError` if a phase names a block that the model has not,
    or asks for sites that are not there.
    """

    def __init__(
        self,
        schedule: Schedule | Phase,
        seed: int | Seeds,
        sites: Sequence[Site],
        blocks: BlockMap | None = None,
        max_rounds: int | None = None,
        secret: int | None = None,
    ) -> None:
        self._secret = secret
        self._schedule = as_schedule(schedule)
        self._seeds = seed if isinstance(seed, Seeds) else Seeds(seed)
        self._sites = Roster.of(sites)
        self._max_rounds = max_rounds
        self._blocks = blocks
        self._fingerprint = fingerprint(self._schedule)
        self._round = 0
        self._state: State = self._schedule.init()
        self._check_sites()
        self.local = frozenset[str]()
        """The names of the arrays that stay at the sites."""
        if blocks is not None:
            self.validate(blocks)
            self.local = local_arrays(self._schedule.phases(), blocks)

    @property
    def sites(self) -> Roster:
        """The sites that cohorts are drawn from, in index order."""
        return self._sites

    def plan(self, round: int, history: History) -> RoundSchedule | None:
        """Plan the next round; ``None`` once the schedule has ended.

        ``history`` holds the rounds before this one. Rounds are planned in order, each once.
        """
        if round != self._round + 1:
            raise ScheduleError(
                f"round {round} cannot be planned: the next one is round {self._round + 1}"
            )
        if self._max_rounds is not None and round > self._max_rounds:
            return None
        moment = Moment(round, history, self._seeds.at("plan"))
        phases, state = self._schedule.next(self._state, moment)
        if phases is None:
            # The state stays: asked again, also after a resume, it ends again.
            return None
        if self._blocks is not None:
            _check_apart(phases, self._blocks, round)
        parts = tuple(PlannedPhase(phase, self._cohort(phase, round)) for phase in phases)
        if self._blocks is not None:
            _check_kept_apart(parts, self._blocks, self.local, round)
        self._round, self._state = round, state
        return RoundSchedule(round, parts)

    def _cohort(self, phase: Phase, round: int) -> tuple[Site, ...]:
        spec, seeds = phase.privacy, self._seeds
        # Where sites add the noise, whoever takes part is charged in full: nothing is to hide.
        hiding = ("client", "central", "os")
        hidden = spec is not None and (spec.unit, spec.trust, spec.rng) == hiding
        if self._secret is not None and hidden and phase.clients.mode == "poisson":
            seeds = Seeds(self._secret)
        rng = seeds.at("cohort", round, phase.name).numpy()
        try:
            return tuple(phase.clients.draw(self._sites, rng))
        except ScheduleError as error:
            raise ScheduleError(f"round {round}, phase '{phase.name}': {error}") from error

    def validate(self, blocks: BlockMap) -> None:
        """Raise :class:`ScheduleError` for a block named in a phase that the model has not."""
        for phase in with_inner(self._schedule.phases()):
            for entry in ("train", "send", "aggregate"):
                for name in getattr(phase, entry):
                    if name not in blocks.members:
                        raise ScheduleError(
                            f"phase '{phase.name}', {entry}: the model has no block "
                            f"'{name}'{nearest(name, blocks.members)}"
                        )

    def _check_sites(self) -> None:
        for phase in self._schedule.phases():
            found = len(self._sites.places(phase.clients))
            needed = phase.clients.count if phase.clients.mode == "fixed" else 1
            if found < needed:
                raise ScheduleError(
                    f"phase '{phase.name}', clients: {needed} needed, but {found} of "
                    f"{len(self._sites)} sites fit {phase.clients.to_dict()}"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands, as plain JSON data."""
        # Not the secret: a round that is done again must draw anew, or its draw would hide nobody.
        return {"fingerprint": self._fingerprint, "round": self._round, "state": self._state}

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Go on from where another planner of the same schedule stood.

        Raises :class:`ScheduleError` if the state belongs to another schedule.
        """
        if data.get("fingerprint") != self._fingerprint:
            raise ScheduleError(
                "the saved state belongs to another schedule (fingerprint "
                f"{str(data.get('fingerprint'))[:12]}, this one is {self._fingerprint[:12]}); "
                "resume with the schedule the run was started with, or start a new run"
            )
        self._round, self._state = int(data["round"]), data["state"]


def fingerprint(schedule: Schedule | Phase) -> str:
    """Return the SHA-256 of a schedule and its phases as plain data."""
    return json_hash(to_dict(schedule))


def _check_apart(phases: Sequence[Phase], blocks: BlockMap, round: int) -> None:
    """Refuse a round in which two phases both bring an array: one result would be lost."""
    owner: dict[tuple[str, str], str] = {}
    for phase in phases:
        kept = {block for block, rule in phase.aggregate.items() if rule in ("keep", LOCAL)}
        brought = [block for block in phase.train or (ALL,) if block not in kept]
        for array in blocks.select(brought, f"phase '{phase.name}'") if brought else ():
            first = owner.setdefault((phase.branch, array), phase.name)
            if first != phase.name:
                raise ScheduleError(
                    f"round {round}: phases '{first}' and '{phase.name}' both train the array "
                    f"'{array}', so the work of one would be lost; let them train blocks apart, "
                    "fork them, or do one after the other"
                )


def _check_kept_apart(
    parts: Sequence[PlannedPhase], blocks: BlockMap, local: frozenset[str], round: int
) -> None:
    """Refuse a round in which a site trains an array that it keeps in two phases.

    The second would begin where the first ended, although both are told to begin alike; branches
    of a fork would share what a site keeps.
    """
    if len(parts) < 2 or not local:
        return
    owner: dict[tuple[str, int], str] = {}
    for part in parts:
        name = part.phase.name
        for array in sorted(local.intersection(blocks.select(part.phase.train))):
            for site in part.cohort:
                first = owner.setdefault((array, site.index), name)
                if first != name:
                    raise ScheduleError(
                        f"round {round}: phases '{first}' and '{name}' both train '{array}' at "
                        f"site '{site.name}', which keeps one such array; give the phases other "
                        "sites, or do one after the other"
                    )
