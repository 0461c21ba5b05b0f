"""Pictures that many scenarios share. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = tuple[Sequence[float], Sequence[float]]
"""x and y values of equal length."""


def figure(width: float = 8.0, height: float = 4.5) -> Figure:
    """Return a figure with a canvas of its own; the object API keeps no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(drawn: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    drawn.savefig(path, dpi=130)
    return path


def curves(
    series: Mapping[str, Series],
    path: Path,
    ylabel: str,
    title: str,
    *,
    log: bool = False,
    reference: tuple[str, float] | None = None,
) -> Path:
    """Draw one line a series over rounds, with a dashed reference line if given."""
    from matplotlib.ticker import MaxNLocator

    drawn = figure()
    axes = drawn.add_subplot()
    for label, (x, y) in series.items():
        if len(x):
            axes.plot(x, y, label=label, linewidth=1.6, marker="." if len(x) < 30 else None)
    if reference is not None:
        axes.axhline(reference[1], color="black", linestyle="--", linewidth=1, label=reference[0])
    if log:
        from matplotlib.ticker import FuncFormatter

        # Ratios near one: 1.05 reads better than 1.05 × 10⁰.
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="round", ylabel=ylabel, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if len(series) > 1 or reference is not None:
        axes.legend(fontsize=8, ncols=2 if len(series) > 6 else 1)
    return save(drawn, path)


def grouped_bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    path: Path,
    ylabel: str,
    title: str,
) -> Path:
    """Draw a cluster of bars a group, one bar a series."""
    drawn = figure(max(8.0, 0.5 * len(groups) * len(series)))
    axes: Any = drawn.add_subplot()
    width = 0.8 / max(1, len(series))
    for i, (label, values) in enumerate(series.items()):
        places = [g - 0.4 + width * (i + 0.5) for g in range(len(groups))]
        axes.bar(places, values, width, label=label)
    axes.set_xticks(range(len(groups)), groups)
    axes.set(ylabel=ylabel, title=title)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)
