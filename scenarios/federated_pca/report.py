"""What a federated PCA run shows: methods side by side, attack families, sites.

The measure is the residual ratio to central PCA. Detection is reported beside it, and on
NSL-KDD it hardly depends on the subspace at all; so the same methods are shown on a set
where it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from fedalt.anomaly import anomaly_scores, family_recall
from fedalt.build import build
from fedalt.data.anomaly import NORMAL
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.federated_pca import baselines, pictures, words
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.seeds import Seeds
from fedalt.task import Task

MEASURES = ("residual_ratio", "auc", "ap", "f1", "fpr", "tpr_at_fpr5")
COLUMNS = (
    "method", "rounds", "residual ratio", "AUC", "AP", "F1", "FPR", "TPR at 5% FPR", "kB up/site",
)  # fmt: skip
SYNTHETIC = "synthetic"
Runs = Mapping[str, Finished]


def write(task: Task, runs: Runs, folder: Path) -> Report:
    """Write the tables and pictures of a run and the methods it is compared with."""
    pca = cast(FederatedPCA, task)
    groups = _by_task(pca, runs)
    here = groups.pop(0)[1]
    tables = [_methods(pca, here)]
    tables += [_methods(other, group) for other, group in groups]
    families = _families(pca, here)
    sites = pictures.Sites.of(pca, here["main"].arrays)
    tables += [table for table in (families, _sites(pca, sites, here)) if table.rows]
    figures = [
        pictures.draw_residuals(pca, _curves(here), folder / "residual.png"),
        pictures.draw_sites(pca, sites, folder / "sites.png"),
        pictures.draw_spectrum(pca, folder / "spectrum.png"),
    ]
    if families.rows:
        figures.append(pictures.draw_families(pca, families, folder / "families.png"))
    return Report(tuple(tables), tuple(figures))


def _by_task(task: FederatedPCA, runs: Runs) -> list[tuple[FederatedPCA, dict[str, Finished]]]:
    """Group runs by the records they learn from, the main run's first; in order of display."""
    ordered = {name: runs[name] for name in words.ordered(runs)}
    if task.records.name == SYNTHETIC:
        ordered.pop(SYNTHETIC, None)
    spec = runs["main"].config["task"]
    groups = [(task, {n: run for n, run in ordered.items() if run.config["task"] == spec})]
    for name, run in ordered.items():
        if run.config["task"] != spec:
            groups.append((cast(FederatedPCA, build(run.config["task"], "task")), {name: run}))
    return groups


def _methods(task: FederatedPCA, runs: Runs) -> Table:
    """One row a method, best of references last."""
    first = next(iter(runs.values()))
    seeds = Seeds(int(first.config["seed"])).at("report")
    rows: list[tuple[Value, ...]] = []
    for name, run in runs.items():
        scores = task.evaluate(run.arrays)
        upload = float(run.result["bytes_up"]) / len(task.sites) / 1000.0
        rows.append(_row(words.label(name, run), scores, int(run.result["round"]), upload))
    chance, plain = baselines.random_subspace(task, seeds), baselines.norm_only(task)
    best = baselines.central(task)
    rows.append(_row("local only (mean of sites)", baselines.local_only(task), 0, 0.0))
    rows.append(_row(f"random subspace (mean of {baselines.RANDOM_DRAWS})", chance, 0, 0.0))
    rows.append(_row("no PCA, ‖x‖²", plain, 0, 0.0))
    rows.append(_row("central PCA", best, None, None))
    notes = (
        f"data: {task.records.source}",
        words.verdict(best["auc"], chance["auc"], plain["auc"]),
        words.determined(task),
        *words.costs(task, runs),
        *words.thresholds(task, runs),
    )
    return Table(words.title(task), COLUMNS, tuple(rows), notes)


def _row(
    label: str, scores: Mapping[str, float], rounds: int | None, upload: float | None
) -> tuple[Value, ...]:
    return (label, rounds, *(scores.get(measure) for measure in MEASURES), upload)


def _curves(runs: Runs) -> dict[str, tuple[list[int], list[float]]]:
    """Residual ratio by round, of the methods that take rounds."""
    series = {
        words.label(name, run): run.metric("server/residual_ratio") for name, run in runs.items()
    }
    return {label: points for label, points in series.items() if len(points[0]) > 4}


def _families(task: FederatedPCA, runs: Runs) -> Table:
    """Share of each family's records that are flagged, at each model's own threshold."""
    families = [str(name) for name in task.records.test_family]
    columns: dict[str, Mapping[str, float]] = {}
    for name in [n for n in ("main", "fedpe", "power") if n in runs]:
        arrays = runs[name].arrays
        limit = float(arrays["threshold"][0])
        if limit > 0.0:
            scores = task.scores(arrays, task.records.test_x)
            columns[words.label(name, runs[name])] = family_recall(scores, families, limit)
    holdout = baselines.pooled_holdout(task)
    references = {
        "no PCA, ‖x‖²": baselines.no_subspace(task),
        "central PCA": task.central_subspace,
    }
    for label, subspace in references.items():
        if len(holdout):
            scores = anomaly_scores(task.records.test_x, *task.scaler, subspace)
            limit = baselines.threshold(task, subspace, holdout)
            columns[label] = family_recall(scores, families, limit)
    names = sorted(set(families), key=lambda name: (name != NORMAL, name))
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (name, families.count(name), *(column[name] for column in columns.values()))
        for name in names
        if columns
    )
    return Table(
        f"{task.records.name}: share of test records flagged, by family",
        ("family", "records", *columns),
        rows,
        (f"'{NORMAL}' is the false positive rate; each method at its own threshold",),
    )


def _sites(task: FederatedPCA, sites: pictures.Sites, runs: Runs) -> Table:
    """The common model at each site: residual, and false alarms on its own held-out records."""
    measured = (
        ("residual, common model", sites.common),
        ("residual, the site's own PCA", sites.own),
        ("false alarms on held-out records", sites.alarms),
    )
    rows: list[tuple[Value, ...]] = []
    for label, values in measured:
        known = values[~np.isnan(values)]
        if len(known):
            cuts = np.quantile(known, [0.0, 0.25, 0.5, 0.75, 1.0])
            rows.append((label, *(float(cut) for cut in cuts)))
    title = f"{task.records.name}: spread over the {len(task.sites)} sites"
    return Table(
        f"{title}, {words.label('main', runs['main'])}",
        ("measure", "least", "1st quartile", "median", "3rd quartile", "greatest"),
        tuple(rows),
        (
            "one threshold for all: sites unlike the others raise more false alarms",
            f"site by site, in order of '{task.feature}': report/sites.png",
        ),
    )
