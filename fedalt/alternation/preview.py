"""A schedule before any run: which phases come when, and which sites they touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedalt.alternation.adapt import Adaptive
from fedalt.alternation.block import ALL, BlockMap
from fedalt.alternation.history import History
from fedalt.alternation.phase import Phase
from fedalt.alternation.planner import Planner, RoundSchedule
from fedalt.alternation.schedule import Schedule, as_schedule, walk
from fedalt.alternation.sequence import Until
from fedalt.alternation.site import Site
from fedalt.alternation.together import When
from fedalt.seeds import Seeds


@dataclass(frozen=True)
class Preview:
    """The rounds of a schedule as planned without a run.

    ``ended`` says whether the schedule ends after the last round shown; ``notes`` what was
    assumed about metrics, which only a run measures.
    """

    rounds: tuple[RoundSchedule, ...]
    sites: Sequence[Site]
    blocks: BlockMap | None
    ended: bool
    notes: tuple[str, ...]

    def phase_names(self) -> tuple[str, ...]:
        """Return the names of the phases that come, in order of their first round."""
        return tuple(self.phase_rounds())

    def phase_rounds(self) -> dict[str, tuple[int, ...]]:
        """Return the rounds in which each phase comes."""
        found: dict[str, list[int]] = {}
        for plan in self.rounds:
            for part in plan.parts:
                found.setdefault(part.phase.name, []).append(plan.round)
        return {name: tuple(rounds) for name, rounds in found.items()}

    def site_rounds(self, phase: str) -> int:
        """Return how often, over all rounds, a site does the phase."""
        parts = [part for plan in self.rounds for part in plan.parts]
        return sum(len(part.cohort) for part in parts if part.phase.name == phase)

    def block_names(self) -> tuple[str, ...]:
        """Return the blocks that some phase trains, ``all`` among them if some trains all."""
        names: dict[str, None] = {}
        for plan in self.rounds:
            for part in plan.parts:
                names.update(dict.fromkeys(trained(part.phase)))
        return tuple(names)

    def touches(self, site: int | str | Site, block: str = ALL) -> int:
        """Return the number of rounds in which a site trains a block, or part of it.

        ``site`` is an index, a name or the site; the block ``all`` counts every round in which
        the site trains at all. Without a block map, blocks of different names count as disjoint.
        """
        return sum(
            any(
                self._trains(part.phase, block) and any(_is(site, member) for member in part.cohort)
                for part in plan.parts
            )
            for plan in self.rounds
        )

    def _trains(self, phase: Phase, block: str) -> bool:
        names = trained(phase)
        if block == ALL or ALL in names or block in names:
            return True
        if self.blocks is None or block not in self.blocks.members:
            return False
        arrays = set(self.blocks.members[block])
        return any(arrays & set(self.blocks.members.get(name, ())) for name in names)


def preview_schedule(
    schedule: Schedule | Phase,
    seed: int | Seeds,
    sites: Sequence[Site],
    rounds: int,
    blocks: BlockMap | None = None,
    history: History | None = None,
) -> Preview:
    """Plan up to ``rounds`` rounds without running them.

    ``history`` is a supposed course of the metrics, for example an earlier run's; where it has
    no round, nothing is taken as measured. Then conditions on metrics count as not (yet) true.
    """
    node = as_schedule(schedule)
    planner = Planner(node, seed, sites, blocks)
    supposed, known, plans = (history or History()).rounds, History(), []
    for number in range(1, rounds + 1):
        plan = planner.plan(number, known)
        if plan is None:
            break
        plans.append(plan)
        known = known.append(supposed[number - 1] if number <= len(supposed) else {})
    ended = planner.plan(len(plans) + 1, known) is None
    return Preview(tuple(plans), planner.sites, blocks, ended, tuple(_notes(node, bool(supposed))))


def trained(phase: Phase) -> tuple[str, ...]:
    """Return the blocks that a phase trains; a client that alternates trains its inner ones."""
    if phase.inner:
        return tuple(dict.fromkeys(name for inner in phase.inner for name in trained(inner)))
    return phase.train or (ALL,)


def _is(site: int | str | Site, member: Site) -> bool:
    if isinstance(site, Site):
        return site.index == member.index
    return site in (member.index, member.name)


def _notes(schedule: Schedule, supposed: bool) -> list[str]:
    if supposed:
        return ["metrics are supposed, not measured: a run may go another way"]
    notes: dict[str, None] = {}
    for node in walk(schedule):
        if isinstance(node, Until) and node.stop.needs_metrics:
            end = f"its {node.max_rounds} rounds" if node.max_rounds else "the end of this preview"
            notes[f"until {node.stop}: needs a run's metrics, shown running to {end}"] = None
        if isinstance(node, When) and node.condition.needs_metrics:
            notes[f"when {node.condition}: needs a run's metrics, shown as not true"] = None
        if isinstance(node, Adaptive):
            notes[f"adaptive by {node.policy}: shown with equal weights"] = None
    return list(notes)
