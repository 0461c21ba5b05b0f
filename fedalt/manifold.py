"""Subspaces as points: the few matrix functions that federated PCA needs.

A k-dimensional subspace of R^d is held as a matrix U (d, k) with orthonormal columns.
Everything here is a function of torch tensors, keeps their device and dtype (float64
unless the caller chose otherwise), and costs O(d k²); no d×d matrix is ever formed.

    tangent projection   G ← (I − UUᵀ) G
    retraction           qf(M) = Q · diag(sign diag R),  [Q, R] = QR(M),  sign(0) = 1
    polar factor         polar(M) = P Qᵀ,  M = P Σ Qᵀ  (thin SVD)

Source: Absil, Mahony, Sepulchre, "Optimization Algorithms on Matrix Manifolds" (2008),
sections 3.6 and 4.1.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import torch

from fedalt.errors import ConfigError, FedaltError


@functools.cache
def _stiefel() -> Any:
    """Return geoopt's Stiefel manifold with the Euclidean metric.

    Its ``retr`` is qf with the sign fix (and sign(0) = 1), its ``projx`` the polar factor. Its
    ``proju`` is not used: it projects on the tangent space of the Stiefel manifold, which
    keeps the rotations UΩ inside the subspace; on the Grassmannian they are no movement.
    """
    with warnings.catch_warnings():
        # geoopt 0.5 compiles helpers that we never call with torch.jit.script, which torch
        # deprecates. It is imported late because it costs half a second that only runs on
        # a manifold should pay.
        warnings.simplefilter("ignore", DeprecationWarning)
        import geoopt  # type: ignore[import-untyped]
    return geoopt.EuclideanStiefel()


def check_subspace_size(dimension: int, rank: int) -> None:
    """Raise :class:`ConfigError` unless 1 ≤ ``rank`` ≤ ``dimension``."""
    if not 1 <= rank <= dimension:
        raise ConfigError(
            f"a subspace of {rank} dimensions does not exist in {dimension}; "
            f"choose k between 1 and {dimension}"
        )


def qf(matrix: torch.Tensor) -> torch.Tensor:
    """Return the Q factor whose R has a non-negative diagonal; (d, k) → (d, k).

    The sign fix makes qf continuous and qf(U) = U. LAPACK's own Q flips columns, and a
    flipped column is a jump of ‖U − Z‖ that the dual variables then chase.
    """
    _check(matrix, "qf")
    return retract(matrix, torch.zeros_like(matrix))


def retract(point: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return qf(point + step), unchecked: this is the inner loop's retraction."""
    moved: torch.Tensor = _stiefel().retr(point, step)
    return moved


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrix with orthonormal columns (Frobenius); (d, k) → (d, k)."""
    _check(matrix, "polar")
    nearest: torch.Tensor = _stiefel().projx(matrix)
    return nearest


def align(subspace: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return U·polar(UᵀZ): the basis of span(U) that is nearest to the reference Z (d, k)."""
    return subspace @ polar(subspace.T @ reference)


def project_tangent(subspace: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return (I − UUᵀ)G: the part of ``gradient`` (d, k) that moves the subspace."""
    return torch.addmm(gradient, subspace, subspace.T @ gradient, alpha=-1.0)


def subspace_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return √(k − ‖UᵀV‖²)/√k of two orthonormal bases (d, k): 0 if equal, 1 if orthogonal."""
    rank = one.shape[1]
    overlap = float((one.T @ other).square().sum())
    return math.sqrt(max(0.0, rank - overlap) / rank)


def residual(covariance: torch.Tensor, subspace: torch.Tensor) -> float:
    """Return f(U) = tr((I − UUᵀ) C (I − UUᵀ)), the mean squared residual of the rows.

    ``covariance`` is C = XXᵀ/n (d, d). U (d, k) need not be orthonormal; for the residual
    of the subspace that it spans pass ``qf(U)``. In units of C; below zero only by rounding.
    """
    image = covariance @ subspace
    inner = subspace.T @ image
    gram = subspace.T @ subspace
    # (A * B).sum() is the Frobenius product; torch.inner(A, B).sum() is not.
    return float(covariance.trace() - 2.0 * inner.trace() + (inner * gram).sum())


def random_subspace(dimension: int, rank: int, generator: torch.Generator) -> torch.Tensor:
    """Return a uniformly distributed subspace (dimension, rank) as qf of a Gaussian matrix."""
    check_subspace_size(dimension, rank)
    gaussian = torch.randn(
        dimension, rank, generator=generator, dtype=torch.float64, device=generator.device
    )
    return qf(gaussian)


def top_eigenspace(covariance: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the ``rank`` leading eigenvectors (d, k) of a symmetric C (d, d), largest first.

    The sign of each is such that its largest entry is positive, so that two machines agree.
    """
    check_subspace_size(covariance.shape[0], rank)
    _check(covariance, "top_eigenspace")
    _, vectors = torch.linalg.eigh(covariance)
    leading = vectors[:, -rank:].flip(1)
    largest = leading.gather(0, leading.abs().argmax(dim=0, keepdim=True))
    signed: torch.Tensor = leading * torch.where(largest < 0, -1.0, 1.0)
    return signed


def _check(matrix: torch.Tensor, function: str) -> None:
    """Refuse what the decompositions would answer with NaN or with an obscure error."""
    if matrix.ndim != 2 or matrix.shape[1] > matrix.shape[0]:
        raise ConfigError(
            f"{function} needs a matrix (d, k) with k at most d, but got {tuple(matrix.shape)}"
        )
    if not bool(torch.isfinite(matrix).all()):
        raise FedaltError(
            f"{function}: the matrix {tuple(matrix.shape)} holds NaN or infinity; "
            "the rows were not finite, or the steps were too long"
        )
