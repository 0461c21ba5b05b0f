"""Small NIfTI files for tests: a body with two organs on either side, in any orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image, save
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from fedalt.medical.site_table import Case, Split

SHAPE = (14, 10, 8)
AFFINE = np.array([[3.0, 0, 0, -20], [0, 2, 0, 5], [0, 0, 4, 11], [0, 0, 0, 1]])
IDS = {1: "spleen", 5: "liver"}


def body(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a RAS+ image (HU, int16) and ids: liver (5) to the right, spleen (1) to the left."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-200, 300, SHAPE).astype(np.int16)
    ids = np.zeros(SHAPE, np.uint8)
    ids[9:13, 2:8, 2:6] = 5
    ids[1:4, 3:6, 3:6] = 1
    return image, ids


def write(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, axes: str = "RAS") -> Path:
    """Write RAS+ values as a file whose voxel axes run towards ``axes``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes)))
    turned = apply_orientation(values, turn)
    save(Nifti1Image(turned, affine @ inv_ornt_aff(turn, values.shape), dtype=values.dtype), path)
    return path


def write_case(
    folder: Path, name: str = "a", modality: str = "ct", axes: str = "RAS", split: Split = "train"
) -> Case:
    """Write the body's two files and return them as a case of the site ``north``."""
    image, ids = body()
    return Case(
        name,
        write(folder / f"{name}_image.nii.gz", image, axes=axes),
        write(folder / f"{name}_labels.nii.gz", ids, axes=axes),
        modality,
        "north",
        split,
        IDS,
    )
