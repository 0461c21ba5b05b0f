"""What a site does to an answer before it leaves: bound and noise it, keep its metrics back.

    reply = received + Δ̄ + N(0, (z·C)²)        Δ = trained − received

is local privacy of a whole client: the server sees nothing that the noise does not cover. Its
number of examples counts as 1 and its steps as 0, since either would tell how much it holds;
how long it takes to answer is not hidden.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.errors import AdmissionError, ConfigError
from fedalt.privacy.clipping import bounded_groups, check_floats, clip_groups
from fedalt.privacy.gaussian import (
    gaussian_noise,
    joint_deviation,
    joint_multiplier,
    joint_sensitivity,
)
from fedalt.privacy.noise import NAMES, noise_generator
from fedalt.privacy.stages import leaves
from fedalt.wire.report import Applied


def protect(order: Order, site: SiteContext, work: Work) -> Work:
    """Return what may leave the site of a kernel's work; work without privacy is left as it is.

    Raises :class:`ConfigError` for arrays that noise cannot protect, :class:`AdmissionError`
    for an update that is not finite.
    """
    specs = [leaf.privacy for leaf in leaves(order.phase) if leaf.privacy is not None]
    if any(spec.metrics == "withhold" for spec in specs):
        work = replace(work, metrics={})
    spec = order.phase.privacy
    if spec is not None and spec.unit == "client" and spec.trust == "local":
        work = _noised(order, site, work, spec)
    return work


def _noised(order: Order, site: SiteContext, work: Work, spec: PrivacySpec) -> Work:
    where = f"phase '{order.phase.name}'"
    missing = [name for name in order.returns if name not in order.arrays]
    if missing:
        raise ConfigError(
            f"{where} trains {', '.join(missing)} but does not send them: an update is what was "
            "trained less what was received; leave the phase's send empty, or name those blocks"
        )
    received = {name: order.arrays[name] for name in order.returns}
    check_floats(received, where)
    members = {
        block.name: [name for name in received if block.matches(name)] for block in site.task.blocks
    }
    groups = bounded_groups(spec, list(received), {**members, ALL: list(received)})
    with np.errstate(over="ignore", invalid="ignore"):
        update = {
            name: np.asarray(work.arrays[name], np.float64) - old for name, old in received.items()
        }
    try:
        clipped = clip_groups(update, groups).arrays
    except AdmissionError as error:
        raise AdmissionError(f"{where}: {error}; did training diverge?") from error
    noise = gaussian_noise(clipped, groups, spec.noise, noise_generator(spec.rng, site.seeds))
    arrays = {
        name: (old + (clipped[name] + noise[name])).astype(old.dtype)
        for name, old in received.items()
    }
    applied = Applied(
        unit=spec.unit,
        clip=joint_sensitivity(groups),
        noise_std=joint_deviation(spec.noise, groups),
        noise_multiplier=joint_multiplier(spec.noise, groups),
        sample_rate=0.0,
        steps=1,
        rng=NAMES[spec.rng],
    )
    return replace(work, arrays=arrays, num_examples=1, steps=0, applied=(applied,))
