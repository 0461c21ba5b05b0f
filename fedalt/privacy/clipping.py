"""Clipping: what bounds how far one contribution moves a sum.

    Δ̄ = Δ · min(1, C/‖Δ‖₂)

over all arrays of an update as one vector, or over each block's with a bound of its own (Dwork
et al. 2006, "Calibrating noise to sensitivity in private data analysis"; for updates of clients
McMahan et al. 2018, "Learning differentially private recurrent language models"). Everything is
computed in float64, and the norm of what comes out is never above C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.errors import AdmissionError, ConfigError

_SMALLEST, _LARGEST = 1e-100, 1e100
"""Norms between which a bound over a norm is as exact as any other number."""


@dataclass(frozen=True)
class Bounded:
    """Arrays that are clipped together, and their bound C: a block, or all there are."""

    name: str
    bound: float
    arrays: tuple[str, ...]


@dataclass(frozen=True)
class Clipped:
    """A clipped update in float64, its L2 norm before, and the smallest factor applied.

    The norm is infinite, and the factor 0, where numbers are finite but their norm is beyond
    float64; they are clipped to the bound all the same.
    """

    arrays: dict[str, np.ndarray]
    norm: float
    scale: float


def bounded_groups(
    spec: PrivacySpec,
    names: Sequence[str],
    blocks: Mapping[str, Sequence[str]] | None = None,
    clip: float | None = None,
) -> tuple[Bounded, ...]:
    """Return how arrays are clipped: all by one bound, or each block of ``spec.clips`` by its own.

    ``blocks`` says which arrays belong to which block; ``clip`` takes the place of ``spec.clip``.
    Raises :class:`ConfigError` for an array of no such block or of two.
    """
    if not spec.clips:
        return (Bounded(ALL, spec.clip if clip is None else clip, tuple(names)),)
    members, owner = {ALL: names, **(blocks or {})}, dict[str, str]()
    for block in spec.clips:
        if block not in members:
            raise ConfigError(f"privacy.clips: '{block}' is no block of the model")
        for name in members[block]:
            if name in names and owner.setdefault(name, block) != block:
                raise ConfigError(
                    f"privacy.clips: array '{name}' belongs to both '{owner[name]}' and "
                    f"'{block}'; bound it once"
                )
    left = [name for name in names if name not in owner]
    if left:
        raise ConfigError(
            f"privacy.clips bounds none of the blocks of {', '.join(left[:3])}: noise hides only "
            "what is bounded; name every trained block, or use one clip for all"
        )
    # A block whose arrays all stay at the sites keeps its share of the noise multiplier.
    return tuple(
        Bounded(block, bound, tuple(name for name in names if owner[name] == block))
        for block, bound in spec.clips.items()
    )


def check_floats(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raise :class:`ConfigError` for arrays that Gaussian noise cannot protect."""
    for name, values in arrays.items():
        if values.dtype.kind != "f":
            raise ConfigError(
                f"{where}: array '{name}' is {values.dtype}, but only floating-point numbers can "
                "be clipped and noised; leave its block out of train, or of what travels (local)"
            )


def clip_update(
    update: Mapping[str, np.ndarray],
    spec: PrivacySpec,
    blocks: Mapping[str, Sequence[str]] | None = None,
    clip: float | None = None,
) -> Clipped:
    """Clip an update as a spec says; see :func:`bounded_groups` for ``blocks`` and ``clip``.

    Raises :class:`AdmissionError` for values that are not finite, :class:`ConfigError` for
    arrays that are not of floating-point numbers.
    """
    check_floats(update, "privacy")
    return clip_groups(update, bounded_groups(spec, list(update), blocks, clip))


def clip_groups(update: Mapping[str, np.ndarray], groups: Sequence[Bounded]) -> Clipped:
    """Clip each group of an update's arrays by its bound; raises as :func:`clip_update` does."""
    arrays: dict[str, np.ndarray] = {}
    norms, scales = [], [1.0]
    for group in groups:
        own = {name: np.asarray(update[name], np.float64) for name in group.arrays}
        norm = l2_norm(own.values())
        if not math.isfinite(norm):
            bad = [name for name, values in own.items() if not np.isfinite(values).all()]
            if bad:
                raise AdmissionError(f"an update cannot be clipped: {', '.join(bad)} is not finite")
        norms.append(norm)
        if norm > group.bound:
            own = _shrunk(own, group.bound, norm)
            scales.append(group.bound / norm)
        arrays.update(own)
    return Clipped({name: arrays[name] for name in update}, math.hypot(*norms), min(scales))


def _shrunk(arrays: dict[str, np.ndarray], bound: float, norm: float) -> dict[str, np.ndarray]:
    """Scale arrays whose norm is above a bound until it is, as computed, within."""
    if not _SMALLEST < norm < _LARGEST:
        # Numbers may be finite and their norm not; that of their shares of the largest is.
        largest = max(float(np.abs(values).max(initial=0.0)) for values in arrays.values())
        arrays = {name: values / largest for name, values in arrays.items()}
        norm = l2_norm(arrays.values())
    # A hair less than C/‖Δ‖, as its rounding could leave too much.
    factor = bound / norm * (1.0 - 1e-15)
    arrays = {name: np.asarray(values * factor) for name, values in arrays.items()}
    norm = l2_norm(arrays.values())
    while norm > bound:
        for values in arrays.values():
            values *= bound / norm * (1.0 - 1e-15)
        norm = l2_norm(arrays.values())
    return arrays


def l2_norm(arrays: Iterable[np.ndarray]) -> float:
    """Return the L2 norm of arrays as one vector, in float64; not finite if some value is not.

    Squares that would overflow, or vanish, are taken of scaled values.
    """
    flat = [np.asarray(values, np.float64).reshape(-1) for values in arrays]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        total = sum(float(np.dot(values, values)) for values in flat)
    if math.isfinite(total) and total > 1e-200:
        return math.sqrt(total)
    largest = max((float(np.abs(values).max(initial=0.0)) for values in flat), default=0.0)
    if not math.isfinite(largest) or largest == 0.0:
        return largest
    with np.errstate(under="ignore"):
        return largest * math.sqrt(sum(float(np.square(v / largest).sum()) for v in flat))
