"""Heart disease as numbers that a model learns from, by rules that look at no patient's data.

Means, deviations or modes of the data would tell about patients outside of any privacy account,
so ranges are public ones, from what such values can be in adults, and fixed here:

    measured   x ↦ (2x − low − high)/(high − low), cut to [−1, 1]; missing ↦ 0, the middle
    codes      one 0/1 column a code, all 0 where missing
    yes/no     0 or 1; missing ↦ 0

and each measurement but age, sex and cp, which every hospital records, has a 0/1 column that says
that it is missing: ca, thal and slope nearly always are outside Cleveland.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedalt.data.heart import CODES, FEATURES
from fedalt.errors import DataError

RANGES: Mapping[str, tuple[float, float]] = {
    "age": (20.0, 90.0),  # years
    "trestbps": (80.0, 200.0),  # mm Hg at rest
    "chol": (100.0, 400.0),  # mg/dl
    "thalach": (60.0, 220.0),  # beats a minute, at most 220 less the age
    "oldpeak": (-3.0, 6.0),  # mm of ST depression
    "ca": (0.0, 3.0),  # vessels of three
}
ONE_HOT = ("cp", "restecg", "slope", "thal")
ALWAYS_RECORDED = ("age", "sex", "cp")


def _names() -> tuple[str, ...]:
    names = []
    for column in FEATURES:
        names += [f"{column}={code:g}" for code in CODES[column]] if column in ONE_HOT else [column]
        if column not in ALWAYS_RECORDED:
            names.append(f"{column} missing")
    return tuple(names)


ENCODED = _names()
"""The names of the encoded columns, in their order."""


def encode(values: np.ndarray) -> np.ndarray:
    """Return patients' values (n, 13), NaN where missing, as float32 (n, ``len(ENCODED)``).

    Each row depends on its own patient alone. Raises :class:`DataError` for another shape, or a
    missing age, sex or chest pain.
    """
    if values.ndim != 2 or values.shape[1] != len(FEATURES):
        raise DataError(f"patients have shape {values.shape}, expected (n, {len(FEATURES)})")
    made = list[np.ndarray]()
    for place, column in enumerate(FEATURES):
        found = values[:, place]
        missing = np.isnan(found)
        if column in ALWAYS_RECORDED and missing.any():
            row = int(np.flatnonzero(missing)[0])
            raise DataError(f"patient {row}: {column} is missing, which every hospital records")
        if column in ONE_HOT:
            made += [found == code for code in CODES[column]]
        elif column in RANGES:
            low, high = RANGES[column]
            scaled = (2.0 * found - low - high) / (high - low)
            made.append(np.where(missing, 0.0, np.clip(scaled, -1.0, 1.0)))
        else:
            made.append(np.where(missing, 0.0, found))
        if column not in ALWAYS_RECORDED:
            made.append(missing)
    return np.stack(made, axis=1).astype(np.float32)
