"""Gaussian noise for a clipped sum, block by block.

    σ_b = z·C_b        1/z_joint² = Σ_b (C_b/σ_b)² = B/z²        Δ = ‖(C_b)_b‖₂

(Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A; blocks
that one round releases together as in Balle and Wang 2018, "Improving the Gaussian mechanism
for differential privacy"). Where blocks have bounds of their own, one sensitivity Δ and one
standard deviation, the root mean square of the σ_b, stand for all: their ratio is z_joint.
Noise is float64; that its last bits could tell something of the sum (Mironov 2012, "On
significance of the least significant bits for differential privacy") is not guarded against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fedalt.privacy.clipping import Bounded


def joint_multiplier(multiplier: float, groups: Sequence[Bounded]) -> float:
    """Return the noise multiplier of all groups together, each with ``multiplier`` z."""
    return multiplier / math.sqrt(len(groups))


def joint_sensitivity(groups: Sequence[Bounded]) -> float:
    """Return how far, in L2, one contribution can move all groups together."""
    return math.hypot(*(group.bound for group in groups))


def joint_deviation(multiplier: float, groups: Sequence[Bounded]) -> float:
    """Return the standard deviation that stands for all groups': z_joint times Δ."""
    return joint_multiplier(multiplier, groups) * joint_sensitivity(groups)


def gaussian_noise(
    like: Mapping[str, np.ndarray],
    groups: Sequence[Bounded],
    multiplier: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw N(0, (z·C_b)²) for every number of every array, in the arrays' order."""
    deviation = {name: multiplier * group.bound for group in groups for name in group.arrays}
    return {
        name: rng.normal(0.0, deviation[name], np.shape(values)) for name, values in like.items()
    }
