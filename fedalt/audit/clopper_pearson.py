"""A lower bound on ε from the rates of a membership test, by Clopper and Pearson's intervals.

Jagielski, Ullman and Oprea 2020, "Auditing differentially private machine learning". Of canaries
above a threshold, (ε, δ) asks TPR ≤ e^ε·FPR + δ and, the other way, TNR ≤ e^ε·FNR + δ, so

    ε ≥ log((TPR − δ)/FPR)   and   ε ≥ log((TNR − δ)/FNR),

with each rate at the unfavourable end of an exact one-sided interval at half the significance.
The threshold and the direction are chosen on one half of the canaries and tested on the other,
so that the choice costs no significance. Canaries of one run are treated as independent, which
the other two bounds need not assume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Rule:
    """Canaries at or above ``threshold`` count as in; ``above`` says which side is the test's."""

    threshold: float
    above: bool


def upper(count: np.ndarray, of: int, significance: float) -> np.ndarray:
    """Return the exact upper end of a rate of ``count`` in ``of`` trials."""
    count = np.asarray(count)
    inside = np.minimum(count, of - 1)
    return np.where(count < of, beta.ppf(1 - significance, inside + 1, of - inside), 1.0)


def lower(count: np.ndarray, of: int, significance: float) -> np.ndarray:
    """Return the exact lower end of a rate."""
    return 1.0 - upper(of - np.asarray(count), of, significance)


def bounds_at(
    thresholds: np.ndarray,
    scores: np.ndarray,
    member: np.ndarray,
    delta: float,
    significance: float,
) -> np.ndarray:
    """Return ε at each threshold (t,), in both directions (2, t): above, below."""
    inside, outside = np.sort(scores[member]), np.sort(scores[~member])
    missed = np.searchsorted(inside, thresholds, side="left")
    cleared = np.searchsorted(outside, thresholds, side="left")
    half = significance / 2
    fnr, tnr = upper(missed, len(inside), half), lower(cleared, len(outside), half)
    fpr = upper(len(outside) - cleared, len(outside), half)
    tpr = lower(len(inside) - missed, len(inside), half)
    ratio = np.stack([(tpr - delta) / fpr, (tnr - delta) / fnr])
    bounds: np.ndarray = np.log(np.maximum(ratio, 1.0))
    return bounds


def clopper_pearson_bound(
    scores: np.ndarray,
    member: np.ndarray,
    delta: float,
    significance: float,
    rng: np.random.Generator,
) -> float:
    """Return the bound of a threshold chosen on half of the canaries and tested on the others."""
    first = rng.permutation(len(scores)) < len(scores) // 2
    halves = [(scores[part], member[part]) for part in (first, ~first)]
    if any(not chosen.any() or chosen.all() for _, chosen in halves):
        return 0.0
    rule = _choose(*halves[0], delta, significance)
    found = bounds_at(np.asarray([rule.threshold]), *halves[1], delta, significance)
    return float(found[0 if rule.above else 1, 0])


def _choose(scores: np.ndarray, member: np.ndarray, delta: float, significance: float) -> Rule:
    thresholds = np.unique(scores)
    found = bounds_at(thresholds, scores, member, delta, significance)
    side, place = np.unravel_index(int(found.argmax()), found.shape)
    return Rule(float(thresholds[place]), side == 0)
