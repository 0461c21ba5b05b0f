"""The ledger's place in a round: reserve before anything is sent, commit after release.

The loop calls a ledger around every phase, and the ledger's state is part of each atomic
commit. :class:`TouchLedger` counts what every later account of privacy rests on: how often
each site's data has been touched, by block, modality and task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fedalt.alternation.block import ALL
from fedalt.alternation.phase import Phase


class Ledger(Protocol):
    """What the loop asks of a ledger."""

    def reserve(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Note what is about to be spent; may raise ``BudgetError`` to forbid the phase."""

    def commit(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Note that the phase's result was released; ``sites`` are those that replied."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for the checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left off."""


class TouchLedger:
    """Counts touches per site and (block, modality, task); a reservation already counts.

    A phase whose round fails after dispatch has touched its sites' data all the same, so
    touches are counted when reserved, as privacy accounts must.
    """

    def __init__(self) -> None:
        self._touches: dict[str, dict[str, int]] = {}

    def reserve(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Count one touch of each site for each block the phase trains."""
        for block in phase.train or (ALL,):
            cell = self._touches.setdefault(f"{block}|{phase.modality}|{phase.task}", {})
            for site in sites:
                cell[str(site)] = cell.get(str(site), 0) + 1

    def commit(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Nothing to add: the touch was counted when reserved."""

    def touches(self) -> dict[str, dict[str, int]]:
        """Return ``block|modality|task`` → site index → number of rounds."""
        return {cell: dict(sites) for cell, sites in self._touches.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for the checkpoint."""
        return {"touches": self.touches()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self._touches = {cell: dict(sites) for cell, sites in state["touches"].items()}
