"""Runs of scenarios for claims: each configuration once, and intervals for messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedalt.build import TaskCache
from fedalt.evaluation import interval as t_interval
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate


@dataclass
class Runs:
    """Runs configurations in a folder; the same one again is read from memory."""

    folder: Path
    tasks: TaskCache = field(default_factory=TaskCache)
    done: dict[tuple[str, ...], Finished] = field(default_factory=dict)

    def carry_out(
        self,
        key: tuple[str, ...],
        configure: Callable[[], Mapping[str, Any]],
        name: str = "main",
        again: bool = False,
    ) -> Finished:
        """Run a configuration to its end; ``again`` runs it beside the one that is known."""
        if not again and key in self.done:
            return self.done[key]
        config = configure()
        folder = RunFolder(self.folder / f"run-{len(self.done)}{'-again' * again}")
        folder.create({**config, "compared": {}})
        simulate(config, folder, self.tasks)
        made = finished(folder, name)
        if not again:
            self.done[key] = made
        return made


def interval(values: Sequence[float], level: float = 0.95) -> str:
    """Mean ± half of a t-interval over seeds, for messages."""
    found = t_interval(values, level=level)
    mean = float(found.mean)
    if len(values) < 2:
        return f"{mean:.4f} (one seed)"
    half = float(found.high) - mean
    return f"{mean:.4f} ± {half:.4f} ({len(values)} seeds: {', '.join(f'{v:.4f}' for v in values)})"
