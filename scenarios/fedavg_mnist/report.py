"""What a FedAvg run shows: accuracy by round, spread over clients, label distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fedalt.data import label_table, plot_labels
from fedalt.runs.plots import curves
from fedalt.runs.report import Finished, Report, Table
from fedalt.scenarios.fedavg_mnist.task import DigitsTask
from fedalt.task import Task


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run."""
    digits = cast(DigitsTask, task)
    rows = []
    for name, run in runs.items():
        last = run.result["metrics"]
        rows.append(
            (
                name,
                last.get("server/accuracy"),
                last.get("server/loss"),
                last.get("clients/accuracy.min"),
                last.get("clients/accuracy.max"),
                run.result["round"],
            )
        )
    columns = ("run", "test accuracy", "test loss", "worst client", "best client", "rounds")
    notes = (
        f"data: {digits.images.source}",
        "worst and best client: accuracy of the global model on a client's own training images",
    )
    series = {name: run.metric("server/accuracy") for name, run in runs.items()}
    table = label_table(digits.parts, digits.labels, len(digits.images.classes))
    figures = (
        plot_labels(table, folder / "labels.png", digits.images.classes),
        curves(series, folder / "accuracy.png", "test accuracy", "server/accuracy by round"),
    )
    return Report((Table("FedAvg on digits", columns, tuple(rows), notes),), figures)
