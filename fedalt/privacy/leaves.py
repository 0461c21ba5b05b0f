"""A history as the mechanisms that no composition hides, and how often each happened.

Gaussians below a sample become the one that they come to, 1/z² = Σ 1/z_i²; a mechanism without
noise protects nothing; what reaches nobody is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import dp_accounting as dp
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

from fedalt.privacy.events import EVERYTHING, NOTHING


def leaves_of(history: Mapping[dp.DpEvent, int]) -> dict[dp.DpEvent, int]:
    """Return a history without compositions: what is added up, and how often."""
    found: dict[dp.DpEvent, int] = {}
    for event, count in history.items():
        for leaf, times in _leaves(event, count):
            found[leaf] = found.get(leaf, 0) + times
    return found


def joint_gaussian(leaves: Mapping[dp.DpEvent, int]) -> float | None:
    """Return the z of Gaussians without a sample together; None for any others among them."""
    if not all(isinstance(leaf, dp.GaussianDpEvent) for leaf in leaves):
        return None
    total = sum(count * float(leaf.noise_multiplier) ** -2 for leaf, count in leaves.items())
    return 1.0 / math.sqrt(total) if total > 0.0 else math.inf


def _leaves(event: dp.DpEvent, count: int) -> Iterator[tuple[dp.DpEvent, int]]:
    if count <= 0:
        return
    if isinstance(event, dp.ComposedDpEvent):
        for part in event.events:
            yield from _leaves(part, count)
    elif isinstance(event, dp.SelfComposedDpEvent):
        yield from _leaves(event.event, count * event.count)
    elif isinstance(event, dp.PoissonSampledDpEvent) and event.sampling_probability >= 1.0:
        yield from _leaves(event.event, count)
    else:
        leaf = _leaf(event)
        if leaf != NOTHING:
            yield leaf, count


def _leaf(event: dp.DpEvent) -> dp.DpEvent:
    """Return a single mechanism in its simplest form."""
    if isinstance(event, dp.GaussianDpEvent):
        return event if event.noise_multiplier > 0.0 else EVERYTHING
    if isinstance(event, MixtureOfGaussiansDpEvent):
        pairs = zip(event.sensitivities, event.sampling_probs, strict=True)
        if not any(moved > 0.0 and chance > 0.0 for moved, chance in pairs):
            return NOTHING
        return event if event.standard_deviation > 0.0 else EVERYTHING
    if isinstance(event, dp.PoissonSampledDpEvent):
        inner = _below_sample(event.event)
        if inner in (NOTHING, EVERYTHING) or event.sampling_probability == 0.0:
            return NOTHING if event.sampling_probability == 0.0 else inner
        return dp.PoissonSampledDpEvent(event.sampling_probability, inner)
    if isinstance(event, dp.SampledWithoutReplacementDpEvent):
        inner = _below_sample(event.event)
        if inner in (NOTHING, EVERYTHING) or event.sample_size == 0:
            return NOTHING if event.sample_size == 0 else inner
        size, of = event.sample_size, event.source_dataset_size
        return dp.SampledWithoutReplacementDpEvent(of, size, inner)
    return event


def _below_sample(event: dp.DpEvent) -> dp.DpEvent:
    """Return the Gaussian that an event of Gaussians comes to; other events as they are."""
    found = leaves_of({event: 1})
    if EVERYTHING in found:
        return EVERYTHING
    if not found:
        return NOTHING
    noise = joint_gaussian(found)
    return event if noise is None else dp.GaussianDpEvent(noise)
