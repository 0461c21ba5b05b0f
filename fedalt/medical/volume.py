"""NIfTI volumes: read as RAS+, checked, with an error that names the file for each fault.

RAS+ means that the axes' indices grow to the patient's right, front and head.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.errors import ConfigError, DataError
from fedalt.medical.site_table import Case

if TYPE_CHECKING:
    from types import ModuleType

# How far a label's grid may lie off its image's, as a share of the smallest voxel edge.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Volume:
    """Values (x, y, z) in RAS+ order and the affine (4, 4) from voxel indices to mm."""

    values: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """The voxels' edges (3,) in mm."""
        return spacing_of(self.affine)


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Return the voxels' edges (3,) in mm of an affine (4, 4)."""
    edges: np.ndarray = np.linalg.norm(affine[:3, :3], axis=0)
    return edges


def read_pair(case: Case) -> tuple[Volume, Volume]:
    """Return a case's image (float32) and its label (whole numbers from 0 on).

    Raises :class:`DataError` naming the file for bytes that are no NIfTI, voxels that are not
    finite, labels that are not whole numbers, and grids of image and label that differ in
    shape, or in place by more than a tenth of a voxel.
    """
    image = read_image(case.image)
    label = read_label(case.label)
    if image.values.shape != label.values.shape:
        raise DataError(
            f"the image '{case.image}' has shape {image.values.shape} and its label "
            f"'{case.label}' has {label.values.shape} (both in RAS order); "
            "a label needs its image's grid"
        )
    apart = _apart(image, label)
    if apart > TOLERANCE * image.spacing.min():
        raise DataError(
            f"the image '{case.image}' and its label '{case.label}' have grids {apart:.3g} mm "
            f"apart (allowed: {TOLERANCE} of a voxel); put the label on its image's grid, or "
            "correct the affine in one of their headers"
        )
    # One affine for both: the smallest difference could round to two shapes at a new spacing.
    return image, Volume(label.values, image.affine)


def read_image(path: Path) -> Volume:
    """Return a NIfTI image as float32 in RAS+ order; see :func:`read_pair` for its errors."""
    values, affine = _read(path)
    values = values.astype(np.float32, copy=False)
    faulty = int(values.size - np.isfinite(values).sum())
    if faulty:
        raise DataError(
            f"the image '{path}' has {faulty} voxels that are NaN or infinite; "
            "replace them, or leave the case out"
        )
    return Volume(values, affine)


def read_label(path: Path) -> Volume:
    """Return a NIfTI label as whole numbers in RAS+ order; see :func:`read_pair`."""
    values, affine = _read(path)
    whole = values
    if not np.issubdtype(values.dtype, np.integer):
        # NaN compares unequal to itself, so it is refused with the fractions.
        fractions = values != np.rint(values)
        if fractions.any() or not np.isfinite(values).all():
            odd = values[fractions | ~np.isfinite(values)].ravel()[0]
            raise DataError(
                f"the label '{path}' has the value {odd:g}; a label's values are whole "
                "numbers, so resample it with nearest neighbours"
            )
        whole = values.astype(np.int64)
    if whole.size and whole.min() < 0:
        raise DataError(f"the label '{path}' has the value {whole.min()}; labels start at 0")
    return Volume(whole, affine)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a file's values (x, y, z) in RAS+ order and its affine, which must be usable."""
    nibabel = _nibabel()
    try:
        stored = nibabel.load(path)
        values = np.asanyarray(stored.dataobj)
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist; correct its path in the site table") from error
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise DataError(f"'{path}' is no NIfTI file ({error}); get the original again") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"'{path}' is a damaged or truncated NIfTI file ({error}); get the original again"
        ) from error
    if not isinstance(stored, nibabel.Nifti1Pair):
        raise DataError(f"'{path}' is no NIfTI file but {type(stored).__name__}; convert it")
    _check(path, stored, values)
    values = values.reshape(values.shape[:3])
    # By orientation and not by as_closest_canonical, whose images refuse 64-bit integers.
    turn = nibabel.io_orientation(stored.affine)
    affine = stored.affine @ nibabel.orientations.inv_ornt_aff(turn, values.shape)
    return nibabel.apply_orientation(values, turn), affine


def _check(path: Path, stored: Any, values: np.ndarray) -> None:
    """Refuse values that are no volume of numbers and affines that place no voxel."""
    if values.dtype.kind not in "iuf":
        raise DataError(f"'{path}' holds {values.dtype} voxels; one plain number each is needed")
    if values.ndim < 3 or values.shape[3:] != (1,) * (values.ndim - 3) or not values.size:
        raise DataError(
            f"'{path}' has shape {values.shape}; a volume (x, y, z) is needed, so split it "
            "into one file for each time or channel"
        )
    if not (stored.header["sform_code"] or stored.header["qform_code"]):
        # nibabel would guess one, and a wrong guess swaps left and right organs unseen.
        raise DataError(
            f"'{path}' does not say how it lies (sform_code and qform_code are 0); "
            "set its affine from the original scan"
        )
    affine = stored.affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"'{path}' has the affine {affine[:3].tolist()}, which spans no volume")


def _apart(image: Volume, label: Volume) -> float:
    """Return by how many mm a corner of the two grids lies apart at most."""
    corners = np.array([(*c, 1) for c in product(*((0, n - 1) for n in image.values.shape))])
    return float(np.linalg.norm(corners @ (image.affine - label.affine).T, axis=1).max())


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise ConfigError(
            "reading NIfTI files needs nibabel; install it: pip install 'fedalt[medical]'"
        ) from error
    module: ModuleType = nibabel
    return module
