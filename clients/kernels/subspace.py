"""Federated PCA by consensus: FedPG on the Grassmannian, FedPE in Euclidean space.

Nguyen, Le, Tran, Nguyen, "Federated PCA on Grassmann manifold for anomaly detection in IoT
networks" (INFOCOM 2023, arXiv 2212.12121) and its extension (arXiv 2407.07421).

    min Σ w_i f_i(U_i)   s.t.  U_i = Z,  U_iᵀU_i = I ;   f_i(U) = (1/n_i)‖(I − UUᵀ)X_i‖²
    L = Σ w_i [ f_i(U_i) + <Y_i, U_i − Z> + (ρ/2)‖U_i − Z‖² ],   <A, B> = tr(AᵀB)

One round at client i, which keeps its own U_i and Y_i (at first U_i = Z, Y_i = 0):

    dual      Y ← Y + ρ(U − Z)              for the Z just received
    grassmann G = −2CU + Y + ρ(U − Z);  G ← (I − UUᵀ)G;  U ← qf(U − ηG);
              U ← U · polar(UᵀZ)                                             E times
    euclidean G = −4CU + 2CU(UᵀU) + 2UUᵀCU + Y + ρ(U − Z) + 2U max(0, T + μ(UᵀU − I));
              U ← U − ηG                                                     E times
              T ← max(0, T + μ(UᵀU − I))      with the dual step
    send      M = U + Y/ρ

The dual step waits until the client next receives Z, so that a client left out of some
rounds is consistent when it comes back. The server's half is rule ``consensus``.

The turn by polar(UᵀZ), which aligns U with Z, is not in the paper. f_i does not change when
U turns within its subspace, and the projected gradient never turns it, yet U − Z counts the
turn: what QR leaves of it in every step stays for good, and Y sums it up. Measured on the
synthetic set (20 sorted sites, 3 seeds), residual over the optimum after 60 and 160 rounds:
1.0000 and 1.0000 with it; 1.02 to 1.30 and 3.0 to 8.9 without. With it, the result does not
depend on which basis of a subspace is at hand. ``align: false`` is the paper's own step.

η = step/(2λ_max(C) + ρ), a quarter of step/(2λ_max(C) + ρ + μ + 2‖T‖) for `euclidean`. T is
the multiplier of the inequality UᵀU ≤ I as the method of multipliers has it (Nocedal and
Wright, "Numerical Optimization", section 17.3): with T ← T + μ max(0, UᵀU − I) it could only
grow, and long runs diverged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.private_statistics import (
    bounded_rows,
    checked_by,
    generator,
    hides_nobody,
    noisy_image,
    protected,
    record_spec,
    row_bound,
)
from fedalt.clients.kernels.statistics import (
    Spread,
    check_size,
    received,
    reply,
    site_rows,
    site_spread,
    tensor,
    to_numpy,
)
from fedalt.errors import ConfigError, nearest
from fedalt.manifold import align, project_tangent, qf, residual, retract

LOCAL_STEPS = 5
DUAL_SIGN = {"on": 1.0, "off": 0.0, "wrong": -1.0}
"""`off` and `wrong` exist to show what the dual variables are for."""


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of one order: ρ, μ, E, the factor on η, the dual's sign, alignment."""

    penalty: float
    orthogonality: float
    steps: int
    factor: float
    dual_sign: float
    align: bool


@dataclass(frozen=True)
class Point:
    """Where client i stands: U, Y (both (d, k)) and, for `euclidean`, T (k, k)."""

    subspace: torch.Tensor
    dual: torch.Tensor
    multiplier: torch.Tensor


LocalSteps = Callable[[Spread, Point, torch.Tensor, Settings], torch.Tensor]


@hides_nobody
def grassmann(order: Order, ctx: SiteContext) -> Work:
    """FedPG: E retracted gradient steps on the subspaces; sends M as ``subspace`` (d, k).

    ``phase.steps`` is E (default 5). Params: ``penalty`` (ρ; default the array of that name),
    ``step`` (factor on η, default 1), ``align`` (default true), ``dual`` (``on``; ``off`` and
    ``wrong`` for ablations).
    Metrics: ``objective`` f_i(Z), ``primal`` ‖U − Z‖/√k and ``dual`` ‖Y‖/√k after the steps,
    ``orthogonality`` ‖UᵀU − I‖/√k, ``penalty`` ρ.
    """
    return _round(order, ctx, _grassmann_steps)


@hides_nobody
def euclidean(order: Order, ctx: SiteContext) -> Work:
    """FedPE: as :func:`grassmann`, but U is held near orthonormal by a penalty only.

    A further param, ``orthogonality``, is μ (default ρ).
    """
    return _round(order, ctx, _euclidean_steps)


@checked_by(record_spec)
def power(order: Order, ctx: SiteContext) -> Work:
    """Send C_i Z as ``subspace`` (d, k): one power iteration, for rule ``orthonormal``.

    With record-level privacy it is C_i·qf(Z) with noise: each round is a release of its own.
    """
    center = tensor(order, "subspace")
    spec = record_spec(order.phase)
    if spec is not None:
        return _noisy_power(order, ctx, center, spec)
    spread = site_spread(order, ctx)
    check_size(order, center, spread.covariance.shape[0])
    made = {"subspace": to_numpy(spread.covariance @ center)}
    metrics = {"objective": residual(spread.covariance, center)}
    return Work(reply(order, made), spread.rows, metrics)


def _noisy_power(order: Order, ctx: SiteContext, center: torch.Tensor, spec: PrivacySpec) -> Work:
    rows = site_rows(order, ctx).train
    check_size(order, center, rows.shape[1])
    clipped = bounded_rows(
        rows, received(order, "scaler/mean"), received(order, "scaler/std"), row_bound(spec)
    )
    image = noisy_image(clipped, to_numpy(qf(center)), spec, generator(spec, ctx))
    return protected(Work(reply(order, {"subspace": image}), len(rows), {}), ctx, spec)


def _round(order: Order, ctx: SiteContext, local_steps: LocalSteps) -> Work:
    spread, center = site_spread(order, ctx), tensor(order, "subspace")
    check_size(order, center, spread.covariance.shape[0])
    settings = _settings(order)
    point = _dual_step(_last_point(order, ctx, center), center, settings)
    subspace = local_steps(spread, point, center, settings)
    _check_finite(subspace, order, ctx)
    # A dual that is switched off stays zero, so M = U.
    message = subspace + point.dual / settings.penalty
    kept = (subspace, point.dual, point.multiplier)
    ctx.state.update(zip(_names(order), map(to_numpy, kept), strict=True))
    root = subspace.shape[1] ** 0.5
    metrics = {
        "objective": residual(spread.covariance, center),
        "primal": float((subspace - center).norm()) / root,
        "dual": float(point.dual.norm()) / root,
        "orthogonality": float(_gram_excess(subspace).norm()) / root,
        "penalty": settings.penalty,
    }
    made = {"subspace": to_numpy(message)}
    return Work(reply(order, made), spread.rows, metrics, settings.steps)


def _settings(order: Order) -> Settings:
    params, where = order.phase.params, f"phase '{order.phase.name}'"
    dual = params.get("dual", "on")
    # YAML reads a bare on or off as true or false.
    dual = {True: "on", False: "off"}[dual] if isinstance(dual, bool) else str(dual)
    if dual not in DUAL_SIGN:
        raise ConfigError(f"{where}: params.dual is '{dual}'{nearest(dual, DUAL_SIGN)}")
    penalty = float(params["penalty"] if "penalty" in params else tensor(order, "penalty")[0])
    if not 0.0 < penalty < float("inf"):
        raise ConfigError(
            f"{where}: the penalty ρ is {penalty}, but must be positive; set params.penalty, or "
            "run a phase with kernel 'curvature' and rule 'median' first"
        )
    factor = float(params.get("step", 1.0))
    if not factor > 0.0:
        raise ConfigError(f"{where}: params.step is {factor}, but must be positive")
    orthogonality = float(params.get("orthogonality", penalty))
    steps = order.phase.steps or LOCAL_STEPS
    turn = bool(params.get("align", True))
    return Settings(penalty, orthogonality, steps, factor, DUAL_SIGN[dual], turn)


def _last_point(order: Order, ctx: SiteContext, center: torch.Tensor) -> Point:
    """Return U_i, Y_i, T_i as this client left them; at its first round Z, 0, 0."""
    names = _names(order)
    if names[0] not in ctx.state:
        rank = center.shape[1]
        return Point(center, torch.zeros_like(center), center.new_zeros(rank, rank))
    kept = [torch.tensor(ctx.state[name], device=order.device) for name in names]
    if kept[0].shape != center.shape:
        raise ConfigError(
            f"site {ctx.site}: keeps a subspace {tuple(kept[0].shape)} of an earlier phase, but "
            f"received {tuple(center.shape)}; one run has one k"
        )
    return Point(*kept)


def _names(order: Order) -> tuple[str, str, str]:
    """Return where U, Y, T stay at the site; each branch of a fork has a consensus of its own."""
    branch = order.phase.branch
    scope = f"consensus@{branch}" if branch else "consensus"
    return f"{scope}/subspace", f"{scope}/dual", f"{scope}/multiplier"


def _dual_step(point: Point, center: torch.Tensor, settings: Settings) -> Point:
    """Y ← Y + ρ(U − Z), and T ← max(0, T + μ(UᵀU − I)), which `grassmann` leaves at zero."""
    violation = point.subspace - center
    dual = point.dual + settings.dual_sign * settings.penalty * violation
    return Point(point.subspace, dual, _multiplier(point, point.subspace, settings))


def _grassmann_steps(
    spread: Spread, point: Point, center: torch.Tensor, settings: Settings
) -> torch.Tensor:
    length = settings.factor / (2.0 * spread.curvature + settings.penalty)
    subspace = point.subspace
    for _ in range(settings.steps):
        gradient = -2.0 * (spread.covariance @ subspace)
        gradient += point.dual + settings.penalty * (subspace - center)
        gradient = project_tangent(subspace, gradient)
        subspace = retract(subspace, -length * gradient)
        if settings.align:
            subspace = align(subspace, center)
    return subspace


def _euclidean_steps(
    spread: Spread, point: Point, center: torch.Tensor, settings: Settings
) -> torch.Tensor:
    bound = 2.0 * spread.curvature + settings.penalty + settings.orthogonality
    bound += 2.0 * float(point.multiplier.norm())
    length = 0.25 * settings.factor / bound
    subspace = point.subspace
    for _ in range(settings.steps):
        image = spread.covariance @ subspace
        pull = _multiplier(point, subspace, settings)
        gradient = -4.0 * image + 2.0 * image @ (subspace.T @ subspace)
        gradient += 2.0 * subspace @ (subspace.T @ image)
        gradient += point.dual + settings.penalty * (subspace - center)
        gradient += 2.0 * subspace @ pull
        subspace = subspace - length * gradient
    return subspace


def _multiplier(point: Point, subspace: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Return max(0, T + μ(UᵀU − I)): it shrinks again where U is within the bound."""
    shifted = point.multiplier + settings.orthogonality * _gram_excess(subspace)
    return shifted.clamp(min=0.0)


def _gram_excess(subspace: torch.Tensor) -> torch.Tensor:
    """Return UᵀU − I."""
    gram = subspace.T @ subspace
    gram.diagonal().sub_(1.0)
    return gram


def _check_finite(subspace: torch.Tensor, order: Order, ctx: SiteContext) -> None:
    if not bool(torch.isfinite(subspace).all()):
        raise ConfigError(
            f"site {ctx.site}: phase '{order.phase.name}' diverged in kernel "
            f"'{order.phase.kernel}'; lower params.step or raise params.penalty"
        )
