"""What a task makes of an image: its pixels in another order, or turned by an angle.

Both are linear in the pixels and fixed by the task alone, so that training rows, held-out
rows and test rows of all clients go through one and the same map. Permuted MNIST:
Goodfellow et al., arXiv:1312.6211; rotated MNIST: Lopez-Paz and Ranzato, arXiv:1706.08840.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, sparse  # type: ignore[import-untyped]

from fedalt.errors import ConfigError
from fedalt.seeds import Seeds


@dataclass(frozen=True)
class Unchanged:
    """Every task sees the images as they are."""

    def __call__(self, images: torch.Tensor, task: int) -> torch.Tensor:
        """Return images (n, pixels)."""
        return images


@dataclass(frozen=True)
class Permutations:
    """One order of the pixels for each task: (pixels,) int64."""

    orders: tuple[torch.Tensor, ...]

    def __call__(self, images: torch.Tensor, task: int) -> torch.Tensor:
        """Return images (n, pixels) with the pixels in the task's order."""
        return images.index_select(1, self.orders[task])


@dataclass(frozen=True)
class Rotations:
    """One turn for each task: sparse (pixels out, pixels in), each row a bilinear mean.

    A turn is kept as its at most four weights a pixel (26 kB at 28 × 28) and made anew for the
    rows asked, where a copy of all images for each task would take hundreds of megabytes.
    """

    turns: tuple[sparse.csr_matrix, ...]

    def __call__(self, images: torch.Tensor, task: int) -> torch.Tensor:
        """Return images (n, pixels) float32, turned; what comes from outside is 0."""
        turned = self.turns[task] @ np.ascontiguousarray(images.numpy().T)
        # Weights sum to 1 but for rounding.
        return torch.from_numpy(np.ascontiguousarray(turned.T)).clamp_(max=1.0)


def permutations(tasks: int, pixels: int, first_identity: bool, seeds: Seeds) -> Permutations:
    """Draw a permutation for each task; with ``first_identity`` task 0 keeps the order."""
    orders = []
    for task in range(tasks):
        keep = first_identity and task == 0
        order = np.arange(pixels) if keep else seeds.at(task).numpy().permutation(pixels)
        orders.append(torch.from_numpy(order))
    return Permutations(tuple(orders))


def rotations(angles: Sequence[float], side: int) -> Rotations:
    """Return turns by angles in degrees, counter-clockwise about the centre."""
    return Rotations(tuple(_turn(angle, side) for angle in angles))


def even_angles(tasks: int, largest: float) -> list[float]:
    """Return angles spread evenly over [0, largest] degrees, both ends among them.

    Raises :class:`ConfigError` where two of them would be the same turn.
    """
    angles = [float(angle) for angle in np.linspace(0.0, largest, tasks)]
    check_angles(angles)
    return angles


def check_angles(angles: Sequence[float]) -> None:
    """Raise :class:`ConfigError` where two angles are the same turn."""
    first: dict[float, int] = {}
    for task, angle in enumerate(angles):
        turn = round(angle % 360.0, 9) % 360.0
        if turn in first:
            raise ConfigError(
                f"task.variant 'rotated': tasks {first[turn]} and {task} turn by "
                f"{angles[first[turn]]:g}° and {angle:g}°, which is the same; give other angles"
            )
        first[turn] = task


def _turn(angle: float, side: int) -> sparse.csr_matrix:
    """Return the matrix of scipy's bilinear rotation: what it makes of each single pixel."""
    pixels = side * side
    single = np.eye(pixels, dtype=np.float32).reshape(pixels, side, side)
    # scipy turns from the first of the axes towards the second: rows to columns.
    made = ndimage.rotate(single, angle, axes=(1, 2), reshape=False, order=1)
    return sparse.csr_matrix(made.reshape(pixels, pixels).T)
