"""What a run on a stream shows: scores by environment, the forgetting matrix, who met what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.evaluation import (
    accuracy_matrix,
    average_accuracy,
    forgetting_matrix,
    oldest_newest,
    spacing_curves,
    task_timeline,
)
from fedalt.runs.files import write_json
from fedalt.runs.plots import curves
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.continual_power_law.measures import StreamRun, read_run
from fedalt.task import Task

COLUMNS = {
    "acc": "ACC",
    "aia": "AIA",
    "bwt": "BWT",
    "forgetting": "forgetting",
    "fwt": "FWT",
    "need_weighted": "need-weighted",
    "oldest": "oldest 3",
    "newest": "newest 3",
    "worst_task": "worst task",
    "worst_client": "worst client",
    "client_bwt": "client BWT",
    "facilitation_slope": "facilitation",
}
NOTES = (
    "ACC: mean accuracy on all tasks after the last experience; AIA: the mean of ACC over "
    "experiences; BWT: change since a task was learnt; FWT: before it is learnt, against the "
    "untrained model",
    "need-weighted: accuracy weighted by 1/lag, as a task is needed that comes back by a power law",
    "worst client: ACC on the held-out rows of the client that fares worst; client BWT: on the "
    "client's own rows, since it learnt a task itself, mean over clients",
    "facilitation: how much accuracy after a phase 'first_look' at a new task rises from one "
    "experience to the next",
)


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run and its variants."""
    runs = {name: run for name, run in runs.items() if _judged(run)}
    if not runs:
        rows: tuple[tuple[Value, ...], ...] = (("rounds without a judgement", "all"),)
        note = "evaluate.server_every is 0, so nothing can be said of any task; set it to 1"
        return Report((Table("streams", ("", "value"), rows, (note,)),))
    read = {_label(name, run): read_run(task, run) for name, run in runs.items()}
    protocol, source = getattr(task, "protocol", ""), getattr(task, "source", "")
    title = f"{len(task.sites)} clients, {len(next(iter(read.values())).plan.tasks)} tasks"
    tables = (
        Table(
            f"streams: {title}, {protocol}",
            ("environment", *COLUMNS.values()),
            tuple((name, *_scores(run)) for name, run in read.items()),
            (f"data: {source}", *NOTES),
        ),
        _costs(read),
    )
    write_json(folder / "matrices.json", {name: _matrices(run) for name, run in read.items()})
    return Report(tables, _pictures(read, runs, folder))


def _judged(run: Finished) -> bool:
    """Say whether the server ever judged the model by task."""
    return any("server/accuracy/0" in event["metrics"] for event in run.rounds)


def _label(name: str, run: Finished) -> str:
    """Name a run by its environment and order; a variant by its own name."""
    if name != "main":
        return name
    body: Any = run.config["schedule"]
    environment = body["stream"].get("environment", "none") if "stream" in body else "main"
    return environment if isinstance(environment, str) else "main"


def _scores(run: StreamRun) -> tuple[Value, ...]:
    found = run.scores().to_dict() | run.client_means()
    return tuple(round(found[key], 3) if key in found else None for key in COLUMNS)


def _matrices(run: StreamRun) -> dict[str, Any]:
    """Return R of the global model and of each client as plain data; None: not measured."""
    clients = None if run.clients is None else [_plain(each) for each in run.clients]
    return {
        "sites": list(run.plan.sites),
        "new_tasks": run.plan.new_tasks().tolist(),
        "global": _plain(run.matrix),
        "initial": run.initial.tolist(),
        "clients": clients,
    }


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in matrix]


def _costs(read: Mapping[str, StreamRun]) -> Table:
    rows: list[tuple[Value, ...]] = []
    for name, run in read.items():
        kept = int(run.plan.rows_kept().max())
        touches = np.concatenate([c for s in run.plan.sites.values() for c in s.touches.values()])
        rows.append(
            (
                name,
                run.steps,
                run.rows,
                kept,
                round(kept * run.plan.row_bytes / 1e3, 1),
                round(float(touches.mean()), 2),
                int(touches.max()),
            )
        )
    return Table(
        "what it costs: work, storage and touches",
        ("environment", "steps", "rows met", "rows kept", "kB kept", "touches", "most"),
        tuple(rows),
        (
            "steps: of all clients; rows met: new and rehearsed, over clients and experiences",
            "rows kept: the most that one client keeps of past tasks, at any time",
            "touches: rounds in which a record is read, mean and most; steps may leave some out",
        ),
    )


def _pictures(
    read: Mapping[str, StreamRun], runs: Mapping[str, Finished], folder: Path
) -> tuple[Path, ...]:
    first = next(iter(read.values()))
    matrices = {name: accuracy_matrix(run.matrix, run.order) for name, run in read.items()}
    alone = {name: [matrix] for name, matrix in matrices.items()}
    own = first.plan.sites[min(first.plan.sites)]
    rows = np.zeros(first.matrix.shape, np.int64)
    for experience, meeting in own.meetings.items():
        for number, met in meeting.rows.items():
            rows[experience, number] = len(met)
    series = {
        name: run.metric("server/accuracy") for name, run in zip(read, runs.values(), strict=True)
    }
    clients = _clients(first, next(iter(read)), folder)
    return (
        forgetting_matrix(matrices, folder / "forgetting.png", title="accuracy by task"),
        *clients,
        spacing_curves(alone, folder / "spacing.png", title="what is left of a task"),
        oldest_newest(alone, folder / "oldest_newest.png", title="after the last experience"),
        task_timeline(
            first.plan.new_tasks(),
            folder / "timeline.png",
            tasks=len(first.plan.tasks),
            rows=rows,
            title="which task which client met when",
        ),
        curves(series, folder / "accuracy.png", "accuracy", "mean of all tasks, by round"),
    )


def _clients(run: StreamRun, name: str, folder: Path) -> tuple[Path, ...]:
    """Draw R of the client that fares worst and of the one that fares best; of one, nothing."""
    own = dict(zip(run.plan.sites, run.client_matrices, strict=False))
    ends = {site: average_accuracy(matrix) for site, matrix in own.items()}
    order = sorted((s for s, end in ends.items() if not np.isnan(end)), key=lambda s: ends[s])
    if len(order) < 2:
        return ()
    some = {f"client {s}, {w}": own[s] for s, w in ((order[0], "worst"), (order[-1], "best"))}
    title = f"accuracy by task on clients' own rows: {name}"
    return (forgetting_matrix(some, folder / "clients.png", title=title),)
