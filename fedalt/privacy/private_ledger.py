"""The ledger of a run that protects someone: every charge, on disk before a message goes out.

Entries stand in a file of their own, ``ledger.jsonl``, whose lines vouch for each other
(``chain``). A run that is killed has spent what it reserved.

Before a round the ledger asks its filter: with the round's charges added, would some site's ε
exceed a budget? Budgets end a run, or leave sites out; no mechanism's parameter is chosen from a
running ε, which would need a filter of its own (Feldman and Zrnic 2021, "Individual privacy
accounting via a Rényi filter").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.alternation.phase import Phase
from fedalt.alternation.planner import PlannedPhase, RoundSchedule
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.errors import CheckpointError, LedgerError
from fedalt.privacy import entries
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.budget import Filter
from fedalt.privacy.chain import Chain, Head, mend, read_chain
from fedalt.privacy.charges import Charge, charges_of, unprotected
from fedalt.privacy.entries import Terms
from fedalt.privacy.ledger import FILE
from fedalt.privacy.release import Release
from fedalt.privacy.replay import Replay, replay, spent
from fedalt.privacy.separation import Separation
from fedalt.privacy.touches import TouchLedger

BANDED = "banded"


class PrivacyLedger:
    """Charges every site for every round, in a file that vouches for itself.

    Opening takes up what the file holds: raises :class:`LedgerError` if it is damaged, or was
    opened on other terms.
    """

    def __init__(self, terms: Terms, roster: Roster, folder: Path, run_id: str) -> None:
        self._terms, self._roster, self._run_id = terms, roster, run_id
        self._path, self._fixed = folder / FILE, not terms.adaptive
        self._touches = TouchLedger()
        self._open: dict[tuple[int, str], tuple[int, list[Charge], int]] = {}
        self._filter = Filter(terms)
        self._turns: dict[str, list[tuple[int, np.ndarray]]] = {}
        self._separations: dict[str, Separation] = {}
        self._account = Account(terms.sites, terms.relation, terms.disjoint, terms.adaptive)
        self._chain = Chain(self._path, self._take_up())
        self._chain.append(entries.opened(run_id, terms))

    def _take_up(self) -> Head | None:
        if not self._path.exists():
            return None
        mend(self._path)
        state = Replay()
        for entry, state in replay(self._path):
            if entry.status == entries.RESERVED and entry.mechanism.name == BANDED:
                _, _, charges = state.open[entry.number]
                turns = self._turns.setdefault(entry.phase, [])
                turns += [(entry.round, charge.sites) for charge in charges]
        if state.account is None or state.terms is None:
            return None
        same = replace(state.terms, budget={}, policy="", config_sha256="", versions={})
        if same != replace(self._terms, budget={}, policy="", config_sha256="", versions={}):
            raise LedgerError(f"{self._path} was opened on other terms than this run's: {same}")
        self._account = state.account
        return state.head

    @property
    def account(self) -> Account:
        """What has been charged."""
        return self._account

    @property
    def head(self) -> Head:
        """Where the ledger's file ends."""
        return self._chain.head

    def reserve(self, plan: RoundSchedule) -> RoundSchedule:
        """Write a round's reservations to disk, once the filter has let it pass."""
        allowed, charges = self._filter.screen(plan, self._account, self._charges)
        for part in allowed.parts:
            self._check_separate(allowed.round, part)
        self._touches.reserve(allowed)
        written, kept = [], []
        for part, costs in zip(allowed.parts, charges, strict=True):
            if not any(len(charge.sites) for charge in costs):
                continue
            self._account.add(costs)
            now = spent(self._account, self._terms)
            asked = len(part.cohort)
            kept.append((part.phase.name, costs, asked))
            written.append(
                entries.reserved(
                    self._run_id, plan.round, part.phase, costs, asked, now, self._fixed
                )
            )
        try:
            numbers = self._chain.append(*written)
        except OSError as error:
            raise CheckpointError(
                f"round {plan.round} cannot be reserved in {self._path} ({error.strerror}); "
                "nothing was sent: make room, then resume the run"
            ) from error
        for (name, costs, asked), number in zip(kept, numbers, strict=True):
            self._open[plan.round, name] = number, costs, asked
        return allowed

    def _check_separate(self, number: int, part: PlannedPhase) -> None:
        """Raise :class:`fedalt.errors.BudgetError` where correlated noise would not hide a site."""
        spec, name = part.phase.privacy, part.phase.name
        if spec is None or spec.mechanism != BANDED:
            return
        if name not in self._separations:
            self._separations[name] = Separation(name, spec.bands)
            for former, sites in self._turns.pop(name, []):
                self._separations[name].enter(former, sites.tolist())
        self._separations[name].enter(number, [site.index for site in part.cohort])

    def _charges(self, part: PlannedPhase) -> list[Charge]:
        return charges_of(part.phase, part.cohort, self._roster)

    def commit(self, round_number: int, releases: Sequence[Release]) -> dict[str, float]:
        """Write what a round released; noise that was not as planned is charged as it was."""
        written = []
        for release in releases:
            opened = self._open.pop((round_number, release.phase.name), None)
            if opened is None:
                continue
            number, planned, asked = opened
            costs = self._settled(release, planned)
            self._account.add(planned, -1)
            self._account.add(costs)
            written.append(
                entries.committed(
                    self._run_id,
                    round_number,
                    release.phase,
                    number,
                    costs,
                    asked,
                    len(release.sites),
                    release.applied,
                    spent(self._account, self._terms),
                    self._fixed,
                )
            )
        self._chain.append(*written)
        now = spent(self._account, self._terms)
        return {f"privacy/{unit}": bound.epsilon for unit, bound in now.items()}

    def _settled(self, release: Release, planned: list[Charge]) -> list[Charge]:
        spec, applied = release.phase.privacy, release.applied
        if spec is None or spec.trust != "distributed" or applied is None:
            return planned
        cohort = [self._roster[int(index)] for charge in planned for index in charge.sites]
        noise = applied.noise_multiplier
        return charges_of(release.phase, cohort, self._roster, noise)

    def abort(self, round_number: int, phase: str, reason: str) -> None:
        """Write that a reservation came to nothing."""
        opened = self._open.pop((round_number, phase), None)
        if opened is None:
            return
        number, costs, _ = opened
        self._account.add(costs, -1)
        now = spent(self._account, self._terms)
        self._chain.append(entries.aborted(self._run_id, round_number, phase, number, reason, now))

    def unprotected(self, round_number: int, phase: Phase, cohort: Sequence[Site]) -> None:
        """Charge what no mechanism protects: from then on the ε of these sites is infinite."""
        charge = unprotected(phase, cohort, ("metrics",))
        self._account.add([charge])
        now = spent(self._account, self._terms)
        asked, number = len(cohort), self.head.lines
        entry = (self._run_id, round_number, phase)
        self._chain.append(
            entries.reserved(*entry, [charge], asked, now, self._fixed),
            entries.committed(*entry, number, [charge], asked, asked, None, now, self._fixed),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of touches; the charges stand in the ledger's file."""
        return self._touches.state_dict()

    def growth(self) -> dict[str, Any]:
        """Return the touches counted since the last call."""
        return self._touches.growth()

    def facts(self) -> dict[str, Any]:
        """Return where the file ends, which a commit vouches for."""
        return {"lines": self.head.lines, "sha256": self.head.sha256}

    def spent(self) -> dict[str, dict[str, Any]]:
        """Return each unit's ε by the smallest sound bound, which takes seconds; see ``Ledger``."""
        delta = self._terms.delta
        found = {
            unit: self._account.worst(Scope(unit), delta, tight=True)
            for unit in self._account.units()
        }
        return {
            unit: {"epsilon": bound.epsilon, "bound": bound.method, "delta": delta}
            for unit, bound in found.items()
        }

    def load_state_dict(
        self, state: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Take up a checkpoint's counts, and see that the file holds all that it vouches for.

        Raises :class:`LedgerError` if it does not: then entries are missing.
        """
        self._touches.load_state_dict(state)
        check_holds(self._path, facts or {})


def check_holds(path: Path, facts: Mapping[str, Any]) -> None:
    """Raise :class:`LedgerError` unless a ledger holds the lines that a commit vouches for."""
    lines, wanted = int(facts.get("lines", 0)), facts.get("sha256", "")
    if not lines:
        return
    found = next((head for _, head in read_chain(path) if head.lines == lines), None)
    if found is None or found.sha256 != wanted:
        raise LedgerError(
            f"{path} lacks entries: the last commit vouches for {lines} lines ending in "
            f"{str(wanted)[:12]}"
        )
