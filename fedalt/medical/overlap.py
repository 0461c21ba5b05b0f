"""Dice overlap of label maps, with one policy for organs that are absent.

Dice = 2|P ∩ T| / (|P| + |T|) for a predicted set of voxels P and the true one T (Dice 1945).
What it is where one of them is empty:

=====  =====  =======================================================
T      P      Dice
=====  =====  =======================================================
empty  empty  NaN: nothing to judge; means leave it out
empty  some   0: a false alarm
some   empty  0: a miss
=====  =====  =======================================================

An organ that a site does not label is NaN as well, whatever was predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Voxel counts (n, K−1) of n label maps by organ: in ``both``, ``predicted`` and ``true``."""

    both: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @property
    def missed(self) -> np.ndarray:
        """Where an organ is there and not one voxel of it was predicted."""
        return np.asarray((self.true > 0) & (self.predicted == 0))

    @property
    def false_alarms(self) -> np.ndarray:
        """Where an organ is not there and was predicted."""
        return np.asarray((self.true == 0) & (self.predicted > 0))

    @property
    def dice(self) -> np.ndarray:
        """Dice, by the policy above."""
        voxels = self.predicted + self.true
        return np.where(voxels > 0, 2.0 * self.both / np.maximum(voxels, 1), np.nan)


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return the Dice of two masks of equal shape; NaN if both are empty.

    Raises DataError for unequal shapes.
    """
    predicted, true = np.asarray(prediction, bool), np.asarray(truth, bool)
    check_shapes(predicted, true)
    return float(batch_dice(predicted[None], true[None], 2)[0, 0])


def batch_dice(
    prediction: ArrayLike, truth: ArrayLike, classes: int, known: ArrayLike | None = None
) -> np.ndarray:
    """Return the Dice (n, K−1) of n label maps (n, *size) of ``classes`` = K with background.

    ``known`` (K,) or (n, K) says which classes are labelled; the others are NaN. Raises DataError
    for unequal shapes and for labels that are no class, ConfigError for ``known`` that does not
    fit.
    """
    counted = overlaps(prediction, truth, classes)
    return np.where(known_organs(known, len(counted.dice), classes), counted.dice, np.nan)


def overlaps(prediction: ArrayLike, truth: ArrayLike, classes: int) -> Overlaps:
    """Count the voxels of n label maps (n, *size) by organ, in one pass over all of them."""
    if classes < 2:
        raise ConfigError(f"classes: {classes}, but there are a background and an organ at least")
    predicted, true = np.asarray(prediction), np.asarray(truth)
    check_shapes(predicted, true)
    rows = len(true)
    flat = [
        _labels(name, labels, classes).reshape(rows, -1)
        for name, labels in (("prediction", predicted), ("truth", true))
    ]
    start = classes * np.arange(rows)[:, None]
    agreed = flat[0] == flat[1]

    def count(places: np.ndarray) -> np.ndarray:
        counts = np.bincount(places.ravel(), minlength=rows * classes)
        return counts.reshape(rows, classes)[:, 1:]

    return Overlaps(
        both=count((flat[1] + start)[agreed]),
        predicted=count(flat[0] + start),
        true=count(flat[1] + start),
    )


def known_organs(known: ArrayLike | None, rows: int, classes: int) -> np.ndarray:
    """Return which organs (rows, K−1) are labelled, from ``known``: (K,), (rows, K) or all."""
    given = np.ones(classes, bool) if known is None else np.asarray(known, bool)
    if given.shape not in ((classes,), (rows, classes)):
        raise ConfigError(
            f"known: shape {given.shape}, expected ({classes},) or ({rows}, {classes}): "
            "all classes, background first"
        )
    return np.broadcast_to(given[..., 1:], (rows, classes - 1))


def check_shapes(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raise DataError unless a prediction and its truth have one shape."""
    if prediction.shape != truth.shape:
        raise DataError(
            f"prediction has shape {prediction.shape}, truth {truth.shape}: "
            "judge both on one grid of voxels"
        )


def _labels(name: str, labels: np.ndarray, classes: int) -> np.ndarray:
    if not (labels.dtype == bool or np.issubdtype(labels.dtype, np.integer)):
        raise DataError(f"{name}: labels are whole numbers, not {labels.dtype} (argmax first?)")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{name}: labels from {labels.min()} to {labels.max()}, but the classes are 0 to "
            f"{classes - 1}"
        )
    return labels.astype(np.int64, copy=False)
