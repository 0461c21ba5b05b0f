"""ImageSet: labelled grey images, split into train and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Grey images (rows, height, width) uint8 with class labels (rows,) int64.

    ``source`` says which data this is and where it came from; runs repeat it.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        for split, x, y in (
            ("train", self.train_x, self.train_y),
            ("test", self.test_x, self.test_y),
        ):
            self._check(split, x, y)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise DataError(
                f"{self.name}: train images are {self.train_x.shape[1:]}, "
                f"test images {self.test_x.shape[1:]}; they must be of one size"
            )

    def _check(self, split: str, x: np.ndarray, y: np.ndarray) -> None:
        where = f"{self.name}, {split}"
        if x.ndim != 3 or x.dtype != np.uint8:
            raise DataError(
                f"{where}: images have shape {x.shape} and type {x.dtype}, "
                "expected (rows, height, width) and uint8"
            )
        if y.shape != x.shape[:1]:
            raise DataError(f"{where}: {len(x)} images, but labels of shape {y.shape}")
        bad = np.flatnonzero((y < 0) | (y >= len(self.classes)))
        if len(bad):
            raise DataError(
                f"{where}: label {y[bad[0]]} at row {bad[0]} lies outside "
                f"0 to {len(self.classes) - 1}"
            )
