"""The audit of one run: a lower bound on ε from guesses about canaries.

Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run". Of m canaries,
each in with probability ½ on its own, r are guessed and v of these rightly. Under (ε, δ) with
q = e^ε/(1+e^ε),

    β = P[Bin(r, q) ≥ v],   a = max_{1≤i≤v} (P[Bin(r, q) ≥ v−i] − β)/i,   p = min(1, β + 2mδa),

so that every ε with p at most the significance is refuted. The bound is the largest of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit  # type: ignore[import-untyped]
from scipy.stats import binom  # type: ignore[import-untyped]

from fedalt.audit.guesses import Guesses

_LIMIT = 64.0
"""No number of canaries refutes a larger ε."""
_STEPS = 50


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return the chance, at most, of so many right guesses under (ε, δ)."""
    r, v, q = guesses.made, guesses.right, expit(epsilon)
    beta = float(binom.sf(v - 1, r, q))
    if not delta or not v:
        return beta
    i = np.arange(1, v + 1)
    slope = float(np.max((binom.sf(v - i - 1, r, q) - beta) / i))
    return min(1.0, beta + 2 * guesses.canaries * delta * slope)


def largest_refuted(refuted: Callable[[float], bool], limit: float = _LIMIT) -> float:
    """Return the largest value up to which a claim is refuted, from below; 0 where none is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 0.25
    while high < limit and refuted(high):
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def one_run_bound(guesses: Sequence[Guesses], delta: float, significance: float) -> float:
    """Return the largest ε that some of the tests refutes, each at its share of significance."""
    share = significance / max(1, len(guesses))
    found = [
        largest_refuted(lambda epsilon, made=made: p_value(made, epsilon, delta) <= share)  # type: ignore[misc]
        for made in guesses
    ]
    return max(found, default=0.0)
