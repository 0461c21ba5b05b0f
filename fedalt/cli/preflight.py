"""Everything that can be known to be wrong with a run before it has a folder.

A run that cannot begin leaves nothing behind. Kernels, rules, strategies and reports are
found by name, as the engine finds them, so that what both sides share imports neither.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from fedalt.alternation import BlockMap, Phase, Preview, Schedule, Selector, parse_schedule
from fedalt.alternation import preview_schedule as preview
from fedalt.alternation.local import LOCAL
from fedalt.alternation.phase import with_inner
from fedalt.alternation.site import Site
from fedalt.alternation.slices import lacking
from fedalt.build import TaskCache, build, locate
from fedalt.cli.preflight_privacy import check_privacy, is_wrapped
from fedalt.cli.values import check_values
from fedalt.errors import ConfigError, DataError, FedaltError, nearest
from fedalt.runs.streams import MOST_SITES, walk_streams
from fedalt.seeds import Seeds
from fedalt.task import Task

KERNELS = "fedalt.clients.kernels"
RULES = "fedalt.server.strategies.rules"
BLOCKWISE = "fedalt.server.strategies.blockwise"
REPORTS = "fedalt.scenarios."


def check_run(config: Mapping[str, Any], tasks: TaskCache) -> None:
    """Check a configuration and the variants it is compared with.

    Raises the :class:`FedaltError` that the run would end with, in a variant with its name.
    """
    _check(config, tasks)
    for name, variant in config.get("compared", {}).items():
        try:
            _check(variant, tasks)
        except FedaltError as error:
            raise type(error)(f"variant '{name}': {error}") from error


def _check(config: Mapping[str, Any], tasks: TaskCache) -> None:
    task = load_task(config["task"], tasks)
    check_sites(task.sites)
    seeds = Seeds(config["seed"])
    blocks = BlockMap.of(task.initial_arrays(seeds.at("initial")), task.blocks)
    schedule = _read_schedule(config)
    planned = preview(schedule, seeds.at("schedule"), task.sites, config["rounds"], blocks)
    walk_streams(planned, task, config["seed"], MOST_SITES)
    strategy = _build_strategy(config["strategy"])
    _check_phases(schedule, blocks, config["strategy"])
    _check_groups(planned)
    _check_slices(planned, task)
    _check_params(schedule, planned)
    _check_least_clients(strategy, planned)
    check_privacy(config, planned, task, strategy, blocks)
    _check_device(config["engine"]["device"])
    _check_report(config["report"])


def load_task(spec: Mapping[str, Any], tasks: TaskCache) -> Task:
    """Build a task; a message that does not say it is about the task's settings gains that."""
    if "_target_" in spec:
        check_values(locate(str(spec["_target_"])), spec, "task")
    try:
        return tasks(spec)
    except (ConfigError, DataError) as error:
        # A file's own place says more than the setting that led there.
        if "task" in str(error) or str(error).startswith("'"):
            raise
        raise type(error)(f"task: {error}") from error


def check_sites(sites: Sequence[Site]) -> None:
    """Raise :class:`DataError` for a site without rows, or indices that leave a gap."""
    if not sites:
        raise DataError("task: there is no site; raise task.clients or give more data")
    # One walk, holding no site: there may be a hundred thousand, each made for the asking.
    in_order, empty = True, []
    for place, site in enumerate(sites):
        in_order = in_order and site.index == place
        if site.size < 1:
            empty.append(f"'{site.name}'")
    if not in_order:
        raise DataError(
            f"task: sites must be numbered 0 to {len(sites) - 1} in order, but are "
            f"{[site.index for site in sites]}"
        )
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise DataError(
            f"task: {len(empty)} of {len(sites)} sites hold no rows to learn from "
            f"({', '.join(empty[:5])}{more}); ask for fewer clients or another partition"
        )


def _read_schedule(config: Mapping[str, Any]) -> Schedule:
    for name, data in config["phases"].items():
        if isinstance(data, Mapping):
            check_values(Phase, data, f"phases.{name}")
            if isinstance(data.get("clients"), Mapping):
                check_values(Selector, data["clients"], f"phases.{name}.clients")
    return parse_schedule(config["phases"], config["schedule"])


def _check_phases(schedule: Schedule, blocks: BlockMap, strategy: Mapping[str, Any]) -> None:
    kernels = importlib.import_module(KERNELS).KernelTable()
    rules = importlib.import_module(RULES)
    blockwise = importlib.import_module(BLOCKWISE)
    for phase in with_inner(schedule.phases()):
        try:
            kernels(phase.kernel)
        except ConfigError as error:
            raise ConfigError(f"phase '{phase.name}': {error}") from error
        for block, rule in phase.aggregate.items():
            try:
                if rule != LOCAL:
                    rules.rule(str(rule))
            except ConfigError as error:
                raise ConfigError(f"phase '{phase.name}', block '{block}': {error}") from error
        _check_rules_heard(phase, strategy)
    for phase in schedule.phases():
        blockwise.group_by_rule(phase, blocks)


def _check_groups(planned: Preview) -> None:
    """Refuse a rule by an attribute that a site of some cohort has not."""
    rules = importlib.import_module(RULES)
    met: dict[tuple[str, str], dict[int, Site]] = {}
    for plan in planned.rounds:
        for part in plan.parts:
            for rule in {str(r) for r in part.phase.aggregate.values() if ":" in str(r)}:
                sites = met.setdefault((part.phase.name, rule), {})
                sites.update((site.index, site) for site in part.cohort)
    for (name, rule), sites in met.items():
        try:
            rules.check_groups(rule, sites.values())
        except ConfigError as error:
            raise ConfigError(f"phase '{name}': {error}") from error


def _check_params(schedule: Schedule, planned: Preview) -> None:
    """Let kernels judge hyper-parameters, as written and as planned: a ramp sets some.

    A kernel that can judge them without data says so by having ``check``.
    """
    kernels = importlib.import_module(KERNELS).KernelTable()
    # Rounds that set the same parameters differ in values only: the first of them is judged.
    coming = {
        (phase.name, *sorted(phase.params)): phase
        for plan in reversed(planned.rounds)
        for phase in with_inner(part.phase for part in plan.parts)
    }
    for phase in [*with_inner(schedule.phases()), *coming.values()]:
        check = getattr(kernels(phase.kernel), "check", None)
        if check is not None:
            check(phase)


def _check_rules_heard(phase: Phase, strategy: Mapping[str, Any]) -> None:
    """Flower's own strategies never look at a phase's rules; a run would ignore them."""
    target = str(strategy.get("_target_", ""))
    heard = ("mean", LOCAL)
    told = all(rule in heard for rule in phase.aggregate.values())
    if not told and target.startswith("flwr."):
        raise ConfigError(
            f"phase '{phase.name}': aggregate names rules ({dict(phase.aggregate)}), but "
            f"{target} aggregates every block its own way; use "
            f"strategy._target_={BLOCKWISE}.Blockwise, or take the rules away with "
            f"~phases.{phase.name}.aggregate"
        )


def _build_strategy(spec: Mapping[str, Any]) -> Any:
    from flwr.serverapp.strategy import Strategy

    if "_target_" in spec:
        target = locate(str(spec["_target_"]))
        if not (inspect.isclass(target) and issubclass(target, Strategy)):
            raise ConfigError(f"strategy: {spec['_target_']} is no Flower strategy")
        check_values(target, spec, "strategy")
    return build(spec, "strategy")


def _check_slices(planned: Preview, task: Task) -> None:
    """See that sites have the slices of their rows that views name, for as many as is cheap."""
    asked: dict[tuple[int, tuple[str, ...]], str] = {}
    for plan in planned.rounds:
        for part in plan.parts:
            for phase in with_inner([part.phase]):
                if phase.view.slices:
                    for site in part.cohort[:MOST_SITES]:
                        asked.setdefault((site.index, phase.view.slices), phase.name)
    for (index, names), phase_name in asked.items():
        slices = getattr(task, "site_slices", None)
        fault = lacking(names, {} if slices is None else slices(index))
        if fault:
            raise ConfigError(f"phase '{phase_name}': site '{task.sites[index].name}' {fault}")


def _check_least_clients(strategy: Any, planned: Preview) -> None:
    """See that no round gives the strategy fewer clients than it waits for.

    Cohorts are drawn from the seed, so that even a Poisson draw is known before the run. Where
    the server noises a sum the strategy waits for nobody: a draw may be secret, and of no one.
    """
    keys = ("min_train_nodes", "min_available_nodes")
    least = {key: int(getattr(strategy, key, 0) or 0) for key in keys}
    for plan in planned.rounds:
        for part in plan.parts:
            count = len(part.cohort)
            if is_wrapped(part.phase):
                continue
            key = next((key for key in keys if 0 < count < least[key]), None)
            if key is not None:
                raise ConfigError(
                    f"round {plan.round}, phase '{part.phase.name}': the schedule selects {count} "
                    f"client{'' if count == 1 else 's'}, but the strategy waits for {least[key]} "
                    f"({key}); select more, or allow it with "
                    + " ".join(f"++strategy.{key}=1" for key in keys)
                )


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"engine.device='{device}': not to be had here ({reason}); use engine.device=cpu"
        ) from error


def _check_report(reference: str | None) -> None:
    if not reference:
        return
    module_name, _, name = reference.partition(":")
    if not module_name.startswith(REPORTS) or not name:
        raise ConfigError(
            f"report='{reference}': a function of an installed scenario expected, "
            f"such as {REPORTS}fedavg_mnist.report:write, or null for none"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"report='{reference}': {error}; use report=null for none") from error
    if not callable(getattr(module, name, None)):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(f"report='{reference}': no function '{name}'{nearest(name, public)}")
