"""Subjects from one anatomy: a random pose, a smooth displacement, and look-alikes of organs.

A point x (mm from the centre) of a subject shows the anatomy's point A (x + u(x) - shift), A a
rotation in the axial plane and a scale, u a Gaussian field. Where the Frobenius norm of ∇u stays
below 1, I + ∇u has a positive determinant everywhere: shapes bend and never fold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from fedalt.errors import ConfigError
from fedalt.scenarios.unpaired_ct_mr.anatomy import Anatomy
from fedalt.scenarios.unpaired_ct_mr.tissues import BACKGROUND

STEEPEST = 0.75
"""Bound on the Frobenius norm of the displacement's gradient."""
SKIN = 10.0
"""Depth in mm under the skin, and beside gas, from which look-alikes begin."""


@dataclass(frozen=True)
class Warp:
    """How subjects differ in shape, all lengths in mm.

    The pose: ``shift`` (uniform ± along x and y, a third of it along z), ``degrees`` (uniform ±
    in the axial plane), ``scale`` (uniform 1 ± in all axes) and, where ``flip``, left and right
    exchanged for half of the subjects. The shape: displacements of root mean square ``bend``,
    smooth over ``smooth``. Look-alikes: ``distractors`` blobs of half axes ``blob`` (least, most)
    outside of organs, each with the look of an organ drawn at random.
    """

    shift: float = 25.0
    degrees: float = 15.0
    scale: float = 0.12
    flip: bool = False
    bend: float = 9.0
    smooth: float = 30.0
    distractors: int = 4
    blob: tuple[float, float] = (12.0, 30.0)

    def __post_init__(self) -> None:
        bounded = (self.shift, self.degrees, self.bend, self.distractors, self.smooth)
        if not all(0 <= value < math.inf for value in bounded) or not self.smooth:
            raise ConfigError(
                "warp: shift, degrees, bend and distractors must be finite and not negative, "
                "smooth above 0"
            )
        if not 0 <= self.scale < 1:
            raise ConfigError(f"warp: scale {self.scale:g} must be in [0, 1)")
        if not 0 < self.blob[0] <= self.blob[1] < math.inf:
            raise ConfigError(f"warp: blob {self.blob} must be (least, most) mm above 0")


@dataclass(frozen=True)
class Subject:
    """A warped anatomy: tissue ids (x, y[, z]), without and with look-alikes.

    ``seen`` has ids from ``len(anatomy.names)`` on for the look-alikes, whose tissues are
    ``names[len(anatomy.names):]``.
    """

    tissues: np.ndarray
    seen: np.ndarray
    names: tuple[str, ...]


def subject(anatomy: Anatomy, warp: Warp, rng: np.random.Generator) -> Subject:
    """Draw one subject."""
    matrix, shift = pose(warp, len(anatomy.size), rng)
    u = displacement(anatomy.size, anatomy.spacing, warp, rng)
    tissues = resample(anatomy, matrix, shift, u)
    seen, like = _with_distractors(tissues, anatomy, warp, rng)
    return Subject(tissues, seen, (*anatomy.names, *like))


def pose(warp: Warp, dims: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pose: the matrix (dims, dims) and the shift (dims,) in mm."""
    angle = np.radians(rng.uniform(-warp.degrees, warp.degrees))
    matrix = np.eye(dims)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix /= rng.uniform(1 - warp.scale, 1 + warp.scale)
    if rng.random() < 0.5 and warp.flip:
        matrix[0] *= -1
    reach = np.array([warp.shift, warp.shift, warp.shift / 3])[:dims]
    return matrix, rng.uniform(-reach, reach)


def displacement(
    size: Sequence[int], spacing: Sequence[float], warp: Warp, rng: np.random.Generator
) -> np.ndarray:
    """Draw a smooth displacement (dims, x, y[, z]) in mm that does not fold."""
    sigma = [warp.smooth / mm for mm in spacing]
    u = np.stack(
        [
            ndimage.gaussian_filter(rng.standard_normal(tuple(size)), sigma, mode="reflect")
            for _ in spacing
        ]
    )
    u -= u.mean(axis=tuple(range(1, u.ndim)), keepdims=True)
    u *= warp.bend / max(float(np.sqrt((u**2).mean())), 1e-12)
    steepest = float(np.sqrt((gradient(u, spacing) ** 2).sum((0, 1)).max()))
    return u * min(1.0, STEEPEST / max(steepest, 1e-12))


def gradient(u: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return a displacement's derivatives (dims, dims, x, y[, z]): component, then axis."""
    return np.stack([np.stack(np.gradient(component, *spacing)) for component in u])


def resample(anatomy: Anatomy, matrix: np.ndarray, shift: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the nearest tissue ids at the warped points; outside is air, slices go on."""
    spacing = np.array(anatomy.spacing)
    middle = (np.array(anatomy.size) - 1) / 2
    grid = np.indices(anatomy.size).reshape(len(spacing), -1)
    points = (grid - middle[:, None]) * spacing[:, None] + u.reshape(len(spacing), -1)
    points = matrix @ (points - shift[:, None])
    at = np.rint(points / spacing[:, None] + middle[:, None]).astype(int)
    # The body goes on above and below the volume, but not beside it.
    if len(spacing) == 3:
        at[2] = at[2].clip(0, anatomy.size[2] - 1)
    last = np.array(anatomy.size)[:, None] - 1
    inside = ((at >= 0) & (at <= last)).all(0)
    found = anatomy.tissues[tuple(at.clip(0, last))]
    return np.where(inside, found, 0).astype(np.uint8).reshape(anatomy.size)


def _with_distractors(
    tissues: np.ndarray, anatomy: Anatomy, warp: Warp, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    names = anatomy.names
    organs = [i for i, name in enumerate(names) if name not in BACKGROUND]
    organs = [i for i in organs if (anatomy.tissues == i).any()]
    depth = ndimage.distance_transform_edt(tissues != names.index("air"), sampling=anatomy.spacing)
    free = ~np.isin(tissues, organs) & (depth > SKIN)
    places = np.argwhere(free)
    seen = tissues.copy()
    like: list[str] = []
    if not len(places) or not organs:
        return seen, like
    for i in range(warp.distractors):
        place = places[rng.integers(len(places))]
        inside = _blob(tissues.shape, place, anatomy.spacing, warp.blob, rng)
        like.append(names[organs[rng.integers(len(organs))]])
        seen[inside & free] = len(names) + i
    return seen, like


def _blob(
    size: tuple[int, ...],
    place: np.ndarray,
    spacing: Sequence[float],
    half_axes: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a turned ellipsoid's mask about a voxel."""
    offsets = [(np.arange(n) - at) * mm for n, at, mm in zip(size, place, spacing, strict=True)]
    x, y, *z = np.meshgrid(*offsets, indexing="ij", sparse=True)
    a, b, c = rng.uniform(*half_axes, 3)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    high = (z[0] / c) ** 2 if z else 0.0
    return np.asarray((along / a) ** 2 + (across / b) ** 2 + high <= 1)
