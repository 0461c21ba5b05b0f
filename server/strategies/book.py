"""One strategy instance a phase, and the state of each, stock or ours.

Stock strategies assume that every round trains the same arrays; alternation does not. So
each phase has an instance of its own, whose moments belong to that phase's blocks. For a
resume to be exact their state must be in the checkpoint. A phase that protects clients by
noise on their sum has its strategy wrapped, so that it sees nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvgM, Strategy

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds
from fedalt.server.strategies.private import Private, is_wrapped
from fedalt.server.strategies.state import capture, restore

Factory = Callable[[], Strategy]
WRAPPED = "|wrapped"
"""Where the facts of a wrapped strategy stand; no attribute has such a name."""


class StrategyBook:
    """The strategies of a run, by phase name."""

    def __init__(
        self,
        factory: Factory,
        blocks: BlockMap,
        sites: Sequence[Site],
        seeds: Seeds | None = None,
    ) -> None:
        self._factory = factory
        self._seeds = seeds or Seeds(0)
        self._blocks = blocks
        self._sites = sites
        self._made: dict[str, Strategy] = {}

    def __call__(self, phase: Phase) -> Strategy:
        """Return a phase's strategy, told about the phase if it wants to know."""
        if phase.name not in self._made:
            self._made[phase.name] = self._make(is_wrapped(phase))
        strategy = self._made[phase.name]
        enter = getattr(strategy, "enter_phase", None)
        if enter is not None:
            enter(phase, self._blocks, self._sites)
        return strategy

    def export_states(self) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """Return every strategy's arrays, and plain data that says how they belong."""
        arrays: dict[str, dict[str, np.ndarray]] = {}
        facts: dict[str, Any] = {}
        for name, strategy in self._made.items():
            arrays[name], facts[name] = capture(strategy)
            if isinstance(strategy, Private):
                facts[name] = {WRAPPED: facts[name]}
        return arrays, facts

    def import_states(
        self, arrays: Mapping[str, Mapping[str, np.ndarray]], facts: Mapping[str, Any]
    ) -> None:
        """Make every strategy as it was."""
        self._made = {}
        for name, shape in facts.items():
            strategy = self._made[name] = self._make(WRAPPED in shape)
            restore(strategy, arrays.get(name, {}), shape.get(WRAPPED, shape))

    def _make(self, wrapped: bool) -> Strategy:
        strategy = self._factory()
        return Private(strategy, self._seeds) if wrapped else strategy


def rebase(strategy: Strategy, arrays: ArrayRecord) -> None:
    """Let FedAvgM step from the arrays it sends.

    It takes its first round's for a start and then its own results, but under alternation
    other phases move the model between its rounds, and a branch's results never enter it.
    """
    strategy = strategy.inner if isinstance(strategy, Private) else strategy
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = arrays
