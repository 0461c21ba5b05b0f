"""A claim's picture: its first measure by arm, every seed, and the intervals of the means."""

from __future__ import annotations

from pathlib import Path

from fedalt.claims.judge import LEVEL, interval
from fedalt.claims.outcome import Outcome
from fedalt.runs.plots import figure, save

TURNED = 6
"""With more arms than that their names are written aslant."""


def draw(outcome: Outcome, path: Path) -> Path:
    """Draw the measure of the first claimed statement and return the picture's path."""
    measure = outcome.claim.measures[0]
    values = outcome.values(measure)
    drawn = figure(max(6.0, 1.0 + 0.8 * len(values)))
    axes = drawn.add_subplot()
    for place, found in enumerate(values.values()):
        mean = interval(found)
        axes.plot([place + 0.12] * len(found), found, ".", color="grey", markersize=5)
        axes.errorbar(
            place, mean.mean, yerr=mean.half or 0.0, fmt="o", color="C0", capsize=5, markersize=6
        )
    aslant = len(values) > TURNED
    axes.set_xticks(
        range(len(values)),
        list(values),
        rotation=35 if aslant else 0,
        ha="right" if aslant else "center",
    )
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set(ylabel=measure, title=f"{outcome.name}: {measure} by arm")
    count = len(outcome.seeds)
    how = f"mean and {LEVEL:.0%} t-interval, {count} seeds (grey)" if count > 1 else "one seed"
    axes.set_xlabel(how)
    axes.grid(axis="y", alpha=0.3)
    return save(drawn, path)
