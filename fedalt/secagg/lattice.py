"""The integers in which a secure sum is computed, and the noise on them.

    q_i = ⌊s·w_i Δ̄_i⌉ + ⌊g_i⌉,  g_i ~ N(0, (s·z·C′)²/t)        Σ_i q_i modulo 2ᵏ, over s

A clipped update is rounded to a grid of 1/s, which may lengthen it: its norm is at most
C′ = C + √d/(2s), and the noise is z times that. Each site adds its share of the variance, sized
for t survivors, the fewest that a sum needs, so that r of them give z·√(r/t), never less than z.
(Kairouz, Liu and Steinke 2021, "The distributed discrete Gaussian mechanism for federated
learning with secure aggregation".)

A rounded Gaussian is a Gaussian plus a uniform variable, seen at the integers. For a share of
standard deviation σ ≥ 4 steps the difference of a sum of them from a Gaussian there is of
relative size e^(−2π²σ²) < e^(−315), so that its Rényi divergences are those of the Gaussian
mechanism; an ε at a fixed δ differs by the rounding of a threshold to a step, one part in
s·σ. s is the largest power of 2 at which n·(C·s + 8σ) stays within half the modulus, so that no
sum wraps around: 2³² does where rounding lengthens no update by more than a thousandth, else
2⁶⁴, where values stay below 2⁵² since float64 holds no finer ones. Every noised value being on
the grid, no low bits are there to give anything away.

A coalition that takes its own shares of the noise off again sees z·√((r − c)/t) for its c sites.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import ConfigError, WireError
from fedalt.privacy.clipping import Bounded
from fedalt.privacy.gaussian import joint_multiplier
from fedalt.secagg.threshold import threshold

WORDS = (32, 64)
"""Bits of the modulus."""
_EXACT = 2.0**52
_FINEST = 4.0
"""Steps of the grid that a share's standard deviation must have."""
_LENGTHENED = 1e-3


@dataclass(frozen=True)
class Part:
    """Arrays that are clipped together: steps a unit, and how far one update moves them.

    ``deviation`` is the standard deviation of one site's share of the noise, in units of the
    update, as is ``sensitivity``, C′.
    """

    arrays: tuple[str, ...]
    scale: float
    sensitivity: float
    deviation: float


@dataclass(frozen=True)
class Noise:
    """What noise a sum holds: standard deviation, sensitivity, and the first over the last."""

    std: float
    sensitivity: float
    multiplier: float


@dataclass(frozen=True)
class Lattice:
    """How arrays become a vector of integers modulo 2^bits, and back."""

    bits: int
    threshold: int
    multiplier: float
    shapes: Mapping[str, tuple[int, ...]]
    parts: tuple[Part, ...]

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The type of a vector."""
        return np.dtype(f"<u{self.bits // 8}")

    @property
    def size(self) -> int:
        """The length d of a vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def _part(self, name: str) -> Part:
        return next(part for part in self.parts if name in part.arrays)

    def encode(self, update: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Return a clipped update as integers (d,), with the site's share of the noise."""
        vector = np.empty(self.size, self.dtype)
        first = 0
        for name, shape in self.shapes.items():
            part, size = self._part(name), math.prod(shape)
            steps = np.rint(update[name].reshape(-1) * part.scale)
            steps += np.rint(rng.normal(0.0, part.deviation * part.scale, size))
            vector[first : first + size] = steps.astype(np.int64).astype(self.dtype)
            first += size
        return vector

    def decode(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return a sum's integers (d,) as float64 arrays."""
        signed = vector.astype(self.dtype).view(f"<i{self.bits // 8}")
        arrays, first = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            steps = signed[first : first + size].astype(np.float64)
            arrays[name] = (steps / self._part(name).scale).reshape(shape)
            first += size
        return arrays

    def check(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the one vector that a reply holds; raises :class:`WireError` for another."""
        found = list(arrays.values())
        if len(found) != 1 or found[0].dtype != self.dtype or found[0].shape != (self.size,):
            told = ", ".join(f"{v.dtype}{v.shape}" for v in found[:3]) or "nothing"
            raise WireError(f"it sends {told}, the sum is over {self.dtype}({self.size},)")
        return found[0]

    def noise(self, survivors: int) -> Noise:
        """Return what noise a sum of so many sites holds, for all parts together."""
        multiplier = effective_multiplier(self.multiplier, survivors, self.threshold)
        sensitivity = math.hypot(*(part.sensitivity for part in self.parts))
        return Noise(multiplier * sensitivity, sensitivity, multiplier)


def effective_multiplier(multiplier: float, survivors: int, sized_for: int) -> float:
    """Return z·√(r/m): the noise multiplier of r shares that were sized for m."""
    return multiplier * math.sqrt(survivors / sized_for)


def lattice_of(
    spec: PrivacySpec,
    groups: Sequence[Bounded],
    shapes: Mapping[str, tuple[int, ...]],
    sites: int,
) -> Lattice:
    """Choose the modulus and the grid for a cohort of so many sites.

    Raises :class:`ConfigError` for a cohort too small to hide anyone, and where no modulus
    holds both the sum and noise of four steps.
    """
    needed = threshold(sites, spec.dropouts)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    for bits in WORDS:
        limit = min(2.0 ** (bits - 1) / sites, _EXACT)
        parts = [
            _part(group, sum(sizes[n] for n in group.arrays), spec.noise, needed, limit)
            for group in groups
        ]
        found = tuple(part for part in parts if part is not None)
        if len(found) == len(parts):
            joint = joint_multiplier(spec.noise, groups)
            return Lattice(bits, needed, joint, dict(shapes), found)
    raise ConfigError(
        f"privacy: a secure sum of {sites} sites at noise={spec.noise:g} fits no modulus up to "
        f"2^{WORDS[-1]}: it would wrap around, or the noise be less than {_FINEST:g} steps of the "
        "grid; clip to bounds that are less far apart, or take a noise multiplier nearer to 1"
    )


def _part(group: Bounded, size: int, noise: float, needed: int, limit: float) -> Part | None:
    """Return a group's grid, or None where values within ``limit`` steps leave it too coarse."""
    share = noise / math.sqrt(needed)
    corner = math.sqrt(size)
    # C·s + ½ + 8·(σ + ½) < limit, where σ = share·(C·s + √d/2) steps.
    room = limit - 4.5 - 4.0 * share * corner
    if room <= 0.0:
        return None
    most = room / (group.bound * (1.0 + 8.0 * share))
    if not 0.0 < most < math.inf:
        return None
    scale = 2.0 ** math.floor(math.log2(most))
    rounding = corner / (2.0 * scale)
    sensitivity = group.bound + rounding
    deviation = share * sensitivity
    if rounding > _LENGTHENED * group.bound or deviation * scale < _FINEST:
        return None
    return Part(group.arrays, scale, sensitivity, deviation)
