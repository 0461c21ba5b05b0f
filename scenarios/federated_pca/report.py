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

from fedalt.anomaly import family_recall
from fedalt.build import build
from fedalt.runs.plots import curves, grouped_bars
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.federated_pca import baselines
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.seeds import Seeds
from fedalt.task import Task

MEASURES = ("residual_ratio", "auc", "ap", "f1", "fpr", "tpr_at_fpr5")
COLUMNS = ("method", "residual ratio", "AUC", "AP", "F1", "FPR", "TPR at 5% FPR", "kB up/site")
LABELS = {
    "main": "FedPG (Grassmann)",
    "fedpe": "FedPE (Euclidean)",
    "power": "power iteration",
    "one_shot_exact": "one shot, exact covariance",
    "one_shot_scaled": "one shot, scaled merge",
    "one_shot_projector": "one shot, projector mean",
    "no_dual": "FedPG without dual",
    "wrong_dual": "FedPG, dual of wrong sign",
}
SYNTHETIC = "synthetic"


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run and the methods it is compared with."""
    pca = cast(FederatedPCA, task)
    here = {name: run for name, run in runs.items() if name != SYNTHETIC}
    tables = [_methods(pca, here)]
    if SYNTHETIC in runs and pca.records.name != "synthetic":
        other = cast(FederatedPCA, build(runs[SYNTHETIC].config["task"], "task"))
        tables.append(_methods(other, {"main": runs[SYNTHETIC]}))
    families = _families(pca, here)
    tables += [families, _sites(pca, here["main"])]
    series = {
        LABELS.get(name, name): run.metric("server/residual_ratio") for name, run in here.items()
    }
    names = [str(row[0]) for row in families.rows]
    figures = (
        curves(
            {label: points for label, points in series.items() if len(points[0]) > 4},
            folder / "residual.png",
            "training residual / central PCA's",
            f"{pca.records.name}: residual ratio by round (k = {pca.rank})",
            log=True,
            reference=("central PCA", 1.0),
        ),
        grouped_bars(
            names,
            {
                column: [float(row[i] or 0.0) for row in families.rows]
                for i, column in enumerate(families.columns[2:], start=2)
            },
            folder / "families.png",
            "share flagged",
            f"{pca.records.name}: records flagged, by family",
        ),
    )
    return Report(tuple(tables), figures)


def _methods(task: FederatedPCA, runs: Mapping[str, Finished]) -> Table:
    seeds = Seeds(int(runs["main"].config["seed"])).at("report")
    found: dict[str, tuple[Mapping[str, float], float | None]] = {
        LABELS.get(name, name): (task.evaluate(run.arrays), _upload(run, task))
        for name, run in runs.items()
    }
    found["local only (mean of sites)"] = (baselines.local_only(task), 0.0)
    found["random subspace (mean of 20)"] = (baselines.random_subspace(task, seeds), 0.0)
    found["no PCA, ‖x‖²"] = (baselines.norm_only(task), 0.0)
    central = baselines.central(task)
    found["central PCA"] = (central, None)
    rows: list[tuple[Value, ...]] = []
    for label, (scores, upload) in found.items():
        rows.append((label, *(scores[measure] for measure in MEASURES), upload))
    title = (
        f"{task.records.name}: {len(task.sites)} sites, {len(task.records.train_x)} normal "
        f"records, d = {task.dimension}, k = {task.rank}"
    )
    notes = (f"data: {task.records.source}", *_findings(task, found, runs))
    return Table(title, COLUMNS, tuple(rows), notes)


def _findings(
    task: FederatedPCA,
    found: Mapping[str, tuple[Mapping[str, float], float | None]],
    runs: Mapping[str, Finished],
) -> list[str]:
    """Say in words what the numbers do and do not show."""
    right = found["central PCA"][0]["auc"]
    chance = found["random subspace (mean of 20)"][0]["auc"]
    plain = found["no PCA, ‖x‖²"][0]["auc"]
    if abs(right - chance) < 0.05:
        verdict = (
            "detection cannot tell a right subspace from a random one here "
            f"(AUC {right:.3f} against {chance:.3f}; ‖x‖² alone {plain:.3f}): "
            "the residual ratio is the measure"
        )
    else:
        verdict = (
            f"the subspace matters here: AUC {right:.3f} with the right one, {chance:.3f} with a "
            f"random one, {plain:.3f} with ‖x‖² alone"
        )
    rounds = len(runs["main"].metric("consensus/primal")[0])
    numbers = task.dimension * (task.dimension + 1) // 2
    iterated = task.dimension * task.rank * rounds
    cheaper = "cheaper" if numbers < iterated else "dearer"
    cost = (
        f"sending the covariance once ({numbers} numbers a site) is {cheaper} than "
        f"{rounds} rounds of d·k ({iterated}); it is whenever d < 2kR"
    )
    return [verdict, cost] if rounds else [verdict]


def _upload(run: Finished, task: FederatedPCA) -> float:
    return float(run.result["bytes_up"]) / len(task.sites) / 1000.0


def _families(task: FederatedPCA, runs: Mapping[str, Finished]) -> Table:
    """Share of each family's records that are flagged, at each model's own threshold."""
    names = [str(name) for name in np.unique(task.records.test_family)]
    columns: dict[str, Mapping[str, float]] = {}
    for name in [n for n in ("main", "fedpe", "power") if n in runs]:
        arrays = runs[name].arrays
        scores = task.scores(arrays, task.records.test_x)
        threshold = float(arrays["threshold"][0])
        columns[LABELS[name]] = family_recall(scores, list(task.records.test_family), threshold)
    rows = tuple(
        (
            name,
            int((task.records.test_family == name).sum()),
            *(column.get(name) for column in columns.values()),
        )
        for name in names
    )
    return Table(
        f"{task.records.name}: share of records flagged, by family",
        ("family", "records", *columns),
        rows,
        ("'normal' is the false positive rate",),
    )


def _sites(task: FederatedPCA, run: Finished) -> Table:
    """The common model at each site: residual, and false alarms on its own held-out records."""
    threshold = float(run.arrays["threshold"][0])
    residuals, alarms = [], []
    for site in task.sites:
        rows = task.site_data(site.index)
        residuals.append(float(task.scores(run.arrays, rows.train).mean()))
        if len(rows.holdout):
            alarms.append(float((task.scores(run.arrays, rows.holdout) > threshold).mean()))
    rows_out: list[tuple[Value, ...]] = []
    for label, values in (("mean squared residual", residuals), ("false positive rate", alarms)):
        if values:
            cuts = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
            rows_out.append((label, *(float(cut) for cut in cuts)))
    return Table(
        f"{task.records.name}: spread over the {len(task.sites)} sites, FedPG",
        ("measure", "least", "1st quartile", "median", "3rd quartile", "greatest"),
        tuple(rows_out),
        ("one threshold for all: sites unlike the others raise more false alarms",),
    )
