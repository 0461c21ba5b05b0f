"""Label maps of an abdomen's tissues: a real one where its file is present, else ellipsoids.

Axes are RAS: x grows to the patient's right, y to the front, z to the head. Pictures of them go
through :func:`fedalt.medical.overlays.radiological`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, DataError
from fedalt.medical.label_map import read_label_map
from fedalt.medical.site_table import Case
from fedalt.medical.volume import read_pair
from fedalt.scenarios.unpaired_ct_mr.tissues import NAMES

LEAST_SIDE, LEAST_SLICES = 16, 8
"""Voxels below which organs are no longer seen apart: across a slice, and slices."""


@dataclass(frozen=True)
class Anatomy:
    """Tissue ids (x, y[, z]) uint8, their names by id, voxel spacing in mm, and where from."""

    tissues: np.ndarray
    names: tuple[str, ...]
    spacing: tuple[float, ...]
    source: str

    def __post_init__(self) -> None:
        if self.names[:1] != ("air",):
            raise ConfigError(f"anatomy '{self.source}': tissue 0 must be 'air'")
        if self.tissues.ndim not in (2, 3) or self.tissues.ndim != len(self.spacing):
            raise ConfigError(
                f"anatomy '{self.source}': tissues {self.tissues.shape} and spacing {self.spacing} "
                "must both be of (x, y) or of (x, y, z)"
            )
        if self.tissues.max(initial=0) >= len(self.names):
            raise ConfigError(
                f"anatomy '{self.source}': tissue {self.tissues.max()} has no name "
                f"({len(self.names)} names from 0 on)"
            )

    @property
    def size(self) -> tuple[int, ...]:
        """The map's shape."""
        return tuple(self.tissues.shape)


@dataclass(frozen=True)
class _Ellipsoid:
    """A tissue's ellipsoid: centre and half axes in mm (RAS), turned in the axial plane."""

    tissue: str
    centre: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    degrees: float = 0.0


_LONG = 1e6
_ABDOMEN = (
    _Ellipsoid("fat", (0, 0, 0), (168, 122, _LONG)),
    _Ellipsoid("muscle", (0, -2, 0), (152, 106, _LONG)),
    _Ellipsoid("fat", (0, 4, 0), (140, 92, _LONG)),
    _Ellipsoid("muscle", (36, -80, 0), (34, 22, _LONG), 12),
    _Ellipsoid("muscle", (-36, -80, 0), (34, 22, _LONG), -12),
    _Ellipsoid("bone", (0, -60, 0), (25, 21, _LONG)),
    _Ellipsoid("bone", (0, -94, 0), (7, 16, _LONG)),
    _Ellipsoid("bowel", (-104, 30, -30), (26, 26, 60)),
    _Ellipsoid("bowel", (-8, 66, -40), (48, 17, 60)),
    _Ellipsoid("bowel", (20, 8, -40), (30, 20, 60)),
    _Ellipsoid("stomach", (-52, 38, 25), (42, 28, 60), -25),
    _Ellipsoid("liver", (74, 16, 25), (58, 70, 85), -14),
    _Ellipsoid("liver", (22, 52, 25), (48, 24, 55), 14),
    _Ellipsoid("gallbladder", (52, 68, -15), (17, 19, 35)),
    _Ellipsoid("spleen", (-106, -26, 25), (24, 46, 60), -18),
    _Ellipsoid("pancreas", (-22, 0, 5), (42, 11, 22), -14),
    _Ellipsoid("kidney_right", (66, -46, -20), (24, 30, 58), 20),
    _Ellipsoid("kidney_left", (-64, -42, -10), (24, 30, 58), -20),
    _Ellipsoid("aorta", (-9, -26, 0), (12, 12, _LONG)),
    _Ellipsoid("inferior_vena_cava", (22, -27, 0), (13, 10, _LONG)),
)
"""Painted in this order, an adult's: 336 × 244 mm at the first lumbar vertebra (z = 0)."""
_FIELD = (352.0, 280.0, 150.0)
"""Field of view in mm that the analytic abdomen needs along x, y and z."""


def analytic_abdomen(size: Sequence[int], spacing: Sequence[float] | None = None) -> Anatomy:
    """Return an abdomen of ellipsoids: an axial slice for a size (x, y), a volume for (x, y, z).

    Without ``spacing`` (mm), voxels are square in the slice and the body fills the picture.
    Raises :class:`ConfigError` for a size too small or of other dimensions.
    """
    size = _checked(size)
    if spacing is None:
        across = max(_FIELD[0] / size[0], _FIELD[1] / size[1])
        spacing = (across, across, *(_FIELD[2] / slices for slices in size[2:]))
    if len(spacing) != len(size) or min(spacing) <= 0:
        raise ConfigError(f"anatomy: size {size} needs {len(size)} spacings in mm above 0")
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True)]
    # A slice is the volume's plane at z = 0.
    grid = np.meshgrid(*[*axes, np.zeros(1)][:3], indexing="ij", sparse=True)
    tissues = np.zeros((*size, 1)[:3], np.uint8)
    for each in _ABDOMEN:
        tissues[_inside(each, grid)] = NAMES.index(each.tissue)
    tissues = tissues.reshape(size)
    return Anatomy(tissues, NAMES, tuple(map(float, spacing)), "analytic")


def _inside(each: _Ellipsoid, grid: Sequence[np.ndarray]) -> np.ndarray:
    x, y, z = (axis - middle for axis, middle in zip(grid, each.centre, strict=True))
    cosine, sine = np.cos(np.radians(each.degrees)), np.sin(np.radians(each.degrees))
    a, b, c = each.half_axes
    along, across = cosine * x + sine * y, cosine * y - sine * x
    return np.asarray((along / a) ** 2 + (across / b) ** 2 + (z / c) ** 2 <= 1)


def _checked(size: Sequence[int]) -> tuple[int, ...]:
    if len(size) not in (2, 3):
        raise ConfigError(f"anatomy: size {tuple(size)} must be (x, y) or (x, y, z)")
    if min(size[:2]) < LEAST_SIDE or min(size[2:], default=LEAST_SLICES) < LEAST_SLICES:
        raise ConfigError(
            f"anatomy: size {tuple(size)} is too small to tell organs apart; give at least "
            f"{LEAST_SIDE} × {LEAST_SIDE} voxels and {LEAST_SLICES} slices"
        )
    return tuple(int(n) for n in size)


_FILES = ("ct_a_image.nii.gz", "ct_a_labels.nii.gz", "labels.json")
_SPANNED = ("liver", "spleen", "kidney_right", "kidney_left")
_PARTS = {
    "muscle": ("autochthon", "iliopsoas", "gluteus", "heart"),
    "bone": ("vertebrae", "sacrum", "rib", "hip", "femur", "sternum", "scapula"),
    "bowel": ("small_bowel", "colon", "duodenum", "esophagus"),
    "air": ("lung",),
    "inferior_vena_cava": ("portal_vein_and_splenic_vein",),
}
"""Structures by the beginning of their names, and the tissue that stands for them."""
_BODY_HU, _FAT_HU, _BONE_HU = -300, -30, 180
_MARGIN = 1.06


def real_abdomen(root: Path, size: Sequence[int], level: float = 0.55) -> Anatomy:
    """Return the labelled CT volume under ``root/abdomen``, reduced to this folder's tissues.

    A volume spans the slices from the lowest to the highest of :data:`_SPANNED`; a slice lies at
    ``level`` (0 lowest, 1 highest) of those that hold them all. Unlabelled voxels of the body go
    by their HU. Voxels are square in the slice, and the body fills the picture. Raises
    :class:`DataError` naming a file that is missing or unfit, :class:`ConfigError` for a size
    too small or a level outside [0, 1] and where nibabel is not installed.
    """
    size = _checked(size)
    if not 0 <= level <= 1:
        raise ConfigError(f"anatomy: level {level:g} must be in [0, 1]")
    folder = root / "abdomen"
    files = [folder / name for name in _FILES]
    for path in files:
        if not path.is_file():
            raise DataError(f"'{path}' is missing; name a data folder that has it, or none")
    ids = read_label_map(files[2], "ct")
    image, label = read_pair(Case("ct_a", files[0], files[1], "ct", "abdomen", "train", ids))
    tissues = _reduced(image.values, label.values, ids)
    spanned = [NAMES.index(name) for name in _SPANNED]
    held = np.array([(tissues == i).any((0, 1)) for i in spanned])
    if not held.all(0).any():
        raise DataError(f"'{folder}': no slice holds all of {', '.join(_SPANNED)}")
    slices = np.flatnonzero(held.all(0) if len(size) == 2 else held.any(0))
    first, last = slices[0], slices[-1]
    if len(size) == 2:
        first = last = slices[round(level * (len(slices) - 1))]
    return _fitted(tissues[:, :, first : last + 1], image.spacing.tolist(), size)


def anatomy(root: Path | None, size: Sequence[int], dims: int) -> Anatomy:
    """Return the real abdomen where ``root`` holds it, else the analytic one.

    ``dims`` says whether ``size`` is meant as a slice (2) or a volume (3); the anatomy's
    ``source`` says which of the two it is.
    """
    if len(size) != dims:
        raise ConfigError(f"anatomy: size {tuple(size)} does not have {dims} dimensions")
    if root is not None and (root / "abdomen" / _FILES[1]).is_file():
        return real_abdomen(root, size)
    return analytic_abdomen(size)


def _reduced(hu: np.ndarray, ids: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """Return tissue ids (x, y, z): labelled structures by name, the rest of the body by HU."""
    parts, found = ndimage.label(ndimage.binary_opening(hu > _BODY_HU))
    sizes = np.bincount(parts.ravel(), minlength=found + 1)
    body = parts == 1 + int(sizes[1:].argmax()) if found else np.zeros(hu.shape, bool)
    tissues = np.zeros(hu.shape, np.uint8)
    tissues[body] = NAMES.index("muscle")
    tissues[body & (hu < _FAT_HU)] = NAMES.index("fat")
    tissues[body & (hu > _BONE_HU)] = NAMES.index("bone")
    for i in np.unique(ids[ids > 0]):
        tissue = _tissue(names.get(int(i), ""))
        if tissue:
            tissues[ids == i] = NAMES.index(tissue)
    # Gas in the bowel is air, whatever the label of the loop around it.
    tissues[(tissues == NAMES.index("bowel")) & (hu < _BODY_HU)] = 0
    return tissues


def _tissue(structure: str) -> str:
    """Return the tissue that stands for a structure; empty where its HU decide."""
    if structure in NAMES:
        return structure
    fits = (name for name, starts in _PARTS.items() if structure.startswith(starts))
    return next(fits, "")


def _fitted(tissues: np.ndarray, spacing: Sequence[float], size: tuple[int, ...]) -> Anatomy:
    """Sample a volume at the nearest voxels, its body in the middle of the picture."""
    filled = [np.flatnonzero(tissues.any(axes)) for axes in ((1, 2), (0, 2))]
    extent = [_MARGIN * (at[-1] - at[0] + 1) * mm for at, mm in zip(filled, spacing, strict=False)]
    across = float(max(extent[0] / size[0], extent[1] / size[1]))
    target = (across, across, *(tissues.shape[2] * spacing[2] / n for n in size[2:]))
    middles = [*((at[0] + at[-1]) / 2 for at in filled), (tissues.shape[2] - 1) / 2]
    # A margin of air, which all that lies outside falls on.
    padded = np.pad(tissues, ((1, 1), (1, 1), (0, 0)))
    index = [
        np.rint(((np.arange(n) - (n - 1) / 2) * to) / of + middle).astype(int)
        for n, to, of, middle in zip(
            (*size, 1)[:3], (*target, 1)[:3], spacing, middles, strict=True
        )
    ]
    x, y = ((at + 1).clip(0, n + 1) for at, n in zip(index[:2], tissues.shape[:2], strict=True))
    z = index[2].clip(0, tissues.shape[2] - 1)
    return Anatomy(padded[np.ix_(x, y, z)].reshape(size), NAMES, target, "TotalSegmentator CT")
