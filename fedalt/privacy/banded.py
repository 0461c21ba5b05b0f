"""Noise that is correlated over rounds: banded Toeplitz matrix factorisation.

    A x + A C⁻¹ z = A C⁻¹ (C x + z)        C = Toeplitz(c_0 … c_{b−1})/‖c‖,  c_k = c_{k−1}(2k−1)/2k

x are the rounds' clipped sums, A sums them up, z is fresh noise N(0, (z_m·C_clip)²). The c_k are
the first b coefficients of (1−x)^(−½), the square root of A; with columns of norm 1 a client that
takes part once in any b successive rounds costs, each time, one Gaussian of multiplier z_m, since
the columns of its rounds do not overlap. Later noise takes earlier noise back, so the model,
which is a sum over rounds, has less of it than with independent noise. (Choquette-Choo et al.
2023, "(Amplified) banded matrix factorization"; McMahan et al. 2024, "A hassle-free algorithm for
strong differential privacy in federated learning systems".)

The condition is the schedule's to keep and the ledger's to enforce: with turns closer than
:func:`min_separation` the noise hides less than is claimed. What noise was added has to be kept
for b−1 rounds, and whoever reads it can take it off again: a checkpoint of such a run is secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np


def min_separation(bands: int) -> int:
    """Return how many of a phase's rounds must lie from one turn of a client to its next."""
    return bands


@cache
def coefficients(bands: int) -> tuple[float, ...]:
    """Return the ``bands`` coefficients of a column of C, whose norm is 1."""
    column = np.ones(bands)
    for k in range(1, bands):
        column[k] = column[k - 1] * (2 * k - 1) / (2 * k)
    return tuple((column / np.linalg.norm(column)).tolist())


def inverse_coefficients(bands: int, rounds: int) -> np.ndarray:
    """Return the first column (rounds,) of C⁻¹, a lower triangular Toeplitz matrix.

    The norm of its first t entries is the noise in round t, over that of the fresh noise.
    """
    c = coefficients(bands)
    column = np.zeros(rounds)
    for t in range(rounds):
        past = sum(c[k] * column[t - k] for k in range(1, min(bands, t + 1)))
        column[t] = ((1.0 if t == 0 else 0.0) - past) / c[0]
    return column


def correlated(
    fresh: Mapping[str, np.ndarray], past: Mapping[str, np.ndarray], bands: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a round's noise w_t = (z_t − Σ_k c_k w_{t−k})/c_0, and what to keep of it.

    ``past`` holds each array's last rounds, at most b−1, the newest first: (rounds, *shape).
    The c_k fall, so that the zeros of Σ c_k x^k lie outside the unit circle and w stays bounded.
    """
    c = coefficients(bands)
    noise, kept = {}, {}
    for name, drawn in fresh.items():
        before = past.get(name, np.zeros((0, *drawn.shape)))
        taken = np.tensordot(np.asarray(c[1 : 1 + len(before)]), before, axes=1)
        noise[name] = (drawn - taken) / c[0]
        kept[name] = np.concatenate([noise[name][None], before])[: bands - 1]
    return noise, kept


def encoded_sensitivity(bands: int, turns: Sequence[int]) -> float:
    """Return ‖C u‖ for a client that moves each sum of its ``turns`` by 1, the same way.

    It is √k for k turns that lie at least :func:`min_separation` apart.
    """
    column, length = np.asarray(coefficients(bands)), max(turns, default=0) + bands
    moved = np.zeros(length)
    for turn in turns:
        moved[turn : turn + bands] += column
    return float(np.linalg.norm(moved))
