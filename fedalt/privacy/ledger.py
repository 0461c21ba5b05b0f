"""The ledger's place in a round: reserve before anything is sent, commit after release.

The loop calls a ledger around every round, and what the ledger needs to go on is part of each
atomic commit. A run that protects nobody has a :class:`fedalt.privacy.touches.TouchLedger`; one
with a privacy spec a :class:`fedalt.privacy.private_ledger.PrivacyLedger`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fedalt.alternation.phase import Phase
from fedalt.alternation.planner import RoundSchedule
from fedalt.alternation.site import Site
from fedalt.privacy.release import Release

FILE = "ledger.jsonl"


class Ledger(Protocol):
    """What the loop asks of a ledger.

    ``growth()`` is what :meth:`state_dict` gained since the last call, as plain data in which
    numbers are added and lists continued; ``facts()`` what a commit holds beside it.
    """

    def reserve(self, plan: RoundSchedule) -> RoundSchedule:
        """Note what a round is about to spend; return it without those who have no budget left.

        Raises :class:`fedalt.errors.BudgetError` to forbid the round; then nothing was noted.
        """

    def commit(self, round_number: int, releases: Sequence[Release]) -> dict[str, float]:
        """Note what a round released; return the ε spent so far, by unit."""

    def abort(self, round_number: int, phase: str, reason: str) -> None:
        """Note that nothing of what was reserved for a phase was, or will be, released."""

    def unprotected(self, round_number: int, phase: Phase, cohort: Sequence[Site]) -> None:
        """Note a release that no phase of the plan stands for, such as an evaluation's metrics."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for the checkpoint."""

    def growth(self) -> dict[str, Any]:
        """Return what the state gained since the last call."""

    def facts(self) -> dict[str, Any]:
        """Return what a commit holds beside the state."""

    def spent(self) -> dict[str, dict[str, Any]]:
        """Return the largest ε over sites of each unit, by the smallest sound bound, at its δ."""

    def load_state_dict(
        self, state: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Take up where a checkpoint left off."""
