"""What a private federated PCA run shows: the subspace it found, and what records paid for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fedalt import manifold
from fedalt.runs.plots import figure, save
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.dp_federated_pca.task import PrivatePCA, spread
from fedalt.scenarios.federated_pca.words import title
from fedalt.seeds import Seeds
from fedalt.task import Task

COLUMNS = (
    "run", "rounds", "releases", "z of the last", "ε of a record", "residual ratio", "AUC",
    "kB up/site",
)  # fmt: skip
SPENT = "privacy/record"
RANDOM_DRAWS = 20


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the table and the pictures of a run and of those it is compared with."""
    pca = cast(PrivatePCA, task)
    rows = [_row(pca, name, run) for name, run in runs.items()]
    rows += _references(pca, runs)
    notes = (
        f"data: {pca.records.source}",
        f"residuals are of {len(pca.held_out)} records held out, which train nothing: no account "
        "covers what is told of them; 1 is the least that any subspace leaves",
        "AUC is of labelled test records",
        "the ε of a record is of add/remove, at the δ of the configuration; a record is at one "
        "site, so sites are not added up",
        "the lower rows are references without privacy",
    )
    figures = [draw_spectrum(pca, runs, folder / "spectrum.png")]
    if any(run.metric(SPENT)[0] for run in runs.values()):
        figures.append(draw_tradeoff(pca, runs, folder / "tradeoff.png"))
    return Report((Table(title(pca), COLUMNS, tuple(rows), notes),), tuple(figures))


def epsilon(run: Finished) -> float:
    """Return what a run cost a record; infinite where nothing protected it."""
    values = run.metric(SPENT)[1]
    return values[-1] if values else math.inf


def noise_norm(task: PrivatePCA, run: Finished) -> float | None:
    """Return the norm to expect of the noise in a run's covariance; None without any.

    Σ_i E_i/N of S sites is symmetric with a deviation s = zC√(S/2)/N off the diagonal, whose
    norm is about 2s√d (Wigner).
    """
    phase = _last(run)
    spec = phase.get("privacy")
    if spec is None or phase["kernel"] != "covariance":
        return None
    sites, rows = len(task.sites), sum(site.size for site in task.sites)
    one = float(spec["noise"]) * float(spec["clip"]) * math.sqrt(sites / 2) / rows
    return 2.0 * one * math.sqrt(task.dimension)


def _last(run: Finished) -> Mapping[str, Any]:
    """Return the phase of the last round, as configured."""
    names = list(run.rounds[-1]["sites"])
    phase: Mapping[str, Any] = run.config["phases"][names[-1]]
    return phase


def _row(task: PrivatePCA, name: str, run: Finished) -> tuple[Value, ...]:
    found, spent = task.evaluate(run.arrays), epsilon(run)
    spec = _last(run).get("privacy")
    rounds = int(run.result["round"])
    return (
        name,
        rounds,
        0 if spec is None else rounds,
        None if spec is None else float(spec["noise"]),
        "∞" if math.isinf(spent) else spent,
        found["residual_ratio"],
        found["auc"],
        float(run.result["bytes_up"]) / len(task.sites) / 1000.0,
    )


def _references(task: PrivatePCA, runs: Mapping[str, Finished]) -> list[tuple[Value, ...]]:
    """Judge what has no privacy and no federation: all records in one place, own PCA, chance."""
    seeds = Seeds(int(next(iter(runs.values())).config["seed"])).at("report")
    draws = [seeds.at("random", i).torch() for i in range(RANDOM_DRAWS)]
    found = {
        "PCA of all training records": [_judge(task, _pca(task, task.training))],
        "one site's own (mean)": [
            _judge(task, _pca(task, task.site_data(site.index).train)) for site in task.sites
        ],
        f"random subspace (mean of {RANDOM_DRAWS})": [
            _judge(task, manifold.random_subspace(task.dimension, task.rank, draw).numpy())
            for draw in draws
        ],
    }
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    return [
        (name, None, 0, None, None, float(ratio), float(auc), None)
        for name, (ratio, auc) in means.items()
    ]


def _pca(task: PrivatePCA, rows: np.ndarray) -> np.ndarray:
    own: np.ndarray = manifold.top_eigenspace(torch.from_numpy(spread(rows)), task.rank).numpy()
    return own


def _judge(task: PrivatePCA, subspace: np.ndarray) -> tuple[float, float]:
    """Return the residual ratio and the AUC of a subspace about the held-out records' mean."""
    mean, std = task.scaler
    model = {
        "scaler/mean": mean, "scaler/std": std, "subspace": subspace, "threshold": np.zeros(1),
    }  # fmt: skip
    found = task.evaluate(model)
    return found["residual_ratio"], found["auc"]


def draw_spectrum(task: PrivatePCA, runs: Mapping[str, Finished], path: Path) -> Path:
    """Draw the eigenvalues of the held-out records, and the norm of the noise that hid records.

    Directions whose eigenvalue lies below it are lost.
    """
    drawn = figure(7.0, 4.5)
    axes = drawn.add_subplot()
    values = np.maximum(task.spectrum, 1e-12)
    axes.semilogy(np.arange(1, len(values) + 1), values, "o-", color="black", label="held out")
    axes.axvline(task.rank + 0.5, color="grey", linewidth=0.8)
    for i, (name, run) in enumerate(runs.items()):
        level = noise_norm(task, run)
        if level is not None:
            axes.axhline(level, color=f"C{i}", linestyle="--", label=f"noise of {name}")
    axes.set(xlabel="direction", ylabel="eigenvalue", title="what the noise leaves to be seen")
    axes.set_ylim(bottom=max(1e-9, float(values.min())))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)


def draw_tradeoff(task: PrivatePCA, runs: Mapping[str, Finished], path: Path) -> Path:
    """Draw the residual ratio against ε; runs without privacy are lines."""
    drawn = figure(7.0, 4.5)
    axes = drawn.add_subplot()
    for i, (name, run) in enumerate(runs.items()):
        spent, ratio = epsilon(run), task.evaluate(run.arrays)["residual_ratio"]
        if math.isinf(spent):
            axes.axhline(ratio, color=f"C{i}", linestyle="--", label=f"{name} (ε = ∞)")
        else:
            axes.plot([spent], [ratio], "o", color=f"C{i}", label=name)
    axes.set(xlabel="ε of a record", ylabel="residual ratio", title="one seed: residual against ε")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)
