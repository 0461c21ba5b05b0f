"""How often each site's data has been touched, by block, modality and task.

The ledger of a run that protects nobody: it has nothing else to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedalt.alternation.block import ALL
from fedalt.alternation.phase import Phase
from fedalt.alternation.planner import RoundSchedule
from fedalt.alternation.site import Site
from fedalt.privacy.release import Release


class TouchLedger:
    """Counts touches per site and (block, modality, task); a reservation already counts.

    A phase whose round fails after dispatch has touched its sites' data all the same, so
    touches are counted when reserved, as privacy accounts must.
    """

    def __init__(self) -> None:
        # A count for each site up to the highest seen: a hundred thousand are 400 KB a cell.
        self._touches: dict[str, np.ndarray] = {}
        self._new: list[tuple[str, Sequence[int]]] = []

    def reserve(self, plan: RoundSchedule) -> RoundSchedule:
        """Count one touch of each site for each block that a phase trains."""
        for part in plan.parts:
            sites = [site.index for site in part.cohort]
            for block in part.phase.train or (ALL,):
                cell = f"{block}|{part.phase.modality}|{part.phase.task}"
                self._count(cell, sites, 1)
                self._new.append((cell, sites))
        return plan

    def commit(self, round_number: int, releases: Sequence[Release]) -> dict[str, float]:
        """Nothing to add: the touch was counted when reserved."""
        return {}

    def abort(self, round_number: int, phase: str, reason: str) -> None:
        """Nothing to take back: who was asked may have computed."""

    def unprotected(self, round_number: int, phase: Phase, cohort: Sequence[Site]) -> None:
        """Nothing to add: evaluations have never been counted as touches."""

    def facts(self) -> dict[str, Any]:
        """Nothing beside what grows."""
        return {}

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

    def spent(self) -> dict[str, dict[str, Any]]:
        """Nothing: no unit is protected."""
        return {}

    def load_state_dict(
        self, state: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> None:
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
