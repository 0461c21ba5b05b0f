"""Utility against privacy: a claim's measure over the ε that its arms' runs spent.

The ledger's metrics ``privacy/UNIT`` tell what a run spent. Arms named ``METHOD-LEVEL``, such as
``alone-3``, are points of one curve; an arm without an ε protects nobody and is a dashed line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedalt.claims.judge import LEVEL, Interval, interval
from fedalt.claims.outcome import Outcome
from fedalt.runs.plots import figure, save

PREFIX = "privacy/"


@dataclass(frozen=True)
class Tradeoff:
    """A measure by method: points (mean ε, measure) by rising ε, and levels without privacy."""

    unit: str
    measure: str
    curves: Mapping[str, Sequence[tuple[float, Interval]]]
    levels: Mapping[str, Interval]


def tradeoff(outcome: Outcome) -> Tradeoff | None:
    """Return the first statement's measure over ε; None where no arm's runs spent anything.

    Where several units are protected, ε is the one of the first by name.
    """
    names = {name for runs in outcome.runs.values() for run in runs for name in run.values}
    spent_as = min((name for name in names if name.startswith(PREFIX)), default=None)
    measure = next((m for m in outcome.claim.measures if not m.startswith(PREFIX)), None)
    if spent_as is None or measure is None:
        return None
    spent = outcome.values(spent_as)
    curves, levels = dict[str, list[tuple[float, Interval]]](), dict[str, Interval]()
    for arm, values in outcome.values(measure).items():
        if arm in spent:
            points = curves.setdefault(method_of(arm), [])
            points.append((interval(spent[arm]).mean, interval(values)))
        else:
            levels[arm] = interval(values)
    for points in curves.values():
        points.sort(key=lambda point: point[0])
    return Tradeoff(spent_as.removeprefix(PREFIX), measure, curves, levels)


def method_of(arm: str) -> str:
    """Return an arm's name without its level."""
    return arm.rpartition("-")[0] or arm


def draw_tradeoff(outcome: Outcome, path: Path) -> Path | None:
    """Draw :func:`tradeoff` with intervals of means over seeds; None where there is none."""
    found = tradeoff(outcome)
    if found is None:
        return None
    from matplotlib.ticker import FuncFormatter

    methods = dict.fromkeys([*found.curves, *map(method_of, found.levels)])
    colours = {method: f"C{i % 10}" for i, method in enumerate(methods)}
    drawn = figure(7.0, 4.5)
    axes = drawn.add_subplot()
    for method, points in found.curves.items():
        epsilons = [epsilon for epsilon, _ in points]
        means = [value.mean for _, value in points]
        halves = [value.half or 0.0 for _, value in points]
        style: dict[str, Any] = {
            "color": colours[method],
            "capsize": 4,
            "markersize": 5,
            "label": method,
        }
        axes.errorbar(epsilons, means, halves, fmt="o-", **style)
    for arm, value in found.levels.items():
        label = f"{arm}, without privacy"
        axes.axhline(value.mean, color=colours[method_of(arm)], linestyle="--", label=label)
    axes.set_xscale("log")
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}"))
    count = len(outcome.seeds)
    how = f"mean and {LEVEL:.0%} t-interval, {count} seeds" if count > 1 else "one seed"
    axes.set(
        xlabel=f"ε of a {found.unit} ({how})",
        ylabel=found.measure,
        title=f"{outcome.name}: {found.measure} against privacy",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save(drawn, path)
