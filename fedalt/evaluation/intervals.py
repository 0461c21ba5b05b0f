"""Means over seeds or clients, with the interval that their number allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import ConfigError, DataError, nearest

BANDS = ("interval", "spread")


@dataclass(frozen=True, eq=False)
class Interval:
    """Means, and the ends of a band around them, all of one shape; NaN where nothing was.

    One value alone has no interval: both ends are NaN.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(values: ArrayLike, *, band: str = "interval", level: float = 0.95) -> Interval:
    """Return the mean over the first axis (runs, …), and a band; NaN is left out.

    ``interval`` is Student's for the mean, mean ± t·s/√n, for seeds; ``spread`` the middle
    ``level`` of the values themselves, for many clients. Raises :class:`ConfigError` for an
    unknown band or a level outside (0, 1), :class:`DataError` where there is no run.
    """
    if band not in BANDS:
        raise ConfigError(f"band: unknown '{band}'{nearest(band, BANDS)}")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level is {level:g}, but must lie in (0, 1)")
    runs = np.asarray(values, np.float64)
    if not runs.ndim or not len(runs):
        raise DataError(f"interval: the values' shape is {runs.shape}, but must be (runs, …)")
    flat = runs.reshape(len(runs), -1)
    columns = [_column(column[~np.isnan(column)], band, level) for column in flat.T]
    mean, low, high = np.array(columns).reshape(-1, 3).T.reshape(3, *runs.shape[1:])
    return Interval(mean, low, high)


def _column(values: np.ndarray, band: str, level: float) -> tuple[float, float, float]:
    nan = float("nan")
    if not len(values):
        return nan, nan, nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, nan, nan
    if band == "spread":
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return mean, float(low), float(high)
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    half = float(
        stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    )
    return mean, mean - half, mean + half
