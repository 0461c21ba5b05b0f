"""``fedalt privacy plan``: ε from a schedule alone, and what to change for another one."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedalt.alternation import Phase, Preview
from fedalt.build import TaskCache
from fedalt.cli.files import cannot_write, file_path, picture_path
from fedalt.cli.parser import chosen_overrides
from fedalt.cli.preflight import check_run
from fedalt.cli.preflight_privacy import foretell, how_to_protect
from fedalt.cli.privacy_shown import draw_account, unit_facts
from fedalt.cli.show import console, print_json, print_notes, print_table
from fedalt.errors import ConfigError
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.alternatives import Alternative, alternatives
from fedalt.privacy.forecast import Forecast, noises, plain
from fedalt.privacy.summary import SiteSpending, Spending, by_site, costliest, spendings
from fedalt.privacy.tables import (
    alternatives_table,
    epsilon,
    scopes_table,
    site_tables,
    spending_facts,
    units_table,
)
from fedalt.privacy.terms import notes_of
from fedalt.privacy.tuning import tuning_cost
from fedalt.privacy.wanted import noise_factor
from fedalt.privacy.words import meaning
from fedalt.runs.files import write_atomic
from fedalt.runs.plan import preview_of
from fedalt.runs.report import Table
from fedalt.scenario import find_scenario

MOST_ROUNDS = 20_000
"""So far a schedule is walked to see how long a budget lasts."""


@dataclass(frozen=True)
class Told:
    """What a plan costs, computed once for the terminal, JSON and pictures."""

    config: Mapping[str, Any]
    plan: Forecast
    preview: Preview
    phases: Sequence[Phase]
    final: Mapping[str, Bound]
    scopes: Sequence[Spending]
    ways: Sequence[Alternative]
    sites: Sequence[SiteSpending]
    extra: dict[str, Any] = field(default_factory=dict)
    answers: list[Table] = field(default_factory=list)

    @property
    def delta(self) -> float:
        """The δ of every ε here."""
        return self.plan.terms.delta

    @property
    def notes(self) -> list[str]:
        """What a reader should know, the end by a budget first."""
        notes = [f"budget: {self.plan.reason}"] if self.plan.reason else []
        return [*notes, *notes_of(self.plan.terms, self.phases), *self.preview.notes]


def run(arguments: argparse.Namespace) -> int:
    """Foretell what a scenario costs."""
    picture = picture_path(arguments.plot)
    table = file_path(arguments.csv, "--csv")
    _check_numbers(arguments)
    scenario = find_scenario(arguments.scenario)
    config = scenario.config(chosen_overrides(scenario, arguments))
    tasks, show = TaskCache(), not arguments.json
    check_run(config, tasks)
    told = _foretold(config, tasks, show)
    if arguments.target is not None:
        with _busy("the noise for a target", show):
            _target(told, arguments.target)
    if arguments.budget is not None:
        with _busy("the rounds within a budget", show):
            _budget(told, tasks, arguments.budget)
    if arguments.runs is not None:
        _tuning(told, arguments.runs)
    if picture is not None:
        with _busy("ε against δ", show):
            _draw(told, picture)
    if table is not None:
        _write_csv(told.plan, table)
    if arguments.json:
        print_json(_facts(told))
        return 0
    _print(told)
    for kind, path in (("picture", picture), ("rounds", table)):
        if path is not None:
            print(f"{kind:8} {path}")
    return 0


def _busy(what: str, show: bool) -> AbstractContextManager[Any]:
    """Show in a terminal that a search goes on; how long it takes is not known before."""
    shown = show and sys.stderr.isatty()
    return console(stderr=True).status(f"looking for {what}") if shown else nullcontext()


def _check_numbers(arguments: argparse.Namespace) -> None:
    for key in ("target", "budget"):
        value = getattr(arguments, key)
        if value is not None and not (math.isfinite(value) and value > 0.0):
            raise ConfigError(f"--{key} {value:g}: an ε above 0 expected")
    if arguments.runs is not None and arguments.runs < 2:
        raise ConfigError(f"--runs {arguments.runs}: at least 2 make a choice")


def _foretold(config: Mapping[str, Any], tasks: TaskCache, show: bool) -> Told:
    preview, _ = preview_of(config, tasks)
    found = foretell(config, preview, show)
    if found is None:
        raise ConfigError(
            f"{config['name']} protects nobody: no phase has a privacy spec, so its ε is "
            f"infinite; {how_to_protect(config)}"
        )
    plan, phases = found
    delta = plan.terms.delta
    return Told(
        config=config,
        plan=plan,
        preview=preview,
        phases=phases,
        final=plan.total(),
        scopes=spendings(plan.account, delta),
        ways=alternatives(plan, preview),
        sites=[by_site(plan.account, unit, delta) for unit in plan.units],
    )


def _unbounded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose budgets ask nothing: its whole schedule is walked."""
    return {**config, "privacy": {**config["privacy"], "budget": {}}}


def _target(told: Told, target: float) -> None:
    """Add the noise at which every unit's ε is within a target."""
    found = foretell(_unbounded(told.config), told.preview, show=False, each_round=False)
    assert found is not None
    wanted = noise_factor(found[0].account, target, told.delta)
    rows = tuple((name, z, z * wanted.factor) for name, z in noises(told.phases).items())
    reached = ", ".join(f"{u} {b.epsilon:.4g} ({b.method})" for u, b in wanted.bounds.items())
    notes = [f"with all noise times {wanted.factor:.5g} over {told.config['rounds']} rounds: "
             f"ε of a {reached}"]  # fmt: skip
    lost = [unit for unit in told.final if unit not in wanted.bounds]
    if lost:
        notes.append(f"no noise of these phases helps a {', '.join(lost)}: not all protect it")
    told.answers.append(
        Table(f"noise for ε ≤ {target:g}", ("phase", "z", "z wanted"), rows, tuple(notes))
    )
    told.extra["target"] = {
        "target": target,
        "factor": wanted.factor,
        "noise": {name: z * wanted.factor for name, z in noises(told.phases).items()},
        "epsilon": {unit: bound.epsilon for unit, bound in wanted.bounds.items()},
    }


def _budget(told: Told, tasks: TaskCache, budget: float) -> None:
    """Add how many rounds an ε lasts; a schedule that goes on is walked further than planned."""
    config, preview = _unbounded(told.config), told.preview
    while True:
        found = foretell(config, preview, show=False, each_round=False)
        assert found is not None
        plan = found[0]
        within = {unit: plan.rounds_within(unit, budget) for unit in told.final}
        lasts = any(rounds == len(plan.steps) for rounds in within.values())
        if not lasts or preview.ended or config["rounds"] >= MOST_ROUNDS:
            break
        config = {**config, "rounds": min(2 * config["rounds"], MOST_ROUNDS)}
        preview, _ = preview_of(config, tasks)
    known = len(plan.steps)
    end = "all of the schedule" if preview.ended else f"more than {known}"
    rows = tuple((unit, n, end if n == known else "") for unit, n in within.items())
    told.answers.append(Table(f"rounds within ε = {budget:g}", ("unit", "rounds", ""), rows))
    told.extra["budget"] = {
        "budget": budget,
        "rounds": within,
        "lasts": {unit: rounds == known for unit, rounds in within.items()},
    }


def _tuning(told: Told, runs: int) -> None:
    """Add what it costs to choose the best of several runs."""
    rows, facts = [], {}
    for unit, bound in told.final.items():
        if math.isinf(bound.epsilon):
            continue
        history = costliest(told.plan.account, Scope(unit), told.delta)
        cost = tuning_cost(history, runs, told.delta, told.plan.terms.relation)
        one, naive, stopping = cost.one, cost.naive, cost.random_stopping
        rows.append((unit, epsilon(one.epsilon), epsilon(naive.epsilon), epsilon(stopping.epsilon)))
        facts[unit] = {
            "one": one.epsilon,
            "naive": naive.epsilon,
            "random_stopping": stopping.epsilon,
        }
    columns = ("unit", "one run", f"all {runs} runs", "random number of runs")
    note = (
        f"'all {runs} runs' adds them up; with a random number of runs (on average {runs}) of "
        "which only the best is told, less (Papernot and Steinke 2022)"
    )
    told.answers.append(Table("what tuning costs", columns, tuple(rows), (note,)))
    told.extra["tuning"] = {"runs": runs, **facts}


def _print(told: Told) -> None:
    plan, terms = told.plan, told.plan.terms
    count = len(plan.steps)
    print(
        f"{told.config['name']}: {count} round{'' if count == 1 else 's'}, {terms.sites} sites, "
        f"{terms.records} records; δ={terms.delta:.3g}, {terms.relation}"
        + (f", disjoint {terms.disjoint}" if terms.disjoint else "")
    )
    spread = [t for found in told.sites for t in site_tables(found, told.preview.sites)]
    tables = [
        units_table("ε at the end", plan.bounds(), told.delta),
        scopes_table(told.scopes),
        alternatives_table(told.ways),
    ]
    for table in (*tables, *spread, *told.answers):
        if table is not None:
            print()
            print_table(table)
    print()
    print_notes([meaning(unit, bound, told.delta) for unit, bound in told.final.items()])
    print_notes([f"note: {note}" for note in told.notes])


def _facts(told: Told) -> dict[str, Any]:
    plan = told.plan
    return {
        "scenario": told.config["name"],
        "terms": terms_facts(plan),
        "rounds": len(plan.steps),
        "ends_by_budget": plan.reason or None,
        "units": unit_facts(plan.bounds()),
        "scopes": spending_facts(told.scopes),
        "over_rounds": plain(plan),
        "alternatives": [
            {"name": w.name, "epsilon": w.bound.epsilon, "bound": w.bound.method,
             "touches": w.touches} for w in told.ways
        ],
        "sites": {s.unit: {"quantiles": s.quantiles(), "tight": s.tight} for s in told.sites},
        **told.extra,
        "meaning": [meaning(unit, bound, told.delta) for unit, bound in told.final.items()],
        "notes": told.notes,
    }  # fmt: skip


def terms_facts(plan: Forecast) -> dict[str, Any]:
    """Return what holds for a plan's every ε."""
    keys = ("sites", "records", "delta", "relation", "disjoint", "policy", "budget")
    return {key: getattr(plan.terms, key) for key in keys}


def _draw(told: Told, path: Path) -> None:
    rounds: dict[str, tuple[list[float], list[float]]] = {}
    for row in plain(told.plan):
        if math.isfinite(row["epsilon"]):
            places, values = rounds.setdefault(row["unit"], ([], []))
            places.append(row["round"])
            values.append(row["epsilon"])
    title = f"{told.config['name']}: what the plan costs"
    draw_account(title, told.plan.account, told.final, told.delta, rounds,
                 told.plan.terms.budget, path, "--plot")  # fmt: skip


def _write_csv(plan: Forecast, path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("round", "phases", "unit", "epsilon", "bound"))
    writer.writeheader()
    writer.writerows(plain(plan))
    try:
        write_atomic(path, text.getvalue().encode())
    except OSError as error:
        raise cannot_write("--csv", path, error) from error
