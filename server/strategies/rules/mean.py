"""Rules for any block: mean, median, sum and keep.

    mean   Σ n_i x_i / Σ n_i        median   elementwise, unweighted
    sum    Σ x_i                    keep     the block as it is

Sums run over the replies in their order (by site) in float64, so that a result depends
neither on which reply came first nor on the cohort's size; the array keeps its own dtype.
The mean is that of McMahan et al., "Communication-efficient learning of deep networks from
decentralized data" (AISTATS 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedalt.errors import AdmissionError
from fedalt.server.strategies.rules.base import Aggregate, Contribution, RuleContext
from fedalt.server.strategies.rules.reduce import middle, ordered_sum


def mean(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Average every array of the block, weighted by the number of examples."""
    weights = weights_of(contributions)
    return Aggregate(
        {
            name: cast_like(ordered_sum(replies(name, ctx, contributions), weights), old)
            for name, old in ctx.current.items()
        }
    )


def median(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Take the median over the clients, element by element, whatever their weights."""
    return Aggregate(
        {
            name: cast_like(middle(np.stack(replies(name, ctx, contributions))), old)
            for name, old in ctx.current.items()
        }
    )


def sum_(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Add every array of the block over the clients, unweighted: for counts and gradients."""
    return Aggregate(
        {name: cast_like(total(name, ctx, contributions), old) for name, old in ctx.current.items()}
    )


def keep(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Leave the block as it is."""
    return Aggregate({})


def weights_of(contributions: Sequence[Contribution]) -> np.ndarray:
    """Return the weights n_i / Σ n_i of the replies.

    Raises :class:`AdmissionError` if there are none, or if they are not numbers of examples.
    """
    counts = np.array([reply.weight for reply in contributions], dtype=np.float64)
    if not (np.isfinite(counts).all() and (counts >= 0.0).all() and counts.sum() > 0.0):
        raise AdmissionError(
            f"the numbers of examples {counts.tolist()} of sites "
            f"{[reply.site for reply in contributions]} cannot weight a mean; they must be finite "
            "and not negative, and one of them positive"
        )
    weights: np.ndarray = counts / counts.sum()
    return weights


def weighted_mean(name: str, ctx: RuleContext, contributions: Sequence[Contribution]) -> np.ndarray:
    """Return Σ w_i x_i of one array in float64."""
    return ordered_sum(replies(name, ctx, contributions), weights_of(contributions))


def total(name: str, ctx: RuleContext, contributions: Sequence[Contribution]) -> np.ndarray:
    """Return Σ x_i of one array in float64."""
    return ordered_sum(replies(name, ctx, contributions))


def replies(name: str, ctx: RuleContext, contributions: Sequence[Contribution]) -> list[np.ndarray]:
    """Return one array of every reply, checked: numpy would broadcast a wrong shape in silence."""
    shape = ctx.current[name].shape
    for reply in contributions:
        if name not in reply.arrays:
            raise AdmissionError(f"site {reply.site}: the reply lacks the array '{name}'")
        if reply.arrays[name].shape != shape:
            raise AdmissionError(
                f"site {reply.site}: array '{name}' has shape {reply.arrays[name].shape}, "
                f"the round expects {shape}"
            )
    if not contributions:
        raise AdmissionError(f"no replies to aggregate for the array '{name}'")
    return [reply.arrays[name] for reply in contributions]


def cast_like(array: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Return ``array`` in the dtype of ``old``; whole numbers are rounded, not cut."""
    if np.issubdtype(old.dtype, np.floating):
        return np.asarray(array, dtype=old.dtype)
    rounded: np.ndarray = np.rint(array).astype(old.dtype)
    return rounded
