"""What a FedAvg run shows: accuracy by round, spread over clients, label distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from fedalt.data import label_table, plot_labels
from fedalt.runs.plots import curves
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.fedavg_mnist.task import DigitsTask
from fedalt.task import Task

COLUMNS = (
    "run", "strategy", "rounds", "test accuracy", "test loss",
    "worst client", "median client", "best client", "MB up",
)  # fmt: skip
OWN = ("worst client", "median client", "best client")
"""Columns computed on what clients hold; a private run does without."""
LEFT_OUT = "computed on clients' own images, which no account covers"


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run.

    Compared runs have the same clients: if one is private, nothing is told of what they hold.
    """
    digits = cast(DigitsTask, task)
    name = str(runs["main"].config["task"].get("partition", ""))
    title = f"{len(digits.sites)} clients, {len(digits.labels)} training images, {name} partition"
    told = not any(private(run) for run in runs.values())
    columns = tuple(column for column in COLUMNS if told or column not in OWN)
    rows = tuple(_row(digits, label, run, told) for label, run in runs.items())
    series = {label: run.metric("server/accuracy") for label, run in runs.items()}
    title_of = f"test accuracy by round: {name}"
    drawn = curves(series, folder / "accuracy.png", "test accuracy", title_of)
    notes: tuple[str, ...] = (f"data: {digits.images.source}",)
    if not told:
        left = f"client accuracies and labels left out: {LEFT_OUT}"
        (folder / "labels.png").unlink(missing_ok=True)
        return Report((Table(title, columns, rows, (*notes, left)),), (drawn,))
    table = label_table(digits.parts, digits.labels, len(digits.images.classes))
    notes += _holdings(table)
    labels = plot_labels(table, folder / "labels.png", digits.images.classes)
    return Report((Table(title, columns, rows, notes),), (labels, drawn))


def private(run: Finished) -> bool:
    """Say whether a run protected anybody: it kept a ledger, or a phase has a privacy spec."""
    phases = run.config.get("phases") or {}
    return bool(run.result.get("ledger")) or any(
        (phase or {}).get("privacy") for phase in phases.values()
    )


def _holdings(table: np.ndarray) -> tuple[str, ...]:
    """Say what clients hold; ``table`` counts labels (clients, classes)."""
    classes, sizes = (table > 0).sum(axis=1), table.sum(axis=1)
    return (
        f"a client holds {sizes.min()} to {sizes.max()} images "
        f"of {classes.min()} to {classes.max()} classes",
        "worst, median and best client: accuracy of the global model on a client's own "
        "training images",
    )


def _row(digits: DigitsTask, label: str, run: Finished, told: bool) -> tuple[Value, ...]:
    scores = digits.evaluate(run.arrays)
    strategy = str(run.config["strategy"].get("_target_", "")).rpartition(".")[2]
    sent = float(run.result["bytes_up"]) / 1e6
    count = int(run.result["round"])
    clients: tuple[float, ...] = ()
    if told:
        spread = np.quantile(digits.client_accuracy(run.arrays), [0.0, 0.5, 1.0])
        clients = tuple(float(value) for value in spread)
    return (label, strategy, count, scores["accuracy"], scores["loss"], *clients, sent)
