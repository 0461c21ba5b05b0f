"""Pictures of an ε: over rounds, and against δ. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.evaluation.colours import GREY, INK, TASKS
from fedalt.privacy.accounting import Bound
from fedalt.runs.plots import figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Drawn:
    """What a picture shows, by unit.

    ``rounds`` are (round, ε) by the running bound, ``final`` the smallest bound at the end,
    ``deltas`` (δ, ε), ``budget`` the largest ε where there is one; ``delta`` is the plan's δ.
    """

    title: str
    delta: float
    rounds: Mapping[str, Curve]
    final: Mapping[str, Bound]
    deltas: Mapping[str, Curve]
    budget: Mapping[str, float] = field(default_factory=dict)


def deltas_around(delta: float) -> np.ndarray:
    """Return δ from four decades below to two above, ascending and below 1."""
    top = min(np.log10(delta) + 2.0, -1.0)
    return np.logspace(np.log10(delta) - 4.0, top, 25)


def draw(what: Drawn, path: Path) -> Path:
    """Draw both panels; raises :class:`OSError` where the file cannot be written."""
    made = figure(10.0, 4.2)
    left, right = made.subplots(1, 2)
    made.suptitle(what.title, fontsize=11, color=INK)
    for number, unit in enumerate(what.rounds):
        colour = TASKS[number]
        _over_rounds(left, what, unit, colour)
        deltas, values = what.deltas.get(unit, ((), ()))
        right.plot(deltas, values, color=colour, linewidth=1.8, label=f"ε of a {unit}")
    left.set(title="over rounds", xlabel="round", ylabel=f"ε at δ={what.delta:.2g}")
    _whole_rounds(left)
    right.axvline(what.delta, color=GREY, linestyle=":", linewidth=1.2, label="this plan's δ")
    right.set(title="against δ, after the last round", xlabel="δ", ylabel="ε", xscale="log")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    return save(made, path)


def _over_rounds(axes: Axes, what: Drawn, unit: str, colour: str) -> None:
    rounds, values = what.rounds[unit]
    axes.plot(rounds, values, color=colour, linewidth=1.8, label=f"{unit}, running bound")
    if unit in what.final and len(rounds):
        bound = what.final[unit]
        label = f"{unit}, smallest bound: {bound.epsilon:.3g} ({bound.method})"
        # At the last round the marker would be cut by the panel's edge.
        axes.plot(rounds[-1], bound.epsilon, "o", color=colour, label=label, clip_on=False)
    for key, limit in what.budget.items():
        if key.partition("/")[0] == unit:
            label = f"budget {key}: {limit:g} (asks the smallest bound)"
            axes.axhline(limit, color=colour, linestyle="--", linewidth=1.2, label=label)


def _whole_rounds(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
