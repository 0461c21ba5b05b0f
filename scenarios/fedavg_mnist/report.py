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


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run."""
    digits = cast(DigitsTask, task)
    table = label_table(digits.parts, digits.labels, len(digits.images.classes))
    classes = (table > 0).sum(axis=1)
    sizes = table.sum(axis=1)
    name = str(runs["main"].config["task"].get("partition", ""))
    title = f"{len(digits.sites)} clients, {len(digits.labels)} training images, {name} partition"
    notes = (
        f"data: {digits.images.source}",
        f"a client holds {sizes.min()} to {sizes.max()} images "
        f"of {classes.min()} to {classes.max()} classes",
        "worst, median and best client: accuracy of the global model on a client's own "
        "training images",
    )
    rows = tuple(_row(digits, label, run) for label, run in runs.items())
    series = {label: run.metric("server/accuracy") for label, run in runs.items()}
    figures = (
        plot_labels(table, folder / "labels.png", digits.images.classes),
        curves(series, folder / "accuracy.png", "test accuracy", f"test accuracy by round: {name}"),
    )
    return Report((Table(title, COLUMNS, rows, notes),), figures)


def _row(digits: DigitsTask, label: str, run: Finished) -> tuple[Value, ...]:
    scores = digits.evaluate(run.arrays)
    spread = np.quantile(digits.client_accuracy(run.arrays), [0.0, 0.5, 1.0])
    strategy = str(run.config["strategy"].get("_target_", "")).rpartition(".")[2]
    sent = float(run.result["bytes_up"]) / 1e6
    count = int(run.result["round"])
    clients = (float(value) for value in spread)
    return (label, strategy, count, scores["accuracy"], scores["loss"], *clients, sent)
