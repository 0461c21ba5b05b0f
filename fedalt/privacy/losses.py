"""Privacy loss distributions of a history, composed from those of its mechanisms.

A user with several rows in a sample is a mixture P = Σ_i p_i N(s_i, 1) against Q = N(0, 1) in
units of the noise (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD with sampling via
mixture of Gaussians mechanisms"). Its hockey-stick divergences

    removed:  δ(ε) = P(x > c) − e^ε Q(x > c),    L(c) = ε
    added:    δ(ε) = Q(x < c) − e^ε P(x < c),    L(c) = −ε
    with the loss L(x) = ln Σ_i p_i exp(s_i x − s_i²/2)

are laid out by the points that they join (Doroshenko et al. 2022, "Connect the dots"). The
cutoffs c are found for a whole grid at once: dp-accounting looks for them one by one, which took
minutes where this takes a second. All else is dp-accounting's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import dp_accounting as dp
import numpy as np
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as distributions
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import log_ndtr, logsumexp, ndtr, ndtri_exp  # type: ignore[import-untyped]

LOG_TAIL = -50.0
"""The logarithm of what is counted as lost altogether, on either side."""
CHUNK = 1 << 20


def loss_distribution(event: dp.DpEvent, relation: Any, interval: float) -> Any:
    """Return the loss distribution of one mechanism, or None where there is none.

    ``relation`` is dp-accounting's; losses are laid out in steps of ``interval``.
    """
    noise, rate = event, 1.0
    if isinstance(event, dp.PoissonSampledDpEvent):
        noise, rate = event.event, event.sampling_probability
    if isinstance(noise, dp.GaussianDpEvent):
        return distributions.from_gaussian_mechanism(
            standard_deviation=noise.noise_multiplier,
            value_discretization_interval=interval,
            sampling_prob=rate,
            neighboring_relation=relation,
        )
    if relation == dp.NeighboringRelation.REPLACE_ONE:
        return None
    if isinstance(event, MixtureOfGaussiansDpEvent):
        return _mixture(event, interval)
    return None


def _mixture(event: MixtureOfGaussiansDpEvent, interval: float) -> Any:
    weights = np.asarray(event.sampling_probs, float)
    there = weights > 0.0
    mixture = _Mixture(
        np.asarray(event.sensitivities, float)[there] / event.standard_deviation,
        np.log(weights[there]),
    )
    low, high = float(ndtri_exp(LOG_TAIL)), mixture.highest()
    first, last = _grid(mixture.loss(low), mixture.loss(high), interval)
    removed = _pmf(interval, first, last, mixture.removed(interval * np.arange(first, last + 1)))
    first, last = _grid(-mixture.loss(-low), -mixture.loss(low), interval)
    added = _pmf(interval, first, last, mixture.added(interval * np.arange(first, last + 1)))
    return distributions.PrivacyLossDistribution(removed, added)


def _grid(least: float, most: float, interval: float) -> tuple[int, int]:
    return math.floor(least / interval), math.ceil(most / interval)


def _pmf(interval: float, first: int, last: int, deltas: np.ndarray) -> Any:
    # Rounding may leave a δ a hair below its successor's.
    falling = np.maximum.accumulate(np.clip(deltas, 0.0, 1.0)[::-1])[::-1]
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, first, last, falling)


class _Mixture:
    """Σ_i p_i N(s_i, 1) against N(0, 1): its losses, their inverse and its divergences."""

    def __init__(self, shifts: np.ndarray, log_chances: np.ndarray) -> None:
        moved = shifts > 0.0
        self.shifts, self.log_chances = shifts, log_chances
        self.moved, self.constants = shifts[moved], (log_chances - 0.5 * shifts**2)[moved]
        self.still = float(np.exp(log_chances[~moved]).sum())

    def loss(self, x: float) -> float:
        """Return L(x)."""
        return float(logsumexp(self.shifts * x + self.log_chances - 0.5 * self.shifts**2))

    def highest(self) -> float:
        """Return the x above which P has next to nothing."""

        def excess(x: float) -> float:
            return float(logsumexp(self.log_chances + log_ndtr(self.shifts - x))) - LOG_TAIL

        reach = -float(ndtri_exp(LOG_TAIL)) + 1.0
        return float(brentq(excess, -reach, reach + float(self.shifts.max()), xtol=1e-6))

    def removed(self, epsilons: np.ndarray) -> np.ndarray:
        """Return the divergence of P from Q at every ε."""
        deltas: np.ndarray = -np.expm1(epsilons)
        # At or below ln p_0 every outcome has a larger loss.
        some = np.exp(epsilons) > self.still
        cut = self.inverse(epsilons[some])
        deltas[some] = self._over_terms(-cut, 1.0) - np.exp(epsilons[some] + log_ndtr(-cut))
        return deltas

    def added(self, epsilons: np.ndarray) -> np.ndarray:
        """Return the divergence of Q from P at every ε."""
        deltas = np.zeros_like(epsilons)
        some = np.exp(-epsilons) > self.still
        cut = self.inverse(-epsilons[some])
        deltas[some] = ndtr(cut) - np.exp(epsilons[some]) * self._over_terms(cut, -1.0)
        return deltas

    def _over_terms(self, x: np.ndarray, sign: float) -> np.ndarray:
        """Return Σ_i p_i Φ(x ± s_i)."""
        total = np.zeros_like(x)
        for shift, log_chance in zip(self.shifts, self.log_chances, strict=True):
            total += math.exp(log_chance) * ndtr(x + sign * shift)
        return total

    def inverse(self, losses: np.ndarray) -> np.ndarray:
        """Return the x of every loss (n,), all above ln p_0."""
        if not losses.size:
            return losses.copy()
        width = max(1, CHUNK // len(self.moved))
        parts: Sequence[np.ndarray] = np.array_split(losses, math.ceil(losses.size / width))
        return np.concatenate([self._inverse(part) for part in parts])

    def _inverse(self, losses: np.ndarray) -> np.ndarray:
        """Solve ln Σ_{s_i>0} p_i exp(s_i x − s_i²/2) = ln(e^ε − p_0) by Newton's method.

        The left side is convex and rises: from the right, no step goes too far.
        """
        wanted = losses + np.log1p(-self.still * np.exp(-losses)) if self.still else losses
        x: np.ndarray = np.min((wanted[:, None] - self.constants) / self.moved, axis=1)
        for _ in range(100):
            terms = np.outer(x, self.moved) + self.constants
            top = terms.max(axis=1)
            weights = np.exp(terms - top[:, None])
            total = weights.sum(axis=1)
            step = (top + np.log(total) - wanted) / (weights @ self.moved / total)
            x -= step
            if np.all(np.abs(step) <= 1e-12 * (1.0 + np.abs(x))):
                break
        return x
