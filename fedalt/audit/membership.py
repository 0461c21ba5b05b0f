"""Membership inference: how well members are told from others where few others are accused.

Carlini et al. 2022, "Membership inference attacks from first principles": an attack is as good as
its true-positive rate at a low false-positive rate, and the area under its curve says little. A
score is a record's loss under a reference (the model before training) less its loss after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, rankdata  # type: ignore[import-untyped]

from fedalt.errors import ConfigError

LEVELS = (0.001, 0.01)
"""False-positive rates at which the true-positive rate is told."""


@dataclass(frozen=True)
class Rate:
    """A rate with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Membership:
    """An attack's true-positive rates by false-positive rate, and its area under the curve.

    ``of`` says what was told apart. ``allowed`` are the false positives that each level leaves
    among so many ``others``: 0 means that the level is finer than their number can show.
    """

    of: str
    members: int
    others: int
    rates: dict[float, Rate]
    allowed: dict[float, int]
    area: Rate


def membership(
    members: np.ndarray, others: np.ndarray, of: str = "records", confidence: float = 0.95
) -> Membership:
    """Return how well scores (n,) of members stand out from those (k,) of others.

    A threshold lets at most a level's share of the others pass. Intervals of rates are
    Clopper–Pearson's; that of the area counts as many trials as there are in the smaller group,
    which is never too narrow in variance (Birnbaum and Klose 1957). Raises :class:`ConfigError`
    where either group is empty.
    """
    inside, outside = np.asarray(members, np.float64), np.asarray(others, np.float64)
    if not len(inside) or not len(outside):
        raise ConfigError(
            f"membership inference needs members and others, not {len(inside)} and {len(outside)}"
        )
    ranked = np.sort(outside)[::-1]
    rates, allowed = {}, {}
    for level in LEVELS:
        passing = int(level * len(outside) + 1e-9)
        hits = int((inside > ranked[passing]).sum())
        rates[level], allowed[level] = interval(hits, len(inside), confidence), passing
    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)].sum()
    n, k = len(inside), len(outside)
    area = float((ranks - n * (n + 1) / 2) / (n * k))
    trials = min(n, k)
    return Membership(of, n, k, rates, allowed, interval(area * trials, trials, confidence))


def interval(count: float, of: int, confidence: float = 0.95) -> Rate:
    """Return a rate of ``count`` in ``of`` trials with its two-sided exact interval."""
    half = (1 - confidence) / 2
    low = float(beta.ppf(half, count, of - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1 - half, count + 1, of - count)) if count < of else 1.0
    return Rate(count / of, low, high)
