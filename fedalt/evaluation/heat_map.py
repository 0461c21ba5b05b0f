"""The forgetting matrix: R as a heat map, one panel a matrix, all on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.errors import ConfigError, DataError
from fedalt.evaluation.colours import GREY, INK, PALE, colour_bar, ink_on, thin_ticks, to_rgba
from fedalt.evaluation.matrix import AccuracyMatrix, Matrix, accuracy_matrix
from fedalt.runs.plots import figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MOST_NUMBERS = 12
"""Tasks, and experiences, up to which cells hold numbers."""
_PANELS = 4


def forgetting_matrix(
    matrices: Matrix | Mapping[str, Matrix],
    path: Path,
    *,
    names: Sequence[str] | None = None,
    scale: tuple[float, float] | None = None,
    title: str = "",
) -> Path:
    """Draw R, experience down and task across, tasks in the order in which they were met.

    Several matrices, such as one an environment, stand side by side by their labels. Hatched
    cells are tasks not met yet, white ones were not measured; a frame marks what was new.
    ``names`` are the tasks' names; ``scale`` the accuracies at the ends of the colours
    (default: the tenths around all that are drawn). Returns the path.
    """
    given = matrices if isinstance(matrices, Mapping) else {"": matrices}
    read = {label: accuracy_matrix(each) for label, each in given.items()}
    _check(read, names)
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*(scale or _scale(read.values()))), colormaps["viridis"])
    across = min(len(read), _PANELS)
    down = math.ceil(len(read) / across)
    width, height = _size(read.values())
    drawn = figure(max(5.0, across * (width + 0.45) + 1.1), down * (height + 0.55) + 0.9)
    panels = drawn.subplots(down, across, squeeze=False)
    for axes, (label, each) in zip(panels.flat, read.items(), strict=False):
        _draw(axes, each, colours, names)
        axes.set_title(label, fontsize=10, color=INK)
    for axes in panels.flat[len(read) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("after experience", fontsize=9, color=INK)
    for axes in panels.flat[max(0, len(read) - across) : len(read)]:
        axes.set_xlabel("task, in the order met", fontsize=9, color=INK)
    colour_bar(drawn, colours, "accuracy")
    _legend(drawn, read.values())
    if title:
        drawn.suptitle(title, fontsize=11, color=INK)
    return save(drawn, path)


def _check(read: Mapping[str, AccuracyMatrix], names: Sequence[str] | None) -> None:
    if not read:
        raise DataError("forgetting matrix: there is no matrix to draw")
    for label, each in read.items():
        if names is not None and len(names) != each.tasks:
            raise ConfigError(
                f"forgetting matrix '{label}': {each.tasks} tasks, but {len(names)} names"
            )


def _scale(read: Iterable[AccuracyMatrix]) -> tuple[float, float]:
    """Return the tenths around all accuracies on tasks that were met."""
    values = np.concatenate([each.values[each.met & ~np.isnan(each.values)] for each in read])
    if not len(values):
        return 0.0, 1.0
    low = math.floor(values.min() * 10 + 1e-9) / 10
    return low, max(math.ceil(values.max() * 10 - 1e-9) / 10, low + 0.1)


def _size(read: Iterable[AccuracyMatrix]) -> tuple[float, float]:
    """Return a panel's width and height in inches: cells that hold a number if there are few."""
    experiences, tasks = np.max([each.values.shape for each in read], axis=0)
    cell = 0.3 if max(experiences, tasks) <= MOST_NUMBERS else 0.17
    return min(8.0, max(1.5, cell * tasks)), min(12.0, max(1.2, cell * experiences))


def _draw(
    axes: Axes, matrix: AccuracyMatrix, colours: ScalarMappable, names: Sequence[str] | None
) -> None:
    met_when = np.where(matrix.first < 0, matrix.experiences, matrix.first)
    columns = np.argsort(met_when, kind="stable")
    values, met = matrix.values[:, columns], matrix.met[:, columns]
    picture = colours.to_rgba(np.where(met, values, np.nan))
    picture[met & np.isnan(values)] = 1.0
    picture[~met] = to_rgba(PALE)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    _cells(axes, ~met, hatch="///", linewidth=0, edgecolor="#DADADA")
    _cells(axes, met & np.isnan(values), linewidth=0.6, edgecolor="#BBBBBB")
    _cells(axes, matrix.new[:, columns], linewidth=1.2, edgecolor="black")
    if max(values.shape) <= MOST_NUMBERS:
        for (e, j), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            ink = ink_on(picture[e, j, :3]) if met[e, j] else GREY
            axes.text(j, e, _short(value), ha="center", va="center", fontsize=7, color=ink)
    labels = [str(task) if names is None else names[task] for task in columns]
    thin_ticks(axes.xaxis, labels)
    thin_ticks(axes.yaxis, [str(e) for e in range(matrix.experiences)])
    if max(map(len, labels)) > 2:
        axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(length=0, labelsize=7.5, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def _cells(axes: Axes, where: np.ndarray, **look: Any) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    found = [Rectangle((j - 0.5, e - 0.5), 1, 1) for e, j in np.argwhere(where)]
    axes.add_collection(PatchCollection(found, facecolor="none", **look), autolim=False)


def _short(value: float) -> str:
    """Return two digits: .87, 1.0."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text[:3]


def _legend(drawn: Figure, read: Iterable[AccuracyMatrix]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor="none", edgecolor="black", linewidth=1.2, label="new task")]
    if any((~each.met).any() for each in read):
        handles.append(
            Patch(
                facecolor=PALE, edgecolor="#BBBBBB", hatch="////", linewidth=0, label="not met yet"
            )
        )
    if any((each.met & np.isnan(each.values)).any() for each in read):
        handles.append(
            Patch(facecolor="white", edgecolor=GREY, linewidth=0.6, label="not measured")
        )
    drawn.legend(
        handles=handles,
        loc="outside lower left",
        ncols=3,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
