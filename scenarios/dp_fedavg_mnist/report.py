"""What a private FedAvg run shows: accuracy by round, and what it cost its clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fedalt.runs.plots import curves, figure, save
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.dp_fedavg_mnist.task import GroupedDigits
from fedalt.scenarios.fedavg_mnist.report import LEFT_OUT, private
from fedalt.task import Task

COLUMNS = (
    "run", "rounds", "mechanism", "z", "clip", "ε of a client", "test accuracy", "test loss",
    "MB up",
)  # fmt: skip
SPENT, ACCURACY = "privacy/client", "server/accuracy"


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the table and the pictures of a run and of those it is compared with."""
    digits = cast(GroupedDigits, task)
    rows = tuple(_row(name, run) for name, run in runs.items())
    parameters = sum(values.size for values in runs["main"].arrays.values())
    sizes = [site.size for site in digits.sites]
    held = f"a client holds {min(sizes)} to {max(sizes)} images"
    if any(private(run) for run in runs.values()):
        held = f"how many images a client holds left out: {LEFT_OUT}"
    notes = (
        f"data: {digits.images.source}; {held}",
        "ε by the bound that is quick; `fedalt privacy report` tells the smallest sound one",
        f"noise on a sum of updates has length z · clip · √{parameters}: fewer parameters or more "
        "clients a round make it matter less",
        "judged on test images, which no client holds",
        *(note for name, run in runs.items() for note in _judged(name, run)),
    )
    found = {name: run.metric(ACCURACY) for name, run in runs.items()}
    series = {name: points for name, points in found.items() if points[0]}
    spent = {name: run.metric(SPENT) for name, run in runs.items() if run.metric(SPENT)[0]}
    figures = []
    for name in ("accuracy.png", "spent.png", "tradeoff.png"):
        (folder / name).unlink(missing_ok=True)
    if series:
        path = folder / "accuracy.png"
        figures.append(curves(series, path, "test accuracy", "test accuracy by round"))
    if spent:
        figures.append(curves(spent, folder / "spent.png", "ε of a client", "ε by round"))
    if spent and series:
        judged = {name: runs[name] for name in series}
        figures.append(tradeoff(judged, folder / "tradeoff.png"))
    title = f"{len(sizes)} clients, {sum(sizes)} training images"
    return Report((Table(title, COLUMNS, rows, notes),), tuple(figures))


def epsilon(run: Finished) -> float:
    """Return what a run cost a client; infinite where nothing protected it."""
    values = run.metric(SPENT)[1]
    return values[-1] if values else math.inf


def _row(name: str, run: Finished) -> tuple[Value, ...]:
    spec = run.config["phases"]["train"].get("privacy") or {}
    spent = epsilon(run)
    return (
        name,
        int(run.result["round"]),
        _mechanism(spec),
        spec.get("noise"),
        spec.get("clip"),
        "∞" if math.isinf(spent) else spent,
        run.result["metrics"].get("server/accuracy"),
        run.result["metrics"].get("server/loss"),
        float(run.result["bytes_up"]) / 1e6,
    )


def _last(run: Finished, name: str) -> float | None:
    """Return a metric's newest value; None where no round reported it."""
    values = run.metric(name)[1]
    return values[-1] if values else None


def _judged(name: str, run: Finished) -> tuple[str, ...]:
    """Say of a run whose last round was not judged what its accuracy is that of."""
    every, rounds = run.config["evaluate"]["server_every"], int(run.result["round"])
    judged = run.metric(ACCURACY)[0]
    if judged and judged[-1] == rounds:
        return ()
    when = f"judged last in round {judged[-1]} of {rounds}" if judged else "never judged"
    return (f"{name}: {when} (evaluate.server_every={every})",)


def _mechanism(spec: Mapping[str, object]) -> str:
    if not spec:
        return "none"
    return "gaussian, adaptive clip" if spec.get("quantile") else str(spec.get("mechanism"))


def tradeoff(runs: Mapping[str, Finished], path: Path) -> Path:
    """Draw the accuracy of judged runs against ε; runs without privacy are lines."""
    drawn = figure(7.0, 4.5)
    axes = drawn.add_subplot()
    for i, (name, run) in enumerate(runs.items()):
        # A run that ended before the server judged it has no accuracy to draw.
        spent = epsilon(run)
        accuracy = float(run.result["metrics"].get("server/accuracy", math.nan))
        if math.isinf(spent):
            axes.axhline(accuracy, color=f"C{i}", linestyle="--", label=f"{name} (ε = ∞)")
        else:
            axes.plot([spent], [accuracy], "o", color=f"C{i}", label=name)
    axes.set(xlabel="ε of a client", ylabel="test accuracy", title="one seed: utility against ε")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)
