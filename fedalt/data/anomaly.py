"""AnomalySet: normal records to learn from, labelled records to be judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.errors import DataError, nearest

NORMAL = "normal"


@dataclass(frozen=True)
class AnomalySet:
    """What every anomaly-detection scenario reads, whatever the data.

    ``train_x`` (rows, d) float64 holds normal records only. ``test_x`` (rows, d) comes with
    ``test_attack`` (bool), ``test_family`` (``normal`` or the kind of attack) and
    ``test_label`` (the label as published). Values are raw, not standardised.
    """

    name: str
    features: tuple[str, ...]
    train_x: np.ndarray
    test_x: np.ndarray
    test_attack: np.ndarray
    test_family: np.ndarray
    test_label: np.ndarray
    source: str

    def __post_init__(self) -> None:
        if len(set(self.features)) != len(self.features):
            raise DataError(f"{self.name}: feature names repeat: {', '.join(self.features)}")
        self._check_values("train", self.train_x)
        self._check_values("test", self.test_x)
        for field in ("test_attack", "test_family", "test_label"):
            shape = getattr(self, field).shape
            if shape != self.test_x.shape[:1]:
                raise DataError(f"{self.name}: {field} has shape {shape}, {len(self.test_x)} rows")
        odd = np.flatnonzero(self.test_attack != (self.test_family != NORMAL))
        if len(odd):
            row = odd[0]
            raise DataError(
                f"{self.name}: test row {row} is of family '{self.test_family[row]}' "
                f"but has attack = {bool(self.test_attack[row])}"
            )

    def _check_values(self, split: str, x: np.ndarray) -> None:
        width = len(self.features)
        if x.ndim != 2 or x.shape[1] != width or x.dtype != np.float64:
            raise DataError(
                f"{self.name}: {split} has shape {x.shape} and type {x.dtype}, "
                f"expected (rows, {width}) and float64"
            )
        if len(x) == 0:
            raise DataError(f"{self.name}: {split} has no rows")
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, column = bad[0]
            raise DataError(
                f"{self.name}: {split} row {row}, column '{self.features[column]}' is "
                f"{x[row, column]}; every value must be finite"
            )

    def column(self, feature: str) -> int:
        """Return a feature's column; :class:`DataError` with the nearest name if unknown."""
        if feature not in self.features:
            raise DataError(
                f"{self.name} has no feature '{feature}'{nearest(feature, self.features)}"
            )
        return self.features.index(feature)
