"""Data that a run needs, read and checked before the run has a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.progress import track

from fedalt.build import TaskCache
from fedalt.cli.show import console


def make_ready(config: Mapping[str, Any], tasks: TaskCache, bar: bool) -> None:
    """Let the tasks of a run and its variants read what they will need, where they say how.

    Raises the task's error, naming what cannot be used.
    """
    for each in (config, *config.get("compared", {}).values()):
        ready: Callable[[], Iterator[tuple[int, int]]] | None
        ready = getattr(tasks(each["task"]), "make_ready", None)
        steps = iter(()) if ready is None else ready()
        first = next(steps, None)
        if first is None:
            continue
        shown = track(
            steps,
            "reading data",
            total=first[1] - first[0],
            console=console(),
            transient=True,
            disable=not bar,
        )
        for _ in shown:
            pass
