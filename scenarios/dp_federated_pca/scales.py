"""Units that nobody's records had a say in.

Standardising by the deviations of the data would have to be paid for; these widths are known
without looking at a record, so they cost nothing:

    x̃ = x/width   or   x̃ = sign(x)·log(1 + |x|)/log(1 + width),   then cut to [−1, 1]

NSL-KDD: rates lie in [0, 1]; bytes are 32-bit counts, a connection lasts a day at most, and the
windows count up to 511 and 255 (the KDD Cup 1999 task description); other counts get the width of
a byte, and what exceeds it is cut. Counts are logarithmic. Shuttle: sensors, of a signed byte's
width. Synthetic: 32, linear, as a logarithm would bend its factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedalt.data.nsl_kdd_names import FEATURES

BYTE = 255.0
COUNTS = {
    "duration": 86_400.0,
    "src_bytes": 2.0**32,
    "dst_bytes": 2.0**32,
    "count": 511.0,
    "srv_count": 511.0,
}
"""Widths of NSL-KDD's counts that exceed a byte."""


@dataclass(frozen=True)
class Scale:
    """Public widths (d,), or one for all, and which columns are logarithmic."""

    widths: np.ndarray
    logarithmic: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, d) in these units, in [−1, 1]; what is no number stays so."""
        logs = np.sign(rows) * np.log1p(np.abs(rows)) / np.log1p(self.widths)
        scaled = np.where(self.logarithmic, logs, rows / self.widths)
        cut: np.ndarray = np.clip(scaled, -1.0, 1.0)
        return cut


def scale_of(name: str) -> Scale:
    """Return the units of a data set, by an :class:`fedalt.data.AnomalySet`'s name."""
    if name == "NSL-KDD":
        rate = np.array([feature.endswith("rate") for feature in FEATURES])
        counts = np.array([COUNTS.get(feature, BYTE) for feature in FEATURES])
        return Scale(np.where(rate, 1.0, counts), ~rate)
    width = 128.0 if name == "Shuttle" else 32.0
    return Scale(np.array(width), np.array(False))
