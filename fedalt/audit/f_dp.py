"""A sharper bound from the same guesses, where the noise is Gaussian.

Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-differential privacy in one run". A mechanism
with the trade-off of two Gaussians at distance μ lets a set of probability r grow to at most
Φ(Φ⁻¹(r) + μ). If c of c' guesses about m canaries were right or worse with probability τ, then

    r_c = τc/m,   h_c = τ(c'−c)/m,
    h_i = max(h_{i+1}, Φ(Φ⁻¹(r_{i+1}) − μ)),   r_i = r_{i+1} + i/(c'−i) · (h_i − h_{i+1}),

for i = c−1 … 0, and r_0 + h_0 ≤ c'/m. Where that fails at τ = significance, μ is refuted. The
bound is the ε at δ of the largest such μ (Dong, Roth and Su 2019, "Gaussian differential
privacy"): it refutes a claim of Gaussian noise, also of compositions and samples of it, whose
trade-off lies above that of the Gaussian with the same (ε, δ) wherever canaries can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import log_ndtr, ndtr, ndtri  # type: ignore[import-untyped]

from fedalt.audit.guesses import Guesses
from fedalt.audit.one_run import largest_refuted


def refutes(guesses: Guesses, mu: float, significance: float) -> bool:
    """Say whether guesses are too good, at a significance, for Gaussians at distance μ."""
    m, made, right = guesses.canaries, guesses.made, guesses.right
    r, h = significance * right / m, significance * (made - right) / m
    for i in range(right - 1, -1, -1):
        grown = float(ndtr(ndtri(min(r, 1.0)) - mu))
        if grown <= h:
            # Neither changes from here on.
            break
        r, h = r + i / (made - i) * (grown - h), grown
    return r + h > made / m


def f_dp_bound(guesses: Sequence[Guesses], delta: float, significance: float) -> float:
    """Return the ε at δ > 0 of the largest μ refuted, each test at its share of significance."""
    share = significance / max(1, len(guesses))
    found = [largest_refuted(lambda mu, made=made: refutes(made, mu, share)) for made in guesses]  # type: ignore[misc]
    return epsilon_of(max(found, default=0.0), delta)


def delta_of(mu: float, epsilon: float) -> float:
    """Return δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2) of Gaussians at distance μ > 0."""
    first = log_ndtr(-epsilon / mu + mu / 2)
    second = epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(math.exp(first) * -math.expm1(min(0.0, second - first)))


def epsilon_of(mu: float, delta: float) -> float:
    """Return the ε at δ of Gaussians at distance μ; 0 where μ is."""
    if mu <= 0.0:
        return 0.0
    return largest_refuted(lambda epsilon: delta_of(mu, epsilon) > delta, limit=1e6)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the distance of Gaussians that are (ε, δ)-private and no better."""
    return largest_refuted(lambda mu: mu <= 0.0 or delta_of(mu, epsilon) <= delta, limit=1e3)
