"""What can be known to be wrong with a private run before it has a folder.

Accounting is imported by configurations that protect someone, and by no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedalt.alternation import ALL, BlockMap, Phase, Preview, parse_schedule
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.build import TaskCache
from fedalt.errors import BudgetError, ConfigError, ScheduleError, nearest
from fedalt.privacy.stages import any_private, leaves
from fedalt.runs.plan import preview_of
from fedalt.runs.report import Table
from fedalt.task import Task

if TYPE_CHECKING:
    from fedalt.privacy.entries import Terms
    from fedalt.privacy.forecast import Forecast

KERNELS = "fedalt.clients.kernels"
PRIVATE = "fedalt.server.strategies.private"
LEAST_MASKED = 3
"""With two clients under masks, each knows the other's update from the sum."""


def phases_of(config: Mapping[str, Any]) -> list[Phase]:
    """Return a configuration's phases, as its schedule has them."""
    return list(parse_schedule(config["phases"], config["schedule"]).phases())


def check_privacy(
    config: Mapping[str, Any], planned: Preview, task: Task, strategy: Any, blocks: BlockMap
) -> None:
    """Raise the error that a private run would end with, or that its ε would be wrong by."""
    phases = phases_of(config)
    if not any_private(phases):
        _check_alone(config)
        return
    from fedalt.privacy.terms import (
        check_commits,
        check_judge,
        check_protected,
        check_relation,
        terms_of,
    )

    terms = terms_of(config, phases, planned.sites)
    assert terms is not None
    check_protected(config, phases, blocks.members)
    check_relation(terms, phases)
    check_commits(config, phases)
    check_judge(config, task)
    for phase in phases:
        for leaf in leaves(phase):
            if leaf.privacy is not None:
                _check_clips(leaf, leaf.privacy, blocks)
                _check_kernel(leaf, leaf.privacy, task)
        if phase.privacy is not None and phase.privacy.unit == "client":
            _check_strategy(phase, strategy, blocks)
    _check_cohorts(planned)
    _check_charges(planned)


def _check_charges(planned: Preview) -> None:
    """See that each phase has a cost, by the first of its rounds."""
    from fedalt.alternation.roster import Roster
    from fedalt.privacy.charges import charges_of

    met: set[str] = set()
    for plan in planned.rounds:
        for part in plan.parts:
            if part.phase.name not in met:
                met.add(part.phase.name)
                charges_of(part.phase, part.cohort, Roster.of(planned.sites))


def _check_alone(config: Mapping[str, Any]) -> None:
    """Refuse a budget for nobody: a run would spend without it ever being asked."""
    if config["privacy"]["budget"]:
        raise ConfigError(
            f"privacy.budget={dict(config['privacy']['budget'])}: no phase protects anyone, so "
            f"there is no ε to bound; {how_to_protect(config)}"
        )


def how_to_protect(config: Mapping[str, Any]) -> str:
    """Say how a phase comes to protect someone."""
    name = next(iter(config["phases"]), "NAME")
    return (
        f"say whom a phase protects, and how: 'phases.{name}.privacy={{unit: client, clip: 1.0, "
        "noise: 1.0}' for clients, or unit: record for single rows"
    )


def _check_clips(phase: Phase, spec: PrivacySpec, blocks: BlockMap) -> None:
    """See that bounds a block name the blocks that are trained, and leave none without one."""
    if not spec.clips:
        return
    trained = phase.train if phase.train not in ((), (ALL,)) else tuple(blocks.members)
    for block in spec.clips:
        if block not in trained:
            raise ScheduleError(
                f"phase '{phase.name}', privacy.clips: '{block}' is no block that the phase "
                f"trains{nearest(block, trained)}"
            )
    covered = set(blocks.select(tuple(spec.clips)))
    left = [array for array in blocks.select(phase.train or (ALL,)) if array not in covered]
    if left:
        raise ScheduleError(
            f"phase '{phase.name}', privacy.clips: no clip bounds what the phase trains of "
            f"{', '.join(left[:3])}{' …' if len(left) > 3 else ''}, and noise hides only what is "
            "bounded; name every trained block, or use one clip for all"
        )


def _check_kernel(phase: Phase, spec: PrivacySpec, task: Task) -> None:
    """Let a kernel that protects rows itself judge the model, such as its batch norms."""
    if spec.trust != "local":
        return
    kernel = importlib.import_module(KERNELS).KernelTable()(phase.kernel)
    check = getattr(kernel, "check_task", None)
    if check is not None:
        check(phase, task)


def _check_strategy(phase: Phase, strategy: Any, blocks: BlockMap) -> None:
    """Let the server's mechanism judge the strategy that it bounds."""
    try:
        private = importlib.import_module(PRIVATE)
    except ModuleNotFoundError as error:
        if error.name != PRIVATE:
            raise
        return
    private.check_private(phase, strategy, blocks)


def is_wrapped(phase: Phase) -> bool:
    """Say whether the strategy of a phase sees nothing but a noised sum."""
    return phase.privacy is not None and bool(importlib.import_module(PRIVATE).is_wrapped(phase))


def _check_cohorts(planned: Preview) -> None:
    """Refuse cohorts that secure sums cannot hide, and turns that come sooner than noise allows."""
    from fedalt.privacy.forecast import Turns

    turns = Turns()
    for plan in planned.rounds:
        for part in plan.parts:
            spec, count = part.phase.privacy, len(part.cohort)
            masked = spec is not None and spec.trust == "distributed"
            if masked and 0 < count < LEAST_MASKED:
                raise ConfigError(
                    f"round {plan.round}, phase '{part.phase.name}': {count} "
                    f"client{'' if count == 1 else 's'} under secure aggregation, which hides one "
                    f"among others from {LEAST_MASKED} on; select more"
                )
        try:
            turns.enter(plan)
        except BudgetError as error:
            raise ScheduleError(str(error)) from error


def foretell(
    config: Mapping[str, Any], preview: Preview, show: bool = True, each_round: bool = True
) -> tuple[Forecast, list[Phase]] | None:
    """Return a plan's forecast and its phases; None where nobody is protected."""
    phases = phases_of(config)
    if not any_private(phases):
        return None
    from fedalt.cli.bars import walk_bar
    from fedalt.privacy.forecast import forecast
    from fedalt.privacy.terms import terms_of

    terms = terms_of(config, phases, preview.sites)
    assert terms is not None
    every = config["evaluate"]["clients_every"]
    with walk_bar("what each round costs", len(preview.rounds), show) as heard:
        return forecast(terms, preview, every, each_round, heard), phases


def check_budgets(config: Mapping[str, Any], tasks: TaskCache) -> None:
    """Raise :class:`BudgetError` for a plan that exceeds a budget whose policy is ``refuse``.

    Variants are asked like the run itself.
    """
    for name, asked in {"": config, **config.get("compared", {})}.items():
        limits = asked["privacy"]
        if limits["policy"] != "refuse" or not limits["budget"]:
            continue
        found = foretell(asked, preview_of(asked, tasks)[0], each_round=False)
        if found is not None and found[0].reason:
            where = f"variant '{name}': " if name else ""
            done = len(found[0].steps)
            when = f"after round {done}" if done else "in the first round"
            raise BudgetError(
                f"{where}the plan exceeds a budget {when} of {asked['rounds']}, and "
                f"privacy.policy=refuse: {found[0].reason.partition('; the run ends')[0]}; plan "
                "fewer rounds or more noise, see: fedalt privacy plan"
            )


def privacy_notes(config: Mapping[str, Any], tasks: TaskCache) -> list[str]:
    """Return what a reader of an ε of a run, or of its variants, should know; each once."""
    notes: dict[str, None] = {}
    for asked in (config, *config.get("compared", {}).values()):
        phases = phases_of(asked)
        if any_private(phases):
            notes.update(dict.fromkeys(_notes(asked, phases, tasks)))
    return list(notes)


def _notes(config: Mapping[str, Any], phases: Sequence[Phase], tasks: TaskCache) -> Iterable[str]:
    from fedalt.privacy.terms import notes_of, terms_of

    terms: Terms | None = terms_of(config, phases, tasks(config["task"]).sites)
    assert terms is not None
    return notes_of(terms, phases)


def privacy_of(
    config: Mapping[str, Any], preview: Preview, show: bool
) -> tuple[dict[str, Any], list[Table]]:
    """Return a plan's ε at its end, as plain data and as tables; both empty without privacy."""
    found = foretell(config, preview, show, each_round=False)
    if found is None:
        return {}, []
    from fedalt.privacy.tables import units_table

    plan, _ = found
    delta, both = plan.terms.delta, plan.bounds()
    facts = {
        unit: {"epsilon": tight.epsilon, "bound": tight.method, "delta": delta}
        for unit, (_, tight) in both.items()
    }
    table = units_table(
        f"ε after {len(plan.steps)} rounds (more: fedalt privacy plan)", both, delta
    )
    return {"privacy": facts, **({"budget": plan.reason} if plan.reason else {})}, [table]
