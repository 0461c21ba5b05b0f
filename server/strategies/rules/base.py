"""What an aggregation rule is given and what it gives back.

A rule is a pure function of one block's replies, except for ``state``: named arrays that
the blockwise strategy keeps for it from round to round and commits with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site


@dataclass(frozen=True)
class Contribution:
    """One client's reply for a block. ``weight`` is its declared number of examples."""

    site: int
    weight: float
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RuleContext:
    """Where a rule runs: the round, the phase, the block's current arrays, the rule's state.

    ``sites`` are those of the whole federation, taking part or not; ``metrics`` are what
    the round's clients reported, pooled.
    """

    round: int
    phase: Phase
    current: Mapping[str, np.ndarray]
    sites: Sequence[Site]
    state: MutableMapping[str, np.ndarray]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aggregate:
    """A rule's result: new arrays (any subset of the block's) and metrics of its own."""

    arrays: dict[str, np.ndarray]
    metrics: dict[str, float] = field(default_factory=dict)


Rule = Callable[[RuleContext, Sequence[Contribution]], Aggregate]
"""Replies, ordered by site, to the block's new arrays."""
