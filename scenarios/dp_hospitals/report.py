"""What a run at the hospitals shows: how well each is served, and what its patients paid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from fedalt.privacy.ledger import FILE
from fedalt.runs.plots import curves, figure, grouped_bars, save
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.dp_hospitals.measures import measure
from fedalt.scenarios.dp_hospitals.task import Hospitals
from fedalt.task import Task

Found = Mapping[str, Mapping[str, float]]


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run and of those it is compared with."""
    hospitals = cast(Hospitals, task)
    found = {name: cast(Mapping[str, float], measure(task, run)) for name, run in runs.items()}
    spent = {name: epsilons(hospitals, ledger_of(folder.parent, name)) for name in runs}
    series = {name: run.metric("server/auc") for name, run in runs.items() if not run.local}
    areas = {name: [each[f"auc_{h}"] for h in hospitals.names] for name, each in found.items()}
    figures = [
        grouped_bars(hospitals.names, areas, folder / "auc.png", "AUC",
                     "held-out patients: each hospital's model"),
        tradeoff(found, spent, folder / "tradeoff.png"),
    ]  # fmt: skip
    if series:
        figures.append(
            curves(series, folder / "rounds.png", "AUC, pooled", "the common model by round")
        )
    return Report(
        (_utility(hospitals, runs, found, spent), _cost(hospitals, spent)), tuple(figures)
    )


def ledger_of(run: Path, name: str) -> Path:
    """Return where the ledger of a run lies, or of one that it is compared with."""
    return (run if name == "main" else run / "variants" / name) / FILE


def epsilons(task: Hospitals, ledger: Path) -> np.ndarray:
    """Return each hospital's ε of a record (4,), from the ledger alone; infinite without one."""
    if not ledger.is_file():
        return np.full(len(task.sites), math.inf)
    # Accounting is slow to import, and a run without privacy has no use for it.
    from fedalt.privacy.account import Scope
    from fedalt.privacy.replay import replay

    *_, (_, state) = replay(ledger)
    if state.account is None or state.terms is None:
        return np.full(len(task.sites), math.inf)
    return state.account.each(Scope("record"), state.terms.delta, tight=True)


def _utility(
    task: Hospitals, runs: Mapping[str, Finished], found: Found, spent: Mapping[str, np.ndarray]
) -> Table:
    areas = [f"auc_{name}" for name in task.names]
    rows = tuple(
        (
            name,
            int(runs[name].result["round"]),
            _told(float(spent[name].max())),
            *(each[key] for key in ("accuracy", "loss", "auc", *areas)),
        )
        for name, each in found.items()
    )
    columns = ("run", "rounds", "ε of a record", "accuracy", "loss", "AUC")
    counts = [int(task.held_out(i)[1].sum()) for i in range(len(task.names))]
    told = ", ".join(
        f"{name} {len(task.held_out(i)[1])} ({ill} ill)"
        for i, (name, ill) in enumerate(zip(task.names, counts, strict=True))
    )
    notes = (
        f"judged by held-out patients, each by the model that their hospital ends with: {told}",
        "these patients are in nobody's training data: no account covers what is told of them",
        "an AUC of few patients of one kind swings widely; compare over seeds: fedalt reproduce",
    )
    title = "heart disease at four hospitals"
    return Table(title, (*columns, *(f"AUC {name}" for name in task.names)), rows, notes)


def _cost(task: Hospitals, spent: Mapping[str, np.ndarray]) -> Table:
    rows = tuple(
        (
            site.name,
            site.size,
            *(_told(float(each[site.index])) for each in spent.values()),
        )
        for site in task.sites
    )
    return Table(
        "ε of a patient's record, by hospital",
        ("hospital", "records", *spent),
        rows,
        (
            "from each run's ledger, by the smallest sound bound; a patient is at one hospital, "
            "so hospitals are not added up",
        ),
    )


def _told(epsilon: float) -> Value:
    return "∞" if math.isinf(epsilon) else epsilon


def tradeoff(found: Found, spent: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draw pooled AUC against the largest ε; runs without privacy are lines."""
    drawn = figure(7.0, 4.5)
    axes = drawn.add_subplot()
    for i, (name, each) in enumerate(found.items()):
        epsilon = float(spent[name].max())
        if math.isinf(epsilon):
            axes.axhline(each["auc"], color=f"C{i}", linestyle="--", label=f"{name} (ε = ∞)")
        else:
            axes.plot([epsilon], [each["auc"]], "o", color=f"C{i}", label=name)
    axes.set(xlabel="ε of a record", ylabel="AUC, pooled", title="one seed: utility against ε")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)
