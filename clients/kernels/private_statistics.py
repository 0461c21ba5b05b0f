"""Sums over a site's records that hide each of them: noise is added before a sum leaves the site.

A row x, scaled by the scaler received, is clipped so that what it adds to a sum has an L2 norm of
at most C (``privacy.clip``); the sum gets Gaussian noise of z·C and is divided by the number n of
rows, which is public. Whether a row is there moves a sum by C at most, so that each release is one
Gaussian mechanism of multiplier z, for one record that is added, removed or zeroed out:

    moments     (Σ x̄ + E)/n        ‖x̄‖ ≤ C      E_i  ~ N(0, (zC)²)
    covariance  (Σ x̄x̄ᵀ + E)/n      ‖x̄‖² ≤ C     E_ii ~ N(0, (zC)²),  E_ij = E_ji ~ N(0, (zC)²/2)
    power       (Σ x̄(x̄ᵀQ) + E)/n   ‖x̄‖² ≤ C     E_ij ~ N(0, (zC)²),  QᵀQ = I

The covariance is that of Dwork, Talwar, Thakurta and Zhang 2014 ("Analyze Gauss: optimal bounds for
privacy-preserving principal component analysis"), who add the same noise to the whole upper
triangle. Here it is that of the coordinates (A_ii, √2·A_ij), in which ‖xxᵀ‖ is ‖x‖² exactly: the
same z leaves half the variance off the diagonal. The rounds are those of Hardt and Price 2014
("The noisy power method"). A row that is not finite adds nothing. Whoever sends the scaler and Z
need not be trusted: rows are clipped after scaling, and Q = qf(Z) is made at the site.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Kernel, Order, SiteContext, Work
from fedalt.errors import ConfigError
from fedalt.privacy.noise import NAMES, noise_generator
from fedalt.wire.report import Applied

PRIVATE = ("gradient", "moments", "covariance", "power")
"""Kernels that can hide a record."""


def record_spec(phase: Phase) -> PrivacySpec | None:
    """Return the spec of a phase that hides single records in a sum, None where none is asked for.

    Client-level privacy is not the kernel's business. Raises :class:`ConfigError` for a spec that
    sums over all rows cannot keep.
    """
    spec = phase.privacy
    if spec is None or spec.unit == "client":
        return None
    where = f"phase '{phase.name}': kernel '{phase.kernel}'"
    if spec.unit != "record":
        raise ConfigError(
            f"{where} protects single records, not a {spec.unit} with several; set privacy.unit "
            "to record, or protect users in kernel 'gradient'"
        )
    if spec.sample_rate:
        raise ConfigError(
            f"{where} sums over all rows of a site, but privacy.sample_rate is "
            f"{spec.sample_rate:g}; leave it at 0"
        )
    return spec


def refuse_private(phase: Phase) -> None:
    """Raise :class:`ConfigError` for record- or user-level privacy of a kernel that has none."""
    spec = phase.privacy
    if spec is not None and spec.unit != "client":
        raise ConfigError(
            f"phase '{phase.name}': kernel '{phase.kernel}' cannot hide a {spec.unit}: no noise "
            f"covers what it sends; kernels that can are {', '.join(PRIVATE)}"
        )


def checked_by(check: Callable[[Phase], object]) -> Callable[[Kernel], Kernel]:
    """Let a kernel judge its phase by ``check``, so that a bad spec is an error before the run."""

    def marked(kernel: Kernel) -> Kernel:
        kernel.check = check  # type: ignore[attr-defined]
        return kernel

    return marked


def hides_nobody(kernel: Kernel) -> Kernel:
    """Make a kernel refuse what it cannot protect, before the run and in it."""

    @functools.wraps(kernel)
    def refusing(order: Order, ctx: SiteContext) -> Work:
        refuse_private(order.phase)
        return kernel(order, ctx)

    return checked_by(refuse_private)(refusing)


def bounded_rows(rows: np.ndarray, mean: np.ndarray, std: np.ndarray, bound: float) -> np.ndarray:
    """Return the scaled rows (n, d), each shrunk to an L2 norm of at most ``bound``.

    Rows that are not finite once scaled are zero. Nothing here is an error: whether one was
    raised would tell of a row.
    """
    with np.errstate(all="ignore"):
        scaled = (rows - mean) / std
        scaled[~np.isfinite(scaled).all(axis=1)] = 0.0
        # By shares of the largest, as the squares of finite numbers may not be.
        largest = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        shares = scaled / largest
        norms = np.linalg.norm(shares, axis=1, keepdims=True)
        # A hair less than the bound, which rounding could exceed.
        shrunk = shares * (bound * (1.0 - 1e-14) / np.maximum(norms, 1.0))
        found: np.ndarray = np.where(largest * norms > bound, shrunk, scaled)
    return found


def noisy_mean(rows: np.ndarray, spec: PrivacySpec, rng: np.random.Generator) -> np.ndarray:
    """Return the mean (d,) of rows (n, d) of norm C at most, with noise."""
    mean: np.ndarray = (rows.sum(axis=0) + _noise(spec, rows.shape[1], rng)) / len(rows)
    return mean


def noisy_covariance(rows: np.ndarray, spec: PrivacySpec, rng: np.random.Generator) -> np.ndarray:
    """Return XᵀX/n (d, d) of rows (n, d) of norm √C at most, with symmetric noise."""
    size = rows.shape[1]
    upper = np.triu_indices(size)
    noise = np.zeros((size, size))
    noise[upper] = _noise(spec, len(upper[0]), rng) / np.where(upper[0] == upper[1], 1.0, 2**0.5)
    noise += np.triu(noise, 1).T
    covariance: np.ndarray = (rows.T @ rows + noise) / len(rows)
    return covariance


def noisy_image(
    rows: np.ndarray, basis: np.ndarray, spec: PrivacySpec, rng: np.random.Generator
) -> np.ndarray:
    """Return XᵀXQ/n (d, k) of rows (n, d) of norm √C at most and orthonormal Q, with noise."""
    noise = _noise(spec, basis.size, rng).reshape(basis.shape)
    image: np.ndarray = (rows.T @ (rows @ basis) + noise) / len(rows)
    return image


def generator(spec: PrivacySpec, ctx: SiteContext) -> np.random.Generator:
    """Return where the noise of a site's one release comes from."""
    return noise_generator(spec.rng, ctx.seeds)


def row_bound(spec: PrivacySpec) -> float:
    """Return the norm √C of a row whose product with itself has norm C."""
    return math.sqrt(spec.clip)


def protected(work: Work, ctx: SiteContext, spec: PrivacySpec) -> Work:
    """Return the work with what protected its one release, and enter it in the site's account."""
    # Here, as accounting is slow to import, and most statistics protect nobody.
    from fedalt.privacy import site_account

    former = ctx.state.get(site_account.KEY)
    ctx.state[site_account.KEY] = site_account.add(former, [(1.0, spec.noise, 1, 1)])
    applied = Applied(
        unit=spec.unit,
        clip=spec.clip,
        noise_std=spec.noise * spec.clip,
        noise_multiplier=spec.noise,
        sample_rate=0.0,
        steps=1,
        rng=NAMES[spec.rng],
    )
    return replace(work, applied=(applied,))


def _noise(spec: PrivacySpec, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0.0, spec.noise * spec.clip, count)
