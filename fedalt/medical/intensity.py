"""Intensities by modality: a window of Hounsfield units for CT, a z-score for MR.

CT has absolute units, MR has not: its values depend on the scanner and the sequence.
"""

from __future__ import annotations

import numpy as np

from fedalt.errors import DataError, nearest
from fedalt.medical.site_table import MODALITIES

CT_WINDOW = (-125.0, 275.0)


def window(image: np.ndarray, low: float = CT_WINDOW[0], high: float = CT_WINDOW[1]) -> np.ndarray:
    """Return the image as float32, [low, high] scaled to [0, 1] and clipped; any shape."""
    scaled: np.ndarray = np.clip((image.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    return scaled


def zscore(image: np.ndarray) -> np.ndarray:
    """Return the image as float32 with mean 0 and deviation 1 over its voxels that are not 0.

    Voxels that are 0, the background of most MR images, stay 0. Raises :class:`DataError` for
    an image of which all other voxels are equal: it shows nothing.
    """
    inside = image != 0
    values = image[inside].astype(np.float64)
    deviation = values.std() if values.size else 0.0
    if deviation <= 1e-6 * np.abs(values).max(initial=0.0):
        raise DataError("all of the image's voxels that are not 0 are equal; there is no z-score")
    scaled = np.zeros(image.shape, np.float32)
    scaled[inside] = (values - values.mean()) / deviation
    return scaled


def normalise(image: np.ndarray, modality: str) -> np.ndarray:
    """Return an image by its modality's rule: ``ct`` windowed, ``mr`` as a z-score.

    Raises :class:`DataError` for an unknown modality and for an image that shows nothing.
    """
    if modality not in MODALITIES:
        raise DataError(f"unknown modality '{modality}'{nearest(modality, MODALITIES)}")
    if modality == "mr":
        return zscore(image)
    scaled = window(image)
    if scaled.min() == scaled.max():
        low, high = CT_WINDOW
        raise DataError(
            f"no voxel differs from another in the window of {low:g} to {high:g} HU (values: "
            f"{image.min():g} to {image.max():g}); is it CT in Hounsfield units?"
        )
    return scaled
