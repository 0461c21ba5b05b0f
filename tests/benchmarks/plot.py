"""The picture of a benchmark: one panel a work, one dot an engine, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from summary import Row

OURS, LIMIT, OTHERS = "#c0392b", "#2c7a4b", "#34495e"


def draw(rows: Sequence[Row], path: Path, subtitle: str) -> None:
    """Draw CPU (filled) and wall time (hollow) of a client-round; lines are the CPU's range."""
    works = list(dict.fromkeys(row.work for row in rows))
    groups = [[row for row in rows if row.work == work] for work in works]
    heights = [len(group) + 0.6 for group in groups]
    figure, axes = pyplot.subplots(
        len(works),
        1,
        figsize=(8.5, 1.5 + 0.34 * sum(heights)),
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        _panel(axis, group)
    axes[-1, 0].set_xlabel(
        "milliseconds a client-round (logarithmic); filled: CPU, hollow and in brackets: wall"
    )
    figure.suptitle("Cost of a client-round", fontweight="bold")
    axes[0, 0].set_title(subtitle, fontsize=8, color="dimgray")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _panel(axis: Axes, group: Sequence[Row]) -> None:
    """Draw one work, the quickest engine on top."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.margins(x=0.18)
    for place, row in enumerate(group):
        colour = _colour(row.engine)
        cpu, wall = row.cpu_ms_per_client_round, row.wall_ms_per_client_round
        axis.plot(row.cpu_range, [place, place], color=colour, linewidth=2, alpha=0.5)
        axis.plot(wall, place, "o", markersize=7, markerfacecolor="none", color=colour)
        axis.plot(cpu, place, "o", markersize=7, color=colour)
        axis.annotate(
            f"{cpu:.3g}  ({wall:.3g})",
            (max(cpu, wall, row.cpu_range[1]), place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )
    axis.set_yticks(range(len(group)), [row.engine for row in group], fontsize=8)
    axis.set_ylim(len(group) - 0.4, -0.6)
    axis.set_ylabel(group[0].work, rotation=0, ha="right", va="center", labelpad=12, weight="bold")
    axis.grid(axis="x", which="both", alpha=0.2)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _colour(engine: str) -> str:
    if engine.startswith("fedalt"):
        return OURS
    return LIMIT if engine == "limit" else OTHERS
