"""What the terminal shows: tables, a progress bar, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from fedalt.runs.events import Event, Sink
from fedalt.runs.report import Table


def console(stderr: bool = False) -> Console:
    """Return a console; output that is no terminal is wide enough for whole tables."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 140, soft_wrap=False)


def print_json(data: Any) -> None:
    """Print plain data as JSON."""
    print(json.dumps(data, indent=2, sort_keys=True))


def print_table(table: Table) -> None:
    """Print a report's table with its notes."""
    rich = RichTable(title=table.title, title_justify="left", title_style="bold", expand=False)
    for i, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in table.rows:
        rich.add_row(*(cell(value) for value in row))
    out = console()
    out.print(rich)
    for note in table.notes:
        out.print(f"  {note}", markup=False, highlight=False)


def cell(value: object) -> str:
    """Write a table's value: four significant digits, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        if value != value:
            return "–"
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"
    return str(value)


class Bars:
    """A progress bar for each run of a simulation, fed by the event log."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def sink(self, label: str, watch: Sequence[str] = ()) -> Sink:
        """Return a sink that draws one run; ``watch`` names the metric to show beside it."""
        bar = self._progress.add_task(label, total=None, note="")

        def hear(event: Event) -> None:
            if event["event"] == "begin":
                self._progress.update(bar, total=event["rounds"], completed=event["round"])
            elif event["event"] == "round":
                note = next(
                    (f"{w}={cell(event['metrics'][w])}" for w in watch if w in event["metrics"]), ""
                )
                phases = "+".join(event["phases"])
                self._progress.update(bar, completed=event["round"], note=f"{phases} {note}")
            elif event["event"] == "end":
                self._progress.update(
                    bar,
                    total=event["round"],
                    completed=event["round"],
                    note=f"{event['seconds']} s",
                )

        return hear


@contextmanager
def bars(enabled: bool) -> Iterator[Bars]:
    """Draw progress bars on standard error while the body runs."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, console=console(stderr=True), disable=not enabled)
    with progress:
        yield Bars(progress)
