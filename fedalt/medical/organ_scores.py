"""Scores per organ of one case, and their means per organ, modality and site.

A mean over cases leaves NaN out and comes with the number of cases behind it. A mean over
organs is the mean of the organs' means, so that an organ seen in few cases counts as one seen
in many. Distances exist only where an organ is both there and found, so they are read beside
the misses and false alarms.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, nearest
from fedalt.medical.overlap import known_organs, overlaps
from fedalt.medical.surfaces import check_spacing, surface_distances

MEASURES = ("dice", "hd95", "assd")
"""Dice in [0, 1]; HD95 and average symmetric surface distance in mm."""
Row = dict[str, str | float | int]


@dataclass(frozen=True, eq=False)
class OrganScores:
    """One case, organ by organ (K−1,): three measures with NaN where there is nothing to
    judge, and bool ``missed`` (there, not found) and ``false_alarms`` (found, not there)."""

    organs: tuple[str, ...]
    dice: np.ndarray
    hd95: np.ndarray
    assd: np.ndarray
    missed: np.ndarray
    false_alarms: np.ndarray

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self)[1:]:
            if np.shape(getattr(self, each.name)) != (len(self.organs),):
                raise ConfigError(
                    f"{each.name}: shape {np.shape(getattr(self, each.name))}, but there are "
                    f"{len(self.organs)} organs"
                )


def judge(
    prediction: ArrayLike,
    truth: ArrayLike,
    organs: Sequence[str],
    spacing: Sequence[float],
    *,
    known: ArrayLike | None = None,
    surfaces: bool = True,
) -> OrganScores:
    """Judge predicted labels (x, y[, z]) by true ones; label i+1 is ``organs[i]``.

    ``spacing`` is in mm. ``known`` (K,), background first, says which classes the case's site
    labels; the other organs are left out. Without ``surfaces`` the distances are NaN, at a
    fraction of the time. Raises DataError for labels that do not fit, ConfigError for a spacing
    or ``known`` that does not.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    check_spacing(spacing, true.ndim)
    (scores,) = judge_batch(predicted[None], true[None], organs, known=known)
    if not surfaces:
        return scores
    boxes = [ndimage.find_objects(labels.astype(int), len(organs)) for labels in (predicted, true)]
    distances = np.full((len(organs), 2), np.nan)
    for i in np.flatnonzero(np.isfinite(scores.dice) & ~scores.missed & ~scores.false_alarms):
        box = _around(boxes[0][i], boxes[1][i])
        masks = predicted[box] == i + 1, true[box] == i + 1
        distances[i] = surface_distances(*masks, spacing)
    return dataclasses.replace(scores, hd95=distances[:, 0], assd=distances[:, 1])


def judge_batch(
    prediction: ArrayLike,
    truth: ArrayLike,
    organs: Sequence[str],
    *,
    known: ArrayLike | None = None,
) -> list[OrganScores]:
    """Judge n label maps (n, x, y[, z]) by overlap alone, all in one pass; distances are NaN.

    ``known`` is (K,) or (n, K). Raises as :func:`judge`.
    """
    classes = len(organs) + 1
    counted = overlaps(prediction, truth, classes)
    judged = known_organs(known, len(counted.true), classes)
    dice = np.where(judged, counted.dice, np.nan)
    missed, false_alarms = judged & counted.missed, judged & counted.false_alarms
    nothing = np.full(len(organs), np.nan)
    return [
        OrganScores(tuple(organs), dice[i], nothing, nothing, missed[i], false_alarms[i])
        for i in range(len(dice))
    ]


def _around(one: tuple[slice, ...], two: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, two, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Case:
    """One judged case and where it comes from."""

    modality: str
    site: str
    name: str
    scores: OrganScores


@dataclass
class ScoreTable:
    """Judged cases of one list of organs, and their means.

    Wherever a group is named by ``modality`` or ``site``, None takes all.
    """

    organs: tuple[str, ...]
    cases: list[Case] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.organs = tuple(self.organs)

    def add(self, scores: OrganScores, modality: str, site: str, case: str) -> None:
        """Add a case. Raises ConfigError if it was judged on other organs."""
        if scores.organs != self.organs:
            raise ConfigError(
                f"case '{case}' of site '{site}': judged on {', '.join(scores.organs)}, but the "
                f"table holds {', '.join(self.organs)}"
            )
        self.cases.append(Case(modality, site, case, scores))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the cases, in order of their names."""
        return tuple(sorted({case.modality for case in self.cases}))

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of the cases, in order of their names."""
        return tuple(sorted({case.site for case in self.cases}))

    @property
    def groups(self) -> list[tuple[str | None, str | None]]:
        """All cases, then each modality and its sites, as (modality, site); None is all."""
        found: list[tuple[str | None, str | None]] = [(None, None)] if self.cases else []
        for modality in self.modalities:
            sites = {case.site for case in self.cases if case.modality == modality}
            found += [(modality, None), *((modality, site) for site in sorted(sites))]
        return found

    def values(
        self, measure: str, modality: str | None = None, site: str | None = None
    ) -> np.ndarray:
        """Return a measure (cases, K−1) of a group's cases; also ``missed``, ``false_alarms``."""
        known = (*MEASURES, "missed", "false_alarms")
        if measure not in known:
            raise ConfigError(f"no measure '{measure}'{nearest(measure, known)}")
        rows = [
            getattr(case.scores, measure)
            for case in self.cases
            if modality in (None, case.modality) and site in (None, case.site)
        ]
        return np.array(rows, np.float64).reshape(len(rows), len(self.organs))

    def organ_means(
        self, measure: str, modality: str | None = None, site: str | None = None
    ) -> np.ndarray:
        """Return each organ's mean (K−1,) over the group's cases; NaN where no case has one."""
        return _mean(self.values(measure, modality, site))

    def counts(
        self, measure: str, modality: str | None = None, site: str | None = None
    ) -> np.ndarray:
        """Return how many of the group's cases (K−1,) stand behind each organ's mean."""
        return np.asarray(np.isfinite(self.values(measure, modality, site)).sum(axis=0))

    def mean(
        self,
        measure: str,
        organ: str | None = None,
        modality: str | None = None,
        site: str | None = None,
    ) -> float:
        """Return one organ's mean over cases, or without one the mean over organs of these."""
        means = self.organ_means(measure, modality, site)
        if organ is None:
            return float(_mean(means))
        if organ not in self.organs:
            raise ConfigError(f"no organ '{organ}'{nearest(organ, self.organs)}")
        return float(means[self.organs.index(organ)])

    def rows(self) -> list[Row]:
        """Return a row a group and organ: first all, then each modality, site by modality.

        ``organ`` is ``mean`` in a group's first row. Each measure comes with ``…_cases``, the
        finite values behind it; ``missed`` and ``false_alarms`` are counts.
        """
        found: list[Row] = []
        for modality, site in self.groups:
            values = {m: self.values(m, modality, site) for m in MEASURES}
            events = {
                e: self.values(e, modality, site).sum(axis=0).astype(int)
                for e in ("missed", "false_alarms")
            }
            for i, organ in enumerate(("mean", *self.organs)):
                here = slice(None) if organ == "mean" else slice(i - 1, i)
                row: Row = {"modality": modality or "all", "site": site or "all", "organ": organ}
                for measure, each in values.items():
                    row[measure] = float(_mean(_mean(each[:, here])))
                    row[f"{measure}_cases"] = int(np.isfinite(each[:, here]).sum())
                row |= {event: int(each[here].sum()) for event, each in events.items()}
                found.append(row)
        return found

    def case_rows(self) -> list[Row]:
        """Return a row a case and organ, with NaN where there is nothing to judge."""
        return [
            {"modality": case.modality, "site": case.site, "case": case.name, "organ": organ}
            | {measure: float(getattr(case.scores, measure)[i]) for measure in MEASURES}
            | {e: int(getattr(case.scores, e)[i]) for e in ("missed", "false_alarms")}
            for case in self.cases
            for i, organ in enumerate(self.organs)
        ]

    def to_csv(self, path: Path, *, cases: bool = False) -> Path:
        """Write :meth:`rows`, or with ``cases`` :meth:`case_rows`; an empty cell is NaN."""
        rows = self.case_rows() if cases else self.rows()
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
            writer.writeheader()
            for row in rows:
                writer.writerow({k: "" if v != v else v for k, v in row.items()})
        return path

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the finite means by name, those that are NaN left out.

        ``dice`` (all modalities together), ``dice/ct``, ``dice/ct/liver``,
        ``dice/site/<site>``, and so for the other measures; ``missed/ct`` and
        ``false_alarms/ct`` are counts. ``prefix`` is put before each, with a slash.
        """
        found = {}
        for measure in MEASURES:
            found[measure] = self.mean(measure)
            for modality in self.modalities:
                means = self.organ_means(measure, modality)
                found[f"{measure}/{modality}"] = float(_mean(means))
                for organ, value in zip(self.organs, means, strict=True):
                    found[f"{measure}/{modality}/{organ}"] = float(value)
            for site in self.sites:
                found[f"{measure}/site/{site}"] = self.mean(measure, site=site)
        for event in ("missed", "false_alarms"):
            for modality in self.modalities:
                found[f"{event}/{modality}"] = float(self.values(event, modality).sum())
        start = f"{prefix}/" if prefix else ""
        return {start + name: value for name, value in found.items() if np.isfinite(value)}


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is finite, NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
