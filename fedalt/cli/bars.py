"""How far a run has come: bars in a terminal, a line a run anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedalt.cli.show import cell, console
from fedalt.runs.events import Event, Sink


class Bars:
    """A progress bar for each run of a simulation, fed by the event log.

    Without ``keep`` a run that ended becomes a line above the bars: a terminal shows no more
    bars than it has rows, and would hide the newest.
    """

    def __init__(self, progress: Progress, keep: bool = True) -> None:
        self._progress, self._keep = progress, keep

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
            elif event["event"] == "end" and not self._keep:
                self._progress.remove_task(bar)
                if not self._progress.disable:
                    self._progress.console.print(_ended(label, event))
            elif event["event"] == "end":
                done, note = event["round"], f"{event['seconds']} s"
                self._progress.update(bar, total=done, completed=done, note=note)

        return hear


class Lines:
    """The same for a log file: a line when a run ends; nothing that only a terminal can show."""

    def sink(self, label: str, watch: Sequence[str] = ()) -> Sink:
        """Return a sink that writes one run's end to standard error."""

        def hear(event: Event) -> None:
            if event["event"] == "begin" and event["round"]:
                print(f"{label}: goes on after round {event['round']}", file=sys.stderr)
            elif event["event"] == "end":
                print(_ended(label, event), file=sys.stderr, flush=True)

        return hear


def _ended(label: str, event: Event) -> str:
    return f"{label}: {event['round']} rounds in {event['seconds']} s"


@contextmanager
def bars(enabled: bool, keep: bool = True) -> Iterator[Bars | Lines]:
    """Show progress on standard error while the body runs; ``keep`` the bars of ended runs."""
    if enabled and not sys.stderr.isatty():
        yield Lines()
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console(stderr=True), disable=not enabled) as progress:
        yield Bars(progress, keep)


PATIENCE = 1.0
"""Seconds that a computation may take before it says how far it is."""


@contextmanager
def walk_bar(label: str, total: int, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of ``total`` steps of a computation.

    In a terminal a bar appears once the steps have taken longer than a moment.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = Progress(*columns, console=console(stderr=True), transient=True)
    bar, begin = shown.add_task(label, total=total), time.perf_counter()
    enabled = enabled and sys.stderr.isatty()

    def step() -> None:
        shown.update(bar, advance=1)
        if enabled and not shown.live.is_started and time.perf_counter() - begin > PATIENCE:
            shown.start()

    try:
        yield step
    finally:
        if shown.live.is_started:
            shown.stop()
