"""Pictures of streams of tasks. matplotlib is imported only when one is drawn.

The heat map and the timeline have rooms of their own; here are the curves: one line an
environment, its runs (seeds, or clients) as a band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedalt.errors import DataError
from fedalt.evaluation.colours import INK, TASKS
from fedalt.evaluation.continual import accuracy_by_lag
from fedalt.evaluation.heat_map import forgetting_matrix
from fedalt.evaluation.intervals import BANDS, Interval, interval
from fedalt.evaluation.matrix import AccuracyMatrix
from fedalt.evaluation.task_timeline import task_timeline
from fedalt.runs.plots import figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forgetting_matrix", "oldest_newest", "spacing_curves", "task_timeline"]

Runs = Mapping[str, Sequence[AccuracyMatrix]]
"""Accuracy matrices of each environment's seeds or clients, by its label."""
_MARKERS = "osD^vPX*<>"
_WIDE = 30
"""Points up to which each has a marker."""


def spacing_curves(
    runs: Runs, path: Path, *, band: str = "interval", level: float = 0.95, title: str = ""
) -> Path:
    """Draw accuracy against the experiences since a task was last new, mean over tasks.

    ``band`` is what :func:`~fedalt.evaluation.intervals.interval` knows, at ``level``. Longer
    lags are means over fewer tasks, the longest over the first alone. Returns the path.
    """
    curves = _curves(runs, accuracy_by_lag, band, level)
    return _draw(
        curves, path, "experiences since the task was last new", _what(curves, band, level), title
    )


def oldest_newest(
    runs: Runs, path: Path, *, band: str = "interval", level: float = 0.95, title: str = ""
) -> Path:
    """Draw accuracy after the last experience on the task of each experience, oldest first.

    A task that came several times stands at the last; the rest as in :func:`spacing_curves`.
    """
    curves = _curves(runs, _final_by_experience, band, level)
    return _draw(
        curves, path, "experience in which the task was last new", _what(curves, band, level), title
    )


def _final_by_experience(matrix: AccuracyMatrix) -> np.ndarray:
    """Return the final accuracy (experiences,) on the tasks that were last new in each."""
    found = np.full(matrix.experiences, np.nan)
    for e in range(matrix.experiences):
        values = matrix.final[matrix.last[-1] == e]
        values = values[~np.isnan(values)]
        if len(values):
            found[e] = values.mean()
    return found


def _curves(
    runs: Runs, read: Callable[[AccuracyMatrix], np.ndarray], band: str, level: float
) -> dict[str, Interval]:
    if not runs:
        raise DataError("there is no environment to draw")
    found = {}
    for label, matrices in runs.items():
        lengths = sorted({each.experiences for each in matrices})
        if len(lengths) != 1:
            raise DataError(
                f"environment '{label}': its runs have {lengths} experiences, but must have "
                "equally many, at least one run"
            )
        found[label] = interval([read(each) for each in matrices], band=band, level=level)
    return found


def _what(curves: Mapping[str, Interval], band: str, level: float) -> str:
    """Return the y axis's label, which says what the band is, if there is one."""
    if all(np.isnan(curve.low).all() for curve in curves.values()):
        return "accuracy"
    return (
        f"accuracy (band: {level:.0%} {'interval of the mean' if band == BANDS[0] else 'of runs'})"
    )


def _draw(curves: Mapping[str, Interval], path: Path, xlabel: str, ylabel: str, title: str) -> Path:
    from matplotlib.ticker import MaxNLocator

    drawn = figure(8.4, 4.6)
    axes = drawn.add_subplot()
    for place, (label, curve) in enumerate(curves.items()):
        _line(axes, label, curve, place)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        handles, labels = axes.get_legend_handles_labels()
        order = _downwards(list(curves.values()))
        drawn.legend(
            [handles[place] for place in order],
            [labels[place] for place in order],
            loc="outside right upper",
            fontsize=8.5,
            frameon=False,
            labelcolor=INK,
        )
    return save(drawn, path)


def _line(axes: Axes, label: str, curve: Interval, place: int) -> None:
    there = np.flatnonzero(~np.isnan(curve.mean))
    colour = TASKS[place % len(TASKS)]
    axes.plot(
        there,
        curve.mean[there],
        label=label,
        color=colour,
        linewidth=1.6,
        marker=_MARKERS[place % len(_MARKERS)] if len(there) <= _WIDE else None,
        markersize=4.5,
        linestyle="-" if place < len(TASKS) else "--",
    )
    axes.fill_between(
        there, curve.low[there], curve.high[there], color=colour, alpha=0.15, linewidth=0
    )


def _downwards(curves: Sequence[Interval]) -> list[int]:
    """Return the lines' places from the highest mean to the lowest, as a reader meets them."""
    means = [float(np.nanmean(c.mean)) if not np.isnan(c.mean).all() else -1.0 for c in curves]
    return sorted(range(len(curves)), key=lambda place: -means[place])
