"""Scores as a heat map: an organ a row, a modality or one of its sites a column."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedalt.errors import DataError
from fedalt.evaluation.colours import INK, colour_bar, ink_on, thin_ticks
from fedalt.medical.organ_scores import ScoreTable
from fedalt.runs.plots import figure, save

_NAMES = {"dice": "Dice", "hd95": "HD95 (mm)", "assd": "surface distance (mm)"}


def organ_heat_map(
    table: ScoreTable, path: Path, *, measure: str = "dice", title: str = ""
) -> Path:
    """Draw each organ's mean over the cases of a modality, and of each of its sites.

    A last row holds the means over organs. White cells have no case to judge. Dice is coloured
    from 0 to 1, a distance from 0 to the largest. Returns the path; raises DataError for a table
    without cases, ConfigError for an unknown ``measure``.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    groups = [group for group in table.groups if group[0] is not None]
    if not groups:
        raise DataError("organ heat map: the table holds no case")
    means = np.array(
        [
            [*table.organ_means(measure, *group), table.mean(measure, None, *group)]
            for group in groups
        ]
    ).T
    finite = means[np.isfinite(means)]
    top = 1.0 if measure == "dice" else float(max(finite, default=1.0)) or 1.0
    # Dark is bad in both: a small overlap, a large distance.
    colours = ScalarMappable(
        Normalize(0, top), colormaps["viridis" if measure == "dice" else "viridis_r"]
    )
    picture = colours.to_rgba(means)
    picture[np.isnan(means)] = 1.0
    drawn = figure(2.6 + 0.55 * len(groups), 1.6 + 0.24 * len(means))
    axes = drawn.add_subplot()
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(means):
        if np.isfinite(value):
            text = f"{value:.2f}" if measure == "dice" else f"{value:.1f}"
            ink = ink_on(picture[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axes.axhline(len(table.organs) - 0.5, color="white", linewidth=2)
    thin_ticks(axes.yaxis, [*(o.replace("_", " ") for o in table.organs), "mean"])
    thin_ticks(axes.xaxis, [f"{m}\n{site or 'all sites'}" for m, site in groups])
    axes.tick_params(length=0, labelsize=8, colors=INK)
    axes.tick_params(axis="x", labelrotation=45 if len(groups) > 6 else 0)
    for side in axes.spines.values():
        side.set_visible(False)
    colour_bar(drawn, colours, _NAMES[measure])
    if title:
        drawn.suptitle(title, fontsize=11, color=INK)
    return save(drawn, path)
