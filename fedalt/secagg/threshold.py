"""How many sites a secure sum needs: below that number nothing is unmasked.

    t = max(⌈(1 − dropouts)·n⌉, ⌊n/2⌋ + 1, 3)

More than half, since otherwise a server could show two disjoint groups of sites two different
lists of survivors and hear both kinds of share of one site (Bonawitz et al. 2017, "Practical
secure aggregation for privacy-preserving machine learning", section 6); three, since of a sum
of two each of them knows the other's part.
"""

from __future__ import annotations

import math

from fedalt.errors import ConfigError

LEAST = 3


def threshold(sites: int, dropouts: float) -> int:
    """Return t for a cohort of so many sites; raises :class:`ConfigError` below three."""
    if sites < LEAST:
        raise ConfigError(
            f"secure aggregation hides one site among others, but the cohort is of {sites}; "
            f"select {LEAST} or more, or protect clients with privacy.trust=local"
        )
    # 0.7 · 10 is 7.000000000000001 in floating point and still means 7.
    return max(math.ceil((1.0 - dropouts) * sites - 1e-9), sites // 2 + 1, LEAST)
