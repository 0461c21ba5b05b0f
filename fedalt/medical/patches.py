"""Patches drawn from prepared volumes, around organs and around background in a set ratio.

As monai's ``RandCropByPosNegLabel``: a patch's centre is an organ's voxel with a set
probability (if there is one) and a background voxel otherwise, then moved so that the patch
lies within the volume. Only the patch is read from a memory map. Every call draws anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedalt.errors import ConfigError
from fedalt.medical.prepare import Prepared

# Where nearly all is organ, background is looked for so often and then any voxel is taken.
TRIES = 200


def draw_patches(
    volumes: Sequence[Prepared],
    size: Sequence[int],
    per_volume: int,
    rng: np.random.Generator,
    foreground: float = 0.5,
    *,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw ``per_volume`` patches of each volume.

    Returns images (n, *size) float32, labels (n, *size) uint8 and which volume each is from
    (n,). Two numbers in ``size`` make axial slices (x, y), three make (x, y, z). A volume that
    is smaller is padded with 0 (background) on both sides alike. ``foreground`` is the
    probability of an organ's voxel as centre; ``balanced`` draws the organ first, each that is
    there as likely as another, and a voxel of it then.
    """
    size = tuple(size)
    if len(size) not in (2, 3) or min(size) < 1:
        raise ConfigError(f"the patch size is {size}; give two or three whole numbers from 1 on")
    if not 0.0 <= foreground <= 1.0:
        raise ConfigError(f"the share of foreground is {foreground}; it must be in [0, 1]")
    which = np.repeat(np.arange(len(volumes)), per_volume)
    images = np.zeros((which.size, *size), np.float32)
    labels = np.zeros((which.size, *size), np.uint8)
    for row, place in enumerate(which):
        volume = volumes[int(place)]
        if rng.random() < foreground and len(volume.foreground):
            centre = organ_voxel(volume, rng, balanced=balanced)
        else:
            centre = background_voxel(volume, rng)
        copy_patch(volume, centre, images[row], labels[row])
    return images, labels, which


def organ_voxel(volume: Prepared, rng: np.random.Generator, *, balanced: bool) -> np.ndarray:
    """Return an organ's voxel (3,): any as likely, or first an organ and then one of its own."""
    first, last = 0, len(volume.foreground)
    if balanced:
        present = np.flatnonzero(np.diff(volume.ends))
        organ = present[rng.integers(len(present))]
        first, last = volume.ends[organ], volume.ends[organ + 1]
    flat = int(volume.foreground[rng.integers(first, last)])
    return np.array(np.unravel_index(flat, volume.label.shape))


def background_voxel(volume: Prepared, rng: np.random.Generator) -> np.ndarray:
    """Return a voxel (3,) of no organ, any as likely as another."""
    for _ in range(TRIES):
        voxel = rng.integers(volume.label.shape)
        if volume.label[tuple(voxel)] == 0:
            break
    return voxel


def copy_patch(volume: Prepared, centre: np.ndarray, image: np.ndarray, label: np.ndarray) -> None:
    """Copy the patch around a centre (3,) into two arrays of its size, which must hold zeros."""
    source, target = [], []
    for axis, wide in enumerate(image.shape):
        length = volume.label.shape[axis]
        inside = min(wide, length)
        start = min(max(int(centre[axis]) - wide // 2, 0), length - inside)
        before = (wide - inside) // 2
        source.append(slice(start, start + inside))
        target.append(slice(before, before + inside))
    if image.ndim == 2:
        source.append(int(centre[2]))  # type: ignore[arg-type]
    image[tuple(target)] = volume.image[tuple(source)]
    label[tuple(target)] = volume.label[tuple(source)]
