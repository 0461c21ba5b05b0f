"""A histogram sketch: quantiles of scores that stay where they were computed.

Values are counted in fixed bins, evenly spaced in their logarithm; sketches of several
sites merge by adding their counts, so the merge can run under secure aggregation. The
quantile read from the sum is off by a bounded *relative* error, whatever the values are.

    ratio r = 10^(1/bins per decade);  bin centre √(lower·upper);  |error| ≤ √r − 1

Source: the idea of Masson, Rim, Lee, "DDSketch" (VLDB 2019), with a fixed range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError, DataError


@dataclass(frozen=True)
class LogBins:
    """Bins from 10^``low`` to 10^``high``, plus one below and one above."""

    low: int = -6
    high: int = 6
    per_decade: int = 100

    def __post_init__(self) -> None:
        if self.low >= self.high or self.per_decade < 1:
            raise ConfigError(
                f"bins from 10^{self.low} to 10^{self.high} with {self.per_decade} a decade: "
                "low must be below high and there must be at least one bin"
            )

    @property
    def size(self) -> int:
        """Length of a sketch: the bins, the underflow (first) and the overflow (last)."""
        return (self.high - self.low) * self.per_decade + 2

    @property
    def relative_error(self) -> float:
        """Largest relative error of a quantile that lies inside the range."""
        return math.sqrt(10.0 ** (1.0 / self.per_decade)) - 1.0

    def edges(self) -> np.ndarray:
        """Return the ``size − 1`` edges between the bins."""
        steps = (self.high - self.low) * self.per_decade
        edges: np.ndarray = 10.0 ** (self.low + np.arange(steps + 1) / self.per_decade)
        return edges

    def count(self, values: np.ndarray) -> np.ndarray:
        """Count non-negative ``values`` (n,) into a sketch (size,) of float64; n may be 0.

        Raises :class:`DataError` for NaN or negative values.
        """
        values = np.asarray(values, dtype=np.float64).reshape(-1)
        if np.isnan(values).any() or (values < 0).any():
            raise DataError("scores hold NaN or negative values and cannot be counted in bins")
        bins = np.searchsorted(self.edges(), values, side="right")
        return np.bincount(bins, minlength=self.size).astype(np.float64)

    def quantile(self, counts: np.ndarray, q: float) -> float:
        """Return the smallest value with at least a share ``q`` of the counts at or below it.

        A quantile in the underflow bin is reported as that bin's upper edge. Counts below
        zero, as noise may leave them, are read as zero. Raises :class:`ConfigError` for a
        ``q`` outside (0, 1] and :class:`DataError` for an empty sketch, a sketch of another
        size, or a quantile above the range, where no error bound holds.
        """
        if not 0.0 < q <= 1.0:
            raise ConfigError(f"quantile is {q}, but must lie in (0, 1]")
        if counts.shape != (self.size,):
            raise DataError(f"the sketch has shape {counts.shape}, these bins have {(self.size,)}")
        below = np.cumsum(np.maximum(counts, 0.0))
        if below[-1] <= 0.0:
            raise DataError("the sketch is empty: no site held out any rows to set a quantile on")
        # The tolerance keeps q·n = 95.00000000000001 from asking for the 96th value.
        found = int(np.searchsorted(below, q * below[-1] * (1.0 - 1e-12), side="left"))
        if found == self.size - 1:
            raise DataError(
                f"the {q} quantile lies above 10^{self.high}, the last bin's edge; "
                "standardise the rows, or count them in wider bins"
            )
        edges = self.edges()
        if found == 0:
            return float(edges[0])
        return float(math.sqrt(edges[found - 1] * edges[found]))


SCORE_BINS = LogBins()
"""The bins that sites and server share for anomaly scores: relative error below 1.2 %."""
