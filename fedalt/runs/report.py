"""A run's report: tables and pictures, written by the scenario, stored beside the run."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.alternation.local import LOCAL_STATE
from fedalt.errors import ConfigError
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.events import read_events
from fedalt.runs.files import write_atomic, write_json
from fedalt.runs.folder import RunFolder
from fedalt.task import Task

Value = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table: title, column names, rows, and notes that say how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """One run that came to its end: weights, metrics by round, result and configuration.

    ``clients`` are the events in which every client's own measures were told (``evaluate.each``),
    ``states`` what clients keep, by site index.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    rounds: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    config: Mapping[str, Any]
    clients: Sequence[Mapping[str, Any]] = ()
    states: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def local(self) -> frozenset[str]:
        """The names of the model's arrays that sites keep for themselves."""
        kept = {name for state in self.states.values() for name in state}
        return frozenset(name for name in self.arrays if LOCAL_STATE + name in kept)

    def arrays_of(self, site: int) -> Mapping[str, np.ndarray]:
        """Return the model as a site has it: with its own arrays where blocks are local."""
        state = self.states.get(site, {})
        own = {n: state[LOCAL_STATE + n] for n in self.arrays if LOCAL_STATE + n in state}
        return {**self.arrays, **own}

    def metric(self, name: str) -> tuple[list[int], list[float]]:
        """Return the rounds that report a metric, and its values."""
        found = [
            (r["round"], float(r["metrics"][name])) for r in self.rounds if name in r["metrics"]
        ]
        return [number for number, _ in found], [value for _, value in found]


@dataclass(frozen=True)
class Report:
    """What a scenario says about its run: tables, and pictures already drawn."""

    tables: tuple[Table, ...] = ()
    figures: tuple[Path, ...] = field(default=())


Writer = Callable[[Task, Mapping[str, Finished], Path], Report]
"""A scenario's report: the task, the runs by name (``main`` and variants), the folder."""


def finished(folder: RunFolder, name: str) -> Finished:
    """Load a run that came to its end."""
    snapshot, _ = newest_checkpoint(folder.checkpoints)
    result = folder.result()
    if snapshot is None or result is None:
        raise ConfigError(f"run {folder.path} has not come to its end; see: fedalt runs resume")
    told: dict[str, list[Mapping[str, Any]]] = {"round": [], "clients": []}
    for event in read_events(folder.events):
        if event["event"] in told:
            told[event["event"]].append(event)
    config = folder.config()
    rounds, clients = told["round"], told["clients"]
    return Finished(name, snapshot.model, rounds, result, config, clients, snapshot.clients)


def write_report(
    folder: RunFolder, reference: str, task: Task, runs: Mapping[str, Finished]
) -> Report:
    """Call a scenario's writer (``package.module:function``) and store its tables."""
    module, _, name = reference.partition(":")
    if not module.startswith("fedalt.scenarios."):
        raise ConfigError(f"report: '{reference}' is not part of an installed scenario")
    writer: Writer = getattr(importlib.import_module(module), name)
    folder.report.mkdir(parents=True, exist_ok=True)
    report = writer(task, runs, folder.report)
    for stale in folder.report.glob("table-*"):
        stale.unlink()
    for index, table in enumerate(report.tables):
        _store(folder.report, index, table)
    return report


def stored_tables(folder: RunFolder) -> list[Table]:
    """Read the tables of a run's report."""
    tables = []
    for path in sorted(folder.report.glob("table-*.json")):
        data = json.loads(path.read_text())
        rows = tuple(tuple(row) for row in data["rows"])
        tables.append(Table(data["title"], tuple(data["columns"]), rows, tuple(data["notes"])))
    return tables


def _store(folder: Path, index: int, table: Table) -> None:
    rows = [
        [None if isinstance(v, float) and not np.isfinite(v) else v for v in row]
        for row in table.rows
    ]
    write_json(
        folder / f"table-{index}.json",
        {"title": table.title, "columns": table.columns, "rows": rows, "notes": table.notes},
    )
    text = StringIO()
    csv.writer(text).writerows([table.columns, *rows])
    write_atomic(folder / f"table-{index}.csv", text.getvalue().encode())
