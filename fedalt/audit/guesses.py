"""Guesses of one run: how many canaries a reader of the release tells apart, and how many rightly.

Each canary was in with probability ½. The reader ranks them by score and guesses the highest as
in and the lowest as out, and says nothing about the others. How many to guess is not known in
advance, so a few numbers are tried, and every test is held to its share of the significance
(Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Which shares of the canaries are guessed, each as a test of its own."""


@dataclass(frozen=True)
class Guesses:
    """``right`` of ``made`` guesses about ``canaries`` canaries."""

    canaries: int
    made: int
    right: int


def read_scores(
    scores_in: np.ndarray, scores_out: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (m,) and who was in (m,), in an order that tells nothing.

    Raises :class:`ConfigError` for scores that are no vectors of numbers.
    """
    both = [np.asarray(scores, np.float64) for scores in (scores_in, scores_out)]
    for scores, name in zip(both, ("in", "out"), strict=True):
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise ConfigError(
                f"audit: the scores of canaries that were {name} must be a vector of finite "
                f"numbers, not {scores.shape}"
            )
    scores = np.concatenate(both)
    member = np.arange(len(scores)) < len(both[0])
    # Equal scores are ranked by place, which must not say who was in.
    order = rng.permutation(len(scores))
    return scores[order], member[order]


def guess(scores: np.ndarray, member: np.ndarray) -> list[Guesses]:
    """Return the guesses of each number tried; scores (m,) and who was in (m,) correspond."""
    ranked = member[np.argsort(scores, kind="stable")]
    count = len(ranked)
    numbers = sorted({min(count // 2, max(1, round(share * count / 2))) for share in SHARES})
    return [
        Guesses(count, 2 * each, int((~ranked[:each]).sum() + ranked[-each:].sum()))
        for each in numbers
        if each
    ]
