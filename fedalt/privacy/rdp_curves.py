"""Rényi divergences of a mixture of Gaussians, for users with several rows in a sample.

    P = Σ_i p_i N(s_i, 1)        Q = N(0, 1)        r = dP/dQ = Σ_i p_i exp(s_i x − s_i²/2)
    (α − 1) D_α(P‖Q) = ln E_Q[r^α]        (α − 1) D_α(Q‖P) = ln E_Q[r^(1−α)]

in units of the noise, s_i = sensitivity over z (Mironov, Talwar and Zhang 2019, "Rényi
differential privacy of the sampled Gaussian mechanism", with more than one term; Ganesh 2024).
A curve is the larger of both directions. The integrals are sums at equal steps h, whose
relative error falls as exp(−2πa/h) for integrands without singularities up to a off the real
line. r has no zeros within π/2s of it, s being the largest s_i; at a = 1/(s√α) its power has
grown by less than a factor of 2. An integer power has no singularity at all. Steps are chosen
for errors below 1e-16, and windows for tails below that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]

TAIL = 9.0
"""Beyond so many standard deviations of a peak nothing counts: e^(−81/2)."""
WHOLE_STEP = 0.6
"""For integer powers: an error of e^(−2π²/h²)."""
STEPS = 40.0
"""For others 2πa/h is this."""
MOST = 1 << 20
"""More numbers at once are not laid out: such an order is left out (∞), which is sound."""


def mixture_curve(
    noise: float, sensitivities: Sequence[float], chances: Sequence[float], orders: Sequence[float]
) -> np.ndarray:
    """Return D_α (orders,), the larger of both directions, at orders above 1.

    ``sensitivities`` (at least 0) have the ``chances`` of the mixture; ``noise`` is z.
    """
    shifts, log_chances = _terms(noise, sensitivities, chances)
    if not shifts.any():
        return np.zeros(len(orders))
    return np.array([_divergence(shifts, log_chances, float(order)) for order in orders])


def _terms(
    noise: float, sensitivities: Sequence[float], chances: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    weights = np.asarray(chances, float)
    there = weights > 0.0
    return np.asarray(sensitivities, float)[there] / noise, np.log(weights[there])


def _divergence(shifts: np.ndarray, log_chances: np.ndarray, order: float) -> float:
    largest = float(shifts.max())
    fine = 2.0 * math.pi / STEPS * min(1.0, 1.0 / (largest * math.sqrt(order)))
    # Of r^α every peak lies between 0 and α·s, and none is narrower than the noise.
    step = WHOLE_STEP if order == int(order) else fine
    ahead = _log_mean(shifts, log_chances, order, (-TAIL, order * largest + TAIL), step)
    # r^(1−α) times a Gaussian is log-concave: one peak, no wider than the noise.
    peak = _peak(shifts, log_chances, order)
    back = _log_mean(shifts, log_chances, 1.0 - order, (peak - TAIL, peak + TAIL), fine)
    return max(0.0, ahead, back) / (order - 1.0)


def _log_mean(
    shifts: np.ndarray,
    log_chances: np.ndarray,
    power: float,
    window: tuple[float, float],
    step: float,
) -> float:
    """Return ln E_Q[r^power], or ∞ where it would take too many points."""
    count = math.ceil((window[1] - window[0]) / step) + 1
    if count * len(shifts) > MOST:
        return math.inf
    x = window[0] + step * np.arange(count)
    log_density = -0.5 * x**2 - 0.5 * math.log(2.0 * math.pi)
    ratio = logsumexp(np.outer(x, shifts) + (log_chances - 0.5 * shifts**2), axis=1)
    return float(logsumexp(power * ratio + log_density) + math.log(step))


def _peak(shifts: np.ndarray, log_chances: np.ndarray, order: float) -> float:
    """Return where r^(1−α)·exp(−x²/2) is largest: x = −(α − 1) Σ_i w_i(x) s_i."""

    def slope(x: float) -> float:
        terms = log_chances + shifts * x - 0.5 * shifts**2
        weights = np.exp(terms - terms.max())
        return x + (order - 1.0) * float(weights @ shifts / weights.sum())

    return float(brentq(slope, -(order - 1.0) * float(shifts.max()) - 1.0, 1.0, xtol=1e-6))
