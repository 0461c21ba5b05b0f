"""Rules that pool statistics of sites exactly.

    mean  = Σ w_i m_i                                w_i = n_i/n
    var   = Σ w_i [ s_i² + (m_i − mean)² ]           within plus *between* sites
    τ     = the q-quantile of the summed histograms

The form of the variance is that of Chan, Golub, LeVeque, "Algorithms for computing the
sample variance" (1983): no difference of large squares. Leaving out the second term erases
the shift between sites, and with it most of what tells an attack from a normal record.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedalt.errors import ConfigError
from fedalt.server.strategies.rules.base import Aggregate, Contribution, RuleContext
from fedalt.server.strategies.rules.mean import replies, total, weighted_mean, weights_of
from fedalt.sketch import SCORE_BINS


def pooled_moments(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Pool ``scaler/mean`` and ``scaler/std`` (d,) as if all rows were in one place.

    A column that is constant up to rounding gets std 1, as in scikit-learn's StandardScaler.
    Metric ``constant``: how many there are.
    """
    weights = weights_of(contributions)
    means = np.stack(replies("scaler/mean", ctx, contributions)).astype(np.float64)
    stds = np.stack(replies("scaler/std", ctx, contributions)).astype(np.float64)
    mean = weighted_mean("scaler/mean", ctx, contributions)
    variance = np.einsum("i,id->d", weights, np.square(stds) + np.square(means - mean))
    rows, eps = sum(reply.weight for reply in contributions), np.finfo(np.float64).eps
    # The rounding error that a variance over that many rows may carry.
    constant = variance <= rows * eps * variance + np.square(rows * mean * eps)
    std = np.where(constant, 1.0, np.sqrt(variance))
    return Aggregate({"scaler/mean": mean, "scaler/std": std}, {"constant": float(constant.sum())})


def quantile(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Sum ``histogram`` over the sites and set ``threshold`` (1,) to its quantile.

    Param ``quantile`` (default 0.95): the share of normal rows that shall raise no alarm.
    Metric ``held_out``: the number of rows counted. The counts weight themselves.
    """
    if "threshold" not in ctx.current:
        raise ConfigError(
            f"phase '{ctx.phase.name}': rule 'quantile' sets 'threshold', which the block with "
            f"{sorted(ctx.current)} does not hold; put both in one block"
        )
    histogram = total("histogram", ctx, contributions)
    level = float(ctx.phase.params.get("quantile", 0.95))
    threshold = np.array([SCORE_BINS.quantile(histogram, level)])
    return Aggregate(
        {"histogram": histogram, "threshold": threshold}, {"held_out": float(histogram.sum())}
    )
