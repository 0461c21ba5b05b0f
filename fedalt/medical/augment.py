"""Random changes of patches by modality, as MulModSeg's code makes them.

CT: intensities shifted by up to 0.1, the patch turned by up to pi/30 about the head axis and
scaled by up to a tenth along each axis. MR: intensities scaled by up to a tenth and shifted by up
to 0.1. Each change is made to half of the patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

PROBABILITY = 0.5
SHIFT = 0.1
SCALE = 0.1
ANGLE = math.pi / 30


def augment(
    images: np.ndarray, labels: np.ndarray, modalities: Sequence[str], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return changed copies of images (n, *size) and labels (n, *size), 2-D or 3-D.

    ``modalities`` names each row's. Labels follow changes of shape by nearest voxels.
    """
    images, labels = images.copy(), labels.copy()
    for row, modality in enumerate(modalities):
        if modality == "mr":
            if rng.random() < PROBABILITY:
                images[row] *= 1.0 + rng.uniform(-SCALE, SCALE)
            if rng.random() < PROBABILITY:
                images[row] += rng.uniform(-SHIFT, SHIFT)
            continue
        if rng.random() < PROBABILITY:
            images[row] += rng.uniform(-SHIFT, SHIFT)
        if rng.random() < PROBABILITY:
            angle = rng.uniform(-ANGLE, ANGLE)
            scale = 1.0 + rng.uniform(-SCALE, SCALE, images.ndim - 1)
            images[row] = turned(images[row], angle, scale, order=1)
            labels[row] = turned(labels[row], angle, scale, order=0)
    return images, labels


def turned(patch: np.ndarray, angle: float, scale: np.ndarray, order: int) -> np.ndarray:
    """Return a patch turned in its first two axes and magnified about its centre.

    ``angle`` in radians, from the first axis to the second; ``scale`` by axis; ``order`` 1 is
    linear, 0 the nearest voxel. Beyond the border its values are repeated.
    """
    turn = np.eye(patch.ndim)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    # The transform maps places of the result to places of the patch: the inverse.
    back = np.linalg.inv(turn @ np.diag(scale))
    centre = (np.array(patch.shape) - 1) / 2
    result: np.ndarray = ndimage.affine_transform(
        patch, back, offset=centre - back @ centre, order=order, mode="nearest"
    )
    return result
