"""Which client met which task when, and of what its experiences were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import ConfigError, DataError
from fedalt.evaluation.colours import (
    INK,
    PALE,
    TASKS,
    colour_bar,
    ink_on,
    task_colours,
    thin_ticks,
    to_rgba,
)
from fedalt.evaluation.matrix import read_order
from fedalt.runs.plots import figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOM = 0.15
"""Inches of a cell, across and down, from which a label fits inside."""
_DIGIT = 0.075
"""Inches of a label's character."""


def task_timeline(
    orders: ArrayLike,
    path: Path,
    *,
    tasks: int | Sequence[str],
    clients: Sequence[str] | None = None,
    rows: ArrayLike | None = None,
    client: int = 0,
    title: str = "",
) -> Path:
    """Draw clients down and experiences across, coloured by the task that was new.

    ``orders`` (clients, experiences), or (experiences,) of one client, has task numbers, −1
    where a client had none. ``tasks`` is their number or their names. ``rows`` (experiences,
    tasks), if given, are the rows of each task in each experience of ``client`` and make a
    second panel of shares, by recency. Returns the path; raises :class:`ConfigError` or
    :class:`DataError` naming what does not fit.
    """
    names = [str(task) for task in range(tasks)] if isinstance(tasks, int) else list(tasks)
    numbers = _numbers(orders, len(names))
    count, experiences = numbers.shape
    labels = [str(k) for k in range(count)] if clients is None else list(clients)
    if len(labels) != count:
        raise ConfigError(f"timeline: {count} clients in the orders, but {len(labels)} names")
    shares = None if rows is None else _shares(rows, experiences, len(names), count, client)
    colours = task_colours(len(names))
    width = min(13.0, max(5.5, 0.3 * experiences))
    height = 0.27 * count if count <= 16 else min(10.0, max(4.3, 0.07 * count))
    inside = min(width / experiences, height / count) >= _ROOM
    heights = [height] if shares is None else [height, 1.9]
    legend = _Legend.of(names, numbers, width, inside)
    drawn = figure(width + 0.9, sum(heights) + 0.3 * len(heights) + 0.5 + legend.height)
    panels = drawn.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    if inside:
        long = max(map(len, names)) * _DIGIT > width / experiences
        _write(panels[0, 0], numbers, list(map(str, range(len(names)))) if long else names, colours)
    _draw_orders(panels[0, 0], numbers, labels, colours)
    if shares is not None:
        _draw_shares(panels[1, 0], shares, numbers[client], colours)
        panels[1, 0].set_ylabel(f"rows of client {labels[client]}", fontsize=9, color=INK)
    panels[-1, 0].set_xlabel("experience", fontsize=9, color=INK)
    panels[0, 0].set_title(title, fontsize=11, color=INK, loc="left")
    legend.draw(drawn, colours)
    return save(drawn, path)


def _numbers(orders: ArrayLike, tasks: int) -> np.ndarray:
    if tasks < 1:
        raise ConfigError("timeline: there is no task")
    found = read_order(orders, tasks, "timeline: orders")
    # One client's order is a list, which reads as experiences down.
    return found.reshape(1, -1) if np.ndim(orders) == 1 else found


def _shares(rows: ArrayLike, experiences: int, tasks: int, clients: int, client: int) -> np.ndarray:
    """Return the share (experiences, tasks) of each task in an experience's rows."""
    found = np.asarray(rows, np.float64)
    if found.shape != (experiences, tasks):
        raise DataError(
            f"timeline: rows has shape {found.shape}, but there are {experiences} experiences of "
            f"{tasks} tasks"
        )
    if not (np.isfinite(found) & (found >= 0)).all():
        raise DataError("timeline: rows holds what is no count: negative, or not finite")
    if not 0 <= client < clients:
        raise ConfigError(f"timeline: client {client} is out of range: 0 to {clients - 1}")
    total = found.sum(axis=1, keepdims=True)
    return found / np.where(total > 0, total, 1.0)


def _draw_orders(
    axes: Axes, numbers: np.ndarray, labels: Sequence[str], colours: np.ndarray
) -> None:
    picture = np.where((numbers >= 0)[..., None], colours[numbers], to_rgba(PALE))
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    if len(labels) <= 40:
        for line in range(1, len(labels)):
            axes.axhline(line - 0.5, color="white", linewidth=1.0)
    if numbers.shape[1] <= 40:
        for line in range(1, numbers.shape[1]):
            axes.axvline(line - 0.5, color="white", linewidth=0.6)
    thin_ticks(axes.yaxis, labels)
    thin_ticks(axes.xaxis, [str(e) for e in range(numbers.shape[1])])
    axes.set_ylabel("client", fontsize=9, color=INK)
    _clean(axes)


def _write(axes: Axes, numbers: np.ndarray, names: Sequence[str], colours: np.ndarray) -> None:
    for (k, e), task in np.ndenumerate(numbers):
        if task >= 0:
            ink = ink_on(colours[task])
            axes.text(e, k, names[task], ha="center", va="center", fontsize=7.5, color=ink)


def _draw_shares(axes: Axes, shares: np.ndarray, order: np.ndarray, colours: np.ndarray) -> None:
    """Stack an experience's tasks by when they were new last: the new one, then backwards."""
    experiences, tasks = shares.shape
    places, last = np.arange(experiences), np.full(tasks, -1)
    ranked = np.zeros((experiences, tasks), np.int64)
    for e, task in enumerate(order):
        last[task] = e if task >= 0 else last[task]
        ranked[e] = np.argsort(-last, kind="stable")
    base = np.zeros(experiences)
    for rank in range(tasks):
        part = shares[places, ranked[:, rank]]
        if part.any():
            axes.bar(places, part, 0.86, bottom=base, color=colours[ranked[:, rank]])
        base += part
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.tick_params(axis="x", labelbottom=True)
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


@dataclass(frozen=True)
class _Legend:
    """The tasks by their colours, or their scale where there are more than have their own."""

    texts: tuple[str, ...]
    gaps: bool
    tasks: int
    columns: int

    @classmethod
    def of(cls, names: Sequence[str], numbers: np.ndarray, width: float, inside: bool) -> _Legend:
        """``inside``: cells hold the numbers, which need no legend unless they have names."""
        plain = list(names) == [str(task) for task in range(len(names))]
        texts: tuple[str, ...] = ()
        if len(names) <= len(TASKS) and not (plain and inside):
            texts = tuple(t if plain else f"{task}  {t}" for task, t in enumerate(names))
        columns = int(width / (0.42 + 0.066 * max(map(len, texts), default=1)))
        return cls(texts, bool((numbers < 0).any()), len(names), max(1, columns))

    @property
    def height(self) -> float:
        """Inches that it takes."""
        rows = -(-(len(self.texts) + self.gaps) // self.columns)
        return 0.2 + 0.19 * rows if rows else 0.0

    def draw(self, drawn: Figure, colours: np.ndarray) -> None:
        """Add it to the figure."""
        if self.tasks > len(TASKS):
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import Normalize

            colour_bar(drawn, ScalarMappable(Normalize(0, self.tasks - 1), "viridis"), "task")
        from matplotlib.patches import Patch

        handles = [Patch(color=colours[task], label=t) for task, t in enumerate(self.texts)]
        if self.gaps:
            handles.append(Patch(color=PALE, label="no task"))
        if handles:
            drawn.legend(
                handles=handles,
                loc="outside lower left",
                ncols=min(len(handles), self.columns),
                fontsize=8,
                frameon=False,
                labelcolor=INK,
                handlelength=1.0,
                columnspacing=1.0,
            )
