"""Distances between the surfaces of two masks, in mm: HD95 and average surface distance.

A mask's surface is its voxels with a face neighbour outside it; outside the image is outside.
With d(a, B) the Euclidean distance of a voxel's centre to the nearest one of a surface B,

    HD95 = max(P95{d(p, T) : p ∈ P}, P95{d(t, P) : t ∈ T})
    ASSD = (Σ d(p, T) + Σ d(t, P)) / (|P| + |T|)

HD95 is the larger of the two directed percentiles (linear between ranks), as in monai; MedPy
takes the percentile of both directions' distances together. ASSD pools
the voxels of both surfaces, as in monai; MedPy averages the two directed means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage  # type: ignore[import-untyped]
from scipy.spatial import KDTree  # type: ignore[import-untyped]

from fedalt.errors import ConfigError
from fedalt.medical.overlap import check_shapes


class SurfaceDistances(NamedTuple):
    """The 95th percentile of the Hausdorff distance and the average symmetric one, in mm."""

    hd95: float
    assd: float


def surface_distances(
    prediction: ArrayLike, truth: ArrayLike, spacing: Sequence[float]
) -> SurfaceDistances:
    """Return HD95 and ASSD of two masks (x, y[, z]) with voxels of ``spacing`` mm.

    Both are NaN where a mask is empty: there is no distance to a surface that is not there.
    Raises DataError for unequal shapes, ConfigError for a spacing that does not fit.
    """
    predicted, true = np.asarray(prediction, bool), np.asarray(truth, bool)
    check_shapes(predicted, true)
    millimetres = check_spacing(spacing, true.ndim)
    surfaces = [surface_voxels(mask) * millimetres for mask in (predicted, true)]
    if not all(map(len, surfaces)):
        return SurfaceDistances(float("nan"), float("nan"))
    # Trees of surface voxels cost the same however far apart the masks lie; a distance
    # transform pays for the box around both.
    to_truth, to_prediction = (
        KDTree(there).query(here)[0] for here, there in (surfaces, surfaces[::-1])
    )
    return SurfaceDistances(
        hd95=float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
        assd=float(np.concatenate([to_truth, to_prediction]).mean()),
    )


def surface_voxels(mask: np.ndarray) -> np.ndarray:
    """Return the places (voxels, dimensions) of a bool mask's surface."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return np.empty((0, mask.ndim), np.int64)
    inside = mask[boxes[0]]
    surface = inside & ~ndimage.binary_erosion(inside)
    return np.asarray(np.argwhere(surface) + np.array([side.start for side in boxes[0]]))


def check_spacing(spacing: Sequence[float], dimensions: int) -> np.ndarray:
    """Return a spacing as an array, or raise ConfigError if it does not fit the dimensions."""
    given = np.asarray(spacing, np.float64)
    if given.shape != (dimensions,) or not (np.isfinite(given) & (given > 0)).all():
        raise ConfigError(
            f"spacing: {tuple(np.ravel(spacing).tolist())}, but masks of {dimensions} dimensions "
            f"need {dimensions} lengths in mm above 0"
        )
    return given
