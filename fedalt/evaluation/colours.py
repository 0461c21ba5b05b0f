"""The pictures' colours and ticks: up to twenty tasks that colour-blind readers tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TASKS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288"),
    *("#882255", "#AA4499", "#96FFB4", "#2D3C00", "#E1D2FF", "#96C396", "#FFE14B"),
    *("#964B1E", "#5A87F0", "#5A0F5A", "#5A3CA5", "#1E785A", "#3C4B78"),
)
"""The project's first colours (Okabe and Ito 2008, then Tol's muted), then each the farthest
from all before it in Oklab (Ottosson 2020), seen by the worst of normal, protan and deutan
eyes (simulated as in Machado et al. 2009): no two nearer than 0.064."""
INK, GREY, PALE = "#333333", "#8A8A8A", "#EEEEEE"


def to_rgba(colour: str) -> np.ndarray:
    """Return ``#RRGGBB`` as (4,) floats."""
    return np.array([*(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)), 1.0])


def task_colours(tasks: int) -> np.ndarray:
    """Return a colour a task (tasks, 4): distinct ones up to twenty, else along viridis."""
    if tasks <= len(TASKS):
        return np.array([to_rgba(colour) for colour in TASKS[:tasks]])
    from matplotlib import colormaps

    return np.asarray(colormaps["viridis"](np.linspace(0, 1, tasks)))


def ink_on(colour: np.ndarray) -> str:
    """Return black or white, whichever is read better on a colour (WCAG 2 contrast)."""
    part = colour[:3]
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def thin_ticks(axis: Axis, labels: Sequence[str], most: int = 25) -> None:
    """Label places 0, 1, …, leaving some out where there are more than ``most``."""
    every = max(1, math.ceil(len(labels) / most))
    axis.set_ticks(range(0, len(labels), every), labels[::every])


def colour_bar(drawn: Figure, colours: ScalarMappable, label: str) -> None:
    """Put a colour bar right of all of a figure's panels."""
    bar = drawn.colorbar(colours, ax=drawn.axes, pad=0.02, aspect=25)
    bar.set_label(label, fontsize=9, color=INK)
    bar.ax.tick_params(length=0, labelsize=8, colors=INK)
    for side in bar.ax.spines.values():
        side.set_visible(False)
