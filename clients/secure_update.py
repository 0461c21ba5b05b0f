"""A site's update as noised integers, ready for masks.

    q = ⌊s·w Δ̄⌉ + ⌊g⌉        Δ̄ = clip(trained − received),  w = 1 or min(n, cap)/cap

See ``fedalt.secagg.lattice`` for the grid s and the share g of the noise. The clip comes first
and w is at most 1, so that no weight moves the sum by more than the clip.
"""

from __future__ import annotations

import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.errors import AdmissionError, ConfigError
from fedalt.privacy.central import contribution_weight
from fedalt.privacy.clipping import bounded_groups, check_floats, clip_groups
from fedalt.privacy.noise import noise_generator
from fedalt.secagg.lattice import lattice_of


def encode_update(
    order: Order, site: SiteContext, work: Work, spec: PrivacySpec, sites: int
) -> np.ndarray:
    """Return what a kernel's work adds to the sum of a cohort of so many sites: (d,) integers.

    Raises :class:`ConfigError` for arrays that were not sent or are no floating-point numbers,
    :class:`AdmissionError` for an update that is not finite or has another shape.
    """
    where = f"phase '{order.phase.name}'"
    received = _received(order, where)
    check_floats(received, where)
    members = {
        block.name: [name for name in received if block.matches(name)] for block in site.task.blocks
    }
    groups = bounded_groups(spec, list(received), {**members, ALL: list(received)})
    update = _update(work, received, where)
    try:
        clipped = clip_groups(update, groups).arrays
    except AdmissionError as error:
        raise AdmissionError(f"{where}: {error}; did training diverge?") from error
    weight = contribution_weight(spec, work.num_examples)
    weighted = {name: weight * values for name, values in clipped.items()}
    lattice = lattice_of(spec, groups, {n: np.shape(v) for n, v in received.items()}, sites)
    return lattice.encode(weighted, noise_generator(spec.rng, site.seeds))


def _received(order: Order, where: str) -> dict[str, np.ndarray]:
    missing = [name for name in order.returns if name not in order.arrays]
    if missing:
        raise ConfigError(
            f"{where} trains {', '.join(missing)} but does not send them: an update is what was "
            "trained less what was received; leave the phase's send empty, or name those blocks"
        )
    return {name: order.arrays[name] for name in order.returns}


def _update(work: Work, received: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    for name, old in received.items():
        if np.shape(work.arrays[name]) != np.shape(old):
            raise AdmissionError(
                f"{where}: array '{name}' was received as {np.shape(old)} and trained to "
                f"{np.shape(work.arrays[name])}"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        return {n: np.asarray(work.arrays[n], np.float64) - old for n, old in received.items()}
