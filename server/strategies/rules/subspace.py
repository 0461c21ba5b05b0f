"""The server's half of federated PCA.

Nguyen et al., "Federated PCA on Grassmann manifold for anomaly detection in IoT networks"
(INFOCOM 2023, arXiv 2212.12121), and two exact references:

    consensus       M = Σ w_i (U_i + Y_i/ρ);   Z = polar(M) (Grassmann) or M (Euclidean)
    orthonormal     Z = qf(Σ w_i C_i Z)                      power iteration
    top_eigenspace  C = Σ w_i C_i;   Z = its k leading eigenvectors

Under partial participation the mean over a round's participants is a moving target: each
round is pulled to other sites, and Σ w_i Y_i = 0 no longer holds. With ``table`` the server
keeps the last M_i and n_i of every client it has heard and averages all of them. A client
never heard is left out: its M_i would be Z⁰ and its n_i is unknown. The table costs
(number of sites)·d·k numbers, replaced as a whole each round so that a failed round leaves
the former one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedalt import manifold
from fedalt.errors import ConfigError, nearest
from fedalt.server.strategies.rules.base import Aggregate, Contribution, RuleContext
from fedalt.server.strategies.rules.mean import replies, weighted_mean, weights_of

MANIFOLDS = ("grassmann", "euclidean")


def consensus(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Set ``subspace`` (d, k) to the consensus Z of the clients' messages M_i.

    Params: ``manifold`` (``grassmann`` or ``euclidean``) and ``table`` (default false).
    Metrics: ``shift`` ‖Z − Z_prev‖/√k, ``heard`` (number of clients averaged), and
    ``dual_residual`` ρ‖Z − Z_prev‖/√k where ρ is known here: as ``params.penalty``, or as
    the metric ``penalty`` that the clients report.
    """
    geometry = str(ctx.phase.params.get("manifold", MANIFOLDS[0]))
    if geometry not in MANIFOLDS:
        raise ConfigError(
            f"phase '{ctx.phase.name}': params.manifold is '{geometry}'"
            f"{nearest(geometry, MANIFOLDS)}"
        )
    pool = contributions
    if ctx.phase.params.get("table", False):
        pool = _whole_table(ctx, contributions)
    average = weighted_mean("subspace", ctx, pool)
    center = average
    if geometry == "grassmann":
        center = manifold.polar(torch.from_numpy(average)).numpy()
    previous = ctx.current["subspace"]
    shift = float(np.linalg.norm(center - previous)) / previous.shape[1] ** 0.5
    metrics = {"shift": shift, "heard": float(len(pool))}
    penalty = _penalty(ctx)
    if penalty is not None:
        metrics["dual_residual"] = penalty * shift
    return Aggregate({"subspace": center}, metrics)


def orthonormal(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Set ``subspace`` to qf(Σ w_i C_i Z); metric ``shift`` as in :func:`consensus`."""
    image = weighted_mean("subspace", ctx, contributions)
    center = manifold.qf(torch.from_numpy(image)).numpy()
    previous = ctx.current["subspace"]
    shift = float(np.linalg.norm(center - previous)) / previous.shape[1] ** 0.5
    return Aggregate({"subspace": center}, {"shift": shift})


def top_eigenspace(ctx: RuleContext, contributions: Sequence[Contribution]) -> Aggregate:
    """Set ``covariance`` to Σ w_i C_i and ``subspace``, of the same block, to its eigenvectors.

    Metrics: ``explained``, the share of the spread inside the subspace, and ``gap``,
    (λ_k − λ_{k+1})/λ_1: where it vanishes the subspace is not determined, only its residual.
    """
    if "subspace" not in ctx.current:
        raise ConfigError(
            f"phase '{ctx.phase.name}': rule 'top_eigenspace' sets 'subspace', which the block "
            f"with {sorted(ctx.current)} does not hold; put both in one block"
        )
    average = weighted_mean("covariance", ctx, contributions)
    covariance = (average + average.T) / 2.0
    rank = ctx.current["subspace"].shape[1]
    subspace = manifold.top_eigenspace(torch.from_numpy(covariance), rank).numpy()
    spectrum = np.linalg.eigvalsh(covariance)[::-1]
    following = spectrum[rank] if rank < len(spectrum) else 0.0
    metrics = {
        "explained": float(spectrum[:rank].sum() / spectrum.sum()),
        "gap": float((spectrum[rank - 1] - following) / spectrum[0]),
    }
    return Aggregate({"covariance": covariance, "subspace": subspace}, metrics)


def _whole_table(ctx: RuleContext, contributions: Sequence[Contribution]) -> list[Contribution]:
    """Enter this round's messages into the table and return every client heard, by site."""
    fresh = replies("subspace", ctx, contributions)
    weights_of(contributions)  # refuses a weight that would stay in the table for good
    if "messages" in ctx.state:
        messages, counts = ctx.state["messages"].copy(), ctx.state["counts"].copy()
    else:
        messages = np.zeros((len(ctx.sites), *ctx.current["subspace"].shape))
        counts = np.zeros(len(ctx.sites))
    for reply, message in zip(contributions, fresh, strict=True):
        messages[reply.site], counts[reply.site] = message, reply.weight
    ctx.state["messages"], ctx.state["counts"] = messages, counts
    return [
        Contribution(int(site), float(counts[site]), {"subspace": messages[site]})
        for site in np.flatnonzero(counts)
    ]


def _penalty(ctx: RuleContext) -> float | None:
    if "penalty" in ctx.phase.params:
        return float(ctx.phase.params["penalty"])
    return ctx.metrics.get("penalty")
