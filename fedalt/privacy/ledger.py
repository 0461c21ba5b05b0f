"""The ledger's place in a round: reserve before anything is sent, commit after release.

The loop calls a ledger around every phase, and the ledger's state is part of each atomic
commit. :class:`TouchLedger` counts what every later account of privacy rests on: how often
each site's data has been touched, by block, modality and task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.phase import Phase


class Ledger(Protocol):
    """What the loop asks of a ledger.

    One whose state is as long as the run may also have ``growth()``: what its state gained since
    the last call, as plain data in which numbers are added and lists continued. Then a commit
    writes that instead of the whole state.
    """

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
        # A count for each site up to the highest seen: a hundred thousand are 400 KB a cell.
        self._touches: dict[str, np.ndarray] = {}
        self._new: list[tuple[str, Sequence[int]]] = []

    def reserve(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Count one touch of each site for each block the phase trains."""
        for block in phase.train or (ALL,):
            cell = f"{block}|{phase.modality}|{phase.task}"
            self._count(cell, sites, 1)
            self._new.append((cell, sites))

    def commit(self, round_number: int, phase: Phase, sites: Sequence[int]) -> None:
        """Nothing to add: the touch was counted when reserved."""

    def touches(self) -> dict[str, dict[str, int]]:
        """Return ``block|modality|task`` → site index → number of rounds."""
        return {
            cell: {str(site): int(counts[site]) for site in np.flatnonzero(counts).tolist()}
            for cell, counts in self._touches.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for the checkpoint."""
        return {"touches": self.touches()}

    def growth(self) -> dict[str, Any]:
        """Return what :meth:`state_dict` gained since the last call, to be added up."""
        gained: dict[str, dict[str, int]] = {}
        for cell, sites in self._new:
            counts = gained.setdefault(cell, {})
            for site in sites:
                counts[str(site)] = counts.get(str(site), 0) + 1
        self._new.clear()
        return {"touches": gained}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self._touches, self._new = {}, []
        for cell, counts in state["touches"].items():
            self._count(cell, [int(site) for site in counts], list(counts.values()))

    def _count(self, cell: str, sites: Sequence[int], times: int | Sequence[int]) -> None:
        counts = self._touches.get(cell, np.zeros(0, np.int32))
        highest = max(sites, default=-1)
        if highest >= len(counts):
            # Doubled, so that sites that come one by one do not copy it each time.
            room = max(highest + 1, 2 * len(counts))
            counts = np.concatenate([counts, np.zeros(room - len(counts), np.int32)])
        np.add.at(counts, np.asarray(sites, np.int64), times)
        self._touches[cell] = counts
