"""Client-level privacy at the server: a clipped, weighted sum of updates, and its noise.

    s = Σ_i w_i Δ̄_i + N(0, (z·C)²)        w_i = 1 or min(n_i, cap)/cap        mean = s/m

m is a public constant, the number of clients that a round expects or one that the phase names,
whatever arrived: one client more or less moves s by at most C and m by nothing (McMahan et al.
2018, "Learning differentially private recurrent language models", the estimator f̃_f). The noise
is there in full, also over a sum of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import AdmissionError, ConfigError
from fedalt.privacy.adaptive import next_clip, share_within, update_multiplier
from fedalt.privacy.banded import correlated
from fedalt.privacy.clipping import Bounded, clip_groups
from fedalt.privacy.gaussian import (
    gaussian_noise,
    joint_deviation,
    joint_multiplier,
    joint_sensitivity,
)
from fedalt.privacy.noise import NAMES
from fedalt.privacy.release import Protection


@dataclass(frozen=True)
class Memory:
    """What a mechanism keeps from round to round.

    ``clip`` is where an adaptive bound stands (0: where it begins), ``past`` the noise of the
    last rounds by array, the newest first, and ``deviations`` what it was drawn with.
    """

    clip: float = 0.0
    past: Mapping[str, np.ndarray] = field(default_factory=dict)
    deviations: tuple[float, ...] = ()


@dataclass
class ClippedSum:
    """Σ w_i Δ̄_i of the updates that arrived, and how many of them were within the bound."""

    spec: PrivacySpec
    groups: tuple[Bounded, ...]
    current: Mapping[str, np.ndarray]
    total: dict[str, np.ndarray] = field(init=False)
    replies: int = 0
    within: int = 0
    _update: dict[str, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.total = {name: np.zeros(np.shape(v)) for name, v in self.current.items()}
        # One for all clients: fresh memory for each would cost more than the arithmetic.
        self._update = {name: np.empty(np.shape(v)) for name, v in self.current.items()}

    def add(self, arrays: Mapping[str, np.ndarray], examples: float) -> None:
        """Add a client's reply to the sum; an update beyond float64 counts as none."""
        self.replies += 1
        with np.errstate(over="ignore", invalid="ignore"):
            for name, old in self.current.items():
                np.subtract(arrays[name], old, out=self._update[name], dtype=np.float64)
        try:
            clipped = clip_groups(self._update, self.groups)
        except AdmissionError:
            # One client must not stop a round; nothing of it enters the sum.
            return
        self.within += clipped.scale == 1.0
        weight = contribution_weight(self.spec, examples)
        for name, values in clipped.arrays.items():
            self.total[name] += values if weight == 1.0 else weight * values


@dataclass(frozen=True)
class Noised:
    """A noised sum, what protected it, what may be told of it, and what to keep."""

    total: dict[str, np.ndarray]
    applied: Protection
    metrics: dict[str, float]
    memory: Memory


def contribution_weight(spec: PrivacySpec, examples: float) -> float:
    """Return the weight of a client with so many examples: 1, or up to 1 by its size."""
    if not spec.weight_cap:
        return 1.0
    return min(max(float(examples), 0.0), spec.weight_cap) / spec.weight_cap


def noised(
    clipped: ClippedSum, expected: float, memory: Memory, rng: np.random.Generator
) -> Noised:
    """Add a round's noise to a sum of updates.

    ``expected`` is the number of clients that a round expects, by which counts are divided.
    Raises :class:`ConfigError` where correlated noise would change its size on the way.
    """
    spec, groups = clipped.spec, clipped.groups
    multiplier = update_multiplier(spec.noise, spec.count_noise) if spec.quantile else spec.noise
    noise = gaussian_noise(clipped.total, groups, multiplier, rng)
    if spec.bands:
        deviations = tuple(multiplier * group.bound for group in groups)
        _check_unchanged(deviations, memory.deviations)
        noise, kept = correlated(noise, memory.past, spec.bands)
        memory = Memory(past=kept, deviations=deviations)
    applied = Protection(
        noise_std=joint_deviation(multiplier, groups),
        clip=joint_sensitivity(groups),
        sensitivity=joint_sensitivity(groups),
        # Of the update and the count together, where there is one.
        noise_multiplier=joint_multiplier(spec.noise, groups),
        weights=_weights(spec),
        denominator=spec.denominator or expected,
        rng=NAMES[spec.rng],
    )
    metrics = {"noise_std": applied.noise_std, "clip": applied.clip}
    if spec.quantile:
        count_noise = float(rng.normal(0.0, spec.count_noise))
        share = share_within(clipped.within, clipped.replies, expected, count_noise)
        clip = next_clip(applied.clip, share, spec.quantile, spec.rate)
        metrics["within_clip"], memory = share, Memory(clip=clip)
    total = {name: values + noise[name] for name, values in clipped.total.items()}
    return Noised(total, applied, metrics, memory)


def _check_unchanged(now: Sequence[float], before: Sequence[float]) -> None:
    if before and not all(map(math.isclose, now, before)):
        raise ConfigError(
            f"privacy: noise over bands was drawn with standard deviations {list(before)} and "
            f"would now be with {list(now)}: it hides earlier rounds too, so noise and clip must "
            "stay as they began"
        )


def _weights(spec: PrivacySpec) -> str:
    return f"min(n, {spec.weight_cap:g})/{spec.weight_cap:g}" if spec.weight_cap else "uniform"
