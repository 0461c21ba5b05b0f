"""How often rows and clients are drawn in a phase: one rule for accounts and for mechanisms.

In DP-SGD every step draws each row with probability q on its own (Poisson sampling; Abadi et
al. 2016, "Deep learning with differential privacy"), and the gradient is divided by the public
constant q·n, whatever was drawn. An epoch is ⌈1/q⌉ steps. Likewise a sum over clients is
divided by the number that a round expects, whoever came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedalt.alternation.phase import Phase
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError


@dataclass(frozen=True)
class RowSample:
    """A phase's draws from a site's ``rows``: probability ``rate`` in each of ``steps``."""

    rate: float
    steps: int
    rows: int

    @property
    def expected(self) -> float:
        """The expected number of rows in a step: a public constant."""
        return self.rate * self.rows


def row_sample(phase: Phase, rows: int) -> RowSample:
    """Return how a phase with record- or user-level privacy draws from so many rows.

    q is the spec's ``sample_rate``, or the batch size over the number of rows, at most 1. Raises
    :class:`ConfigError` for a phase without a spec, or a site without rows.
    """
    spec = phase.privacy
    if spec is None or rows < 1:
        raise ConfigError(
            f"phase '{phase.name}': a sample needs a privacy spec and rows, not {rows}"
        )
    rate = spec.sample_rate or min(1.0, phase.batch_size / rows)
    # 1/q may come out a hair above the whole number that was meant.
    steps = phase.steps or phase.epochs * math.ceil(1.0 / rate - 1e-9)
    return RowSample(rate, steps, rows)


def rows_shown(size: int, fraction: float) -> int:
    """Return how many of a site's rows a view of this fraction shows: ⌈fraction·n⌉, at least 1."""
    # 0.07·100 is 7.000000000000001 in floating point and still means 7 rows.
    return size if fraction >= 1.0 else max(1, math.ceil(fraction * size - 1e-9))


def expected_clients(phase: Phase, sites: Sequence[Site]) -> float:
    """Return how many clients a round of a phase expects: a public constant, above 0.

    Of the N sites that fit it is rate·N under Poisson sampling, else the number drawn. Raises
    :class:`ConfigError` where no site fits.
    """
    selector = phase.clients
    fitting = len(Roster.of(sites).places(selector))
    if not fitting:
        raise ConfigError(f"phase '{phase.name}': none of {len(sites)} sites fits its clients")
    if selector.mode == "poisson":
        return selector.rate * fitting
    if selector.mode == "fixed":
        return float(selector.count)
    share = selector.rate if selector.mode == "fraction" else 1.0
    # 0.07·100 is 7.000000000000001 in floating point and still means 7 sites.
    return float(max(1, math.ceil(share * fitting - 1e-9)))
