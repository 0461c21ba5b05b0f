"""The pictures of a federated PCA report: residual by round, families, sites, spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.runs.plots import curves, figure, grouped_bars, save
from fedalt.runs.report import Table
from fedalt.scenarios.federated_pca import baselines
from fedalt.scenarios.federated_pca.task import FederatedPCA
from fedalt.task import Arrays


@dataclass(frozen=True)
class Sites:
    """Measures by site, in order of the feature that sites differ by; each (sites,).

    ``common`` and ``own`` are mean squared residuals of the site's training rows, to the
    common subspace and to the site's own; ``alarms`` is NaN without threshold or held-out rows.
    """

    order: np.ndarray
    level: np.ndarray
    common: np.ndarray
    own: np.ndarray
    alarms: np.ndarray

    @classmethod
    def of(cls, task: FederatedPCA, arrays: Arrays) -> Sites:
        """Measure a model at every site."""
        level = np.array([np.median(task.values[part]) for part in task.parts])
        order = np.argsort(level, kind="stable")
        limit = float(arrays["threshold"][0])
        common, own, alarms = [], [], []
        for site in order.tolist():
            rows = task.site_data(site)
            common.append(task.scores(arrays, rows.train).mean())
            local = {**arrays, "subspace": baselines.own_subspace(task, site)}
            own.append(task.scores(local, rows.train).mean())
            known = len(rows.holdout) and limit > 0.0
            scores = task.scores(arrays, rows.holdout) if known else np.empty(0)
            alarms.append((scores > limit).mean() if known else np.nan)
        return cls(order, level[order], np.array(common), np.array(own), np.array(alarms))


def draw_residuals(
    task: FederatedPCA, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path
) -> Path:
    """Draw the residual ratio over rounds."""
    return curves(
        series,
        path,
        "training residual / central PCA's",
        f"{task.records.name}: residual ratio by round (k = {task.rank})",
        log=True,
        reference=("central PCA", 1.0),
    )


def draw_families(task: FederatedPCA, families: Table, path: Path) -> Path:
    """Draw the share of records flagged, a bar for each family and method."""
    columns = enumerate(families.columns[2:], start=2)
    return grouped_bars(
        [f"{row[0]}\n({row[1]})" for row in families.rows],
        {name: [float(row[i] or 0.0) for row in families.rows] for i, name in columns},
        path,
        "share flagged",
        f"{task.records.name}: test records flagged, by family (records)",
    )


def draw_sites(task: FederatedPCA, sites: Sites, path: Path) -> Path:
    """Draw residual and false alarms site by site, in order of what sites differ by."""
    drawn = figure(max(8.0, 0.22 * len(sites.order)), 6.0)
    residual: Any
    alarms: Any
    residual, alarms = drawn.subplots(2, 1, sharex=True)
    places = np.arange(len(sites.order))
    residual.bar(places - 0.2, sites.common, 0.4, label="common subspace")
    residual.bar(places + 0.2, sites.own, 0.4, label="the site's own PCA")
    if sites.own.min() > 0.0:
        residual.set_yscale("log")
    residual.set(
        ylabel="mean squared residual",
        title=f"{task.records.name}: sites in order of their median '{task.feature}'",
    )
    residual.legend(fontsize=8)
    alarms.bar(places, np.nan_to_num(sites.alarms), 0.6, color="tab:red")
    nominal = 1.0 - baselines.QUANTILE
    alarms.axhline(nominal, color="black", linestyle="--", linewidth=1, label=f"{nominal:.0%}")
    names = [f"{site}: {level:.4g}" for site, level in zip(sites.order, sites.level, strict=True)]
    every = max(1, len(names) // 50)
    alarms.set_xticks(places[::every], names[::every], fontsize=7, rotation=90)
    alarms.set(xlabel=f"site, and its median '{task.feature}'", ylabel="false positive rate")
    if np.isnan(sites.alarms).all():
        alarms.set_title("no threshold: nothing is held out, or the run ended early", fontsize=9)
    alarms.legend(fontsize=8)
    for axes in (residual, alarms):
        axes.grid(axis="y", alpha=0.3)
    return save(drawn, path)


def draw_spectrum(task: FederatedPCA, path: Path) -> Path:
    """Draw the eigenvalues of the pooled covariance, and what k of them explain."""
    drawn = figure()
    axes: Any = drawn.add_subplot()
    values = np.maximum(task.spectrum, 1e-6 * task.spectrum[0])
    places = np.arange(1, len(values) + 1)
    axes.semilogy(places, values, marker="o", markersize=4)
    axes.axvline(task.rank + 0.5, color="black", linestyle="--", linewidth=1)
    share = task.spectrum[: task.rank].sum() / task.spectrum.sum()
    axes.set(
        xlabel="component",
        ylabel="eigenvalue of the pooled covariance",
        title=f"{task.records.name}: k = {task.rank} explain {share:.1%}, "
        f"gap (λ_k − λ_k+1)/λ_1 = {task.gap:.2g}",
    )
    axes.grid(alpha=0.3)
    return save(drawn, path)
