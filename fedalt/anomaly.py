"""Anomaly scores by distance to a subspace, and how well they separate attacks.

s(x) = ‖x̃ − U Uᵀ x̃‖²,   x̃ = (x − mean)/std,   alarm if s > threshold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.errors import DataError

FALSE_ALARM_BUDGET = 0.05
"""The false positive rate at which ``tpr_at_fpr5`` is read."""


@dataclass(frozen=True)
class SiteRows:
    """One site's normal records, raw: ``train`` (n, d) to learn from, ``holdout`` (h, d).

    ``holdout`` sets the threshold and may be empty, (0, d). Both are float64.
    """

    train: np.ndarray
    holdout: np.ndarray


def standardise(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return (rows − mean)/std; rows (n, d), mean and std (d,)."""
    standard: np.ndarray = (rows - mean) / std
    return standard


def anomaly_scores(
    rows: np.ndarray, mean: np.ndarray, std: np.ndarray, subspace: np.ndarray
) -> np.ndarray:
    """Return the squared distance (n,) of the standardised rows (n, d) to the span of U (d, k).

    The columns of ``subspace`` are orthonormalised first: an average of subspaces has none,
    and UUᵀ is then no projector.
    """
    basis, _ = np.linalg.qr(subspace)
    standard = standardise(rows, mean, std)
    # Not ‖x‖² − ‖Uᵀx‖²: that cancels to noise, even below zero, where the fit is good.
    left: np.ndarray = standard - (standard @ basis) @ basis.T
    scores: np.ndarray = np.einsum("ij,ij->i", left, left)
    return scores


def evaluate_scores(scores: np.ndarray, attack: np.ndarray, threshold: float) -> dict[str, float]:
    """Judge scores (n,) against the truth ``attack`` (n,) of bool; an alarm is s > threshold.

    Returns ``auc``, ``ap`` (average precision), ``f1``, ``precision``, ``recall``, ``fpr``
    and ``tpr_at_fpr5``, the best recall of any threshold with a false positive rate of at
    most 5 %. What is undefined is NaN: without attacks all but ``fpr``; without normal rows
    ``auc``, ``ap``, ``fpr``, ``tpr_at_fpr5``; without alarms ``precision``. Constant scores
    give an ``auc`` of 0.5. Raises :class:`DataError` for scores that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    attack = np.asarray(attack, dtype=bool)
    if scores.shape != attack.shape or scores.ndim != 1:
        raise DataError(f"{scores.shape} scores do not fit {attack.shape} labels")
    if not np.isfinite(scores).all():
        raise DataError(f"{int((~np.isfinite(scores)).sum())} scores are NaN or infinite")
    alarm = scores > threshold
    hits = float((alarm & attack).sum())
    false = float((alarm & ~attack).sum())
    attacks, normals = float(attack.sum()), float((~attack).sum())
    both = attacks > 0 and normals > 0
    # Imported here: it costs a second or two, and a plan judges nothing.
    from sklearn import metrics  # type: ignore[import-untyped]

    return {
        "auc": float(metrics.roc_auc_score(attack, scores)) if both else np.nan,
        "ap": float(metrics.average_precision_score(attack, scores)) if both else np.nan,
        "f1": 2.0 * hits / (hits + false + attacks) if attacks else np.nan,
        "precision": _share(hits, hits + false) if attacks else np.nan,
        "recall": _share(hits, attacks),
        "fpr": _share(false, normals),
        "tpr_at_fpr5": _recall_within(scores, attack, FALSE_ALARM_BUDGET) if both else np.nan,
    }


def family_recall(
    scores: np.ndarray, families: Sequence[str], threshold: float
) -> dict[str, float]:
    """Return the share of alarms per family; ``families`` names one for every row, '' for none."""
    alarm = np.asarray(scores) > threshold
    names = np.asarray(families, dtype=str)
    return {str(name): float(alarm[names == name].mean()) for name in np.unique(names) if str(name)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def _recall_within(scores: np.ndarray, attack: np.ndarray, budget: float) -> float:
    """Return the largest recall whose false positive rate stays within the budget."""
    from sklearn.metrics import roc_curve  # type: ignore[import-untyped]

    fpr, tpr, _ = roc_curve(attack, scores, drop_intermediate=False)
    return float(tpr[fpr <= budget].max())
