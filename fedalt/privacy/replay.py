"""A ledger's entries in order, and the account they make: for resuming and for verifying.

A reservation is charged when it is read. A commit replaces it by what was really spent, an
abort takes it back; one that nothing settles stays charged, since what it reserved for may have
been sent before the process died.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedalt.errors import ConfigError, LedgerError, WireError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.chain import Head, read_chain
from fedalt.privacy.charges import Charge
from fedalt.privacy.entries import (
    ABORTED,
    COMMITTED,
    OPENED,
    RESERVED,
    Terms,
    read_charge,
    read_entry,
    read_terms,
)
from fedalt.wire.v1 import ledger_pb2

SLACK = 1e-6
"""By how much, relatively, an ε stated on another machine may differ from ours."""


@dataclass
class Replay:
    """What a ledger says: its terms, its account, and the reservations that are still open."""

    terms: Terms | None = None
    run_id: str = ""
    account: Account | None = None
    open: dict[int, tuple[int, str, list[Charge]]] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    rounds: int = 0
    """The highest round of which something was committed."""

    def enter(self, entry: ledger_pb2.LedgerEntry) -> None:
        """Take in the next entry; raises :class:`LedgerError` for one that cannot follow."""
        if entry.status == OPENED:
            self._open_terms(entry)
            return
        if self.account is None or self.terms is None or entry.run_id != self.run_id:
            raise LedgerError(f"entry {entry.number} is not of the run that opened the ledger")
        charges = [read_charge(c, self.terms.sites, self.run_id) for c in entry.charges]
        if entry.status == RESERVED:
            self.account.add(charges)
            self.open[entry.number] = (entry.round, entry.phase, charges)
        elif entry.status in (COMMITTED, ABORTED):
            former = self._settled(entry)
            self.account.add(former, -1)
            self.account.add(charges)
            if entry.status == COMMITTED:
                self.rounds = max(self.rounds, entry.round)
        else:
            raise LedgerError(f"entry {entry.number} has the unknown status '{entry.status}'")

    def _settled(self, entry: ledger_pb2.LedgerEntry) -> list[Charge]:
        number, phase, charges = self.open.pop(entry.settles, (0, "", []))
        if (number, phase) != (entry.round, entry.phase):
            raise LedgerError(
                f"entry {entry.number} settles entry {entry.settles}, which is no open "
                f"reservation of round {entry.round}, phase '{entry.phase}'"
            )
        return charges

    def _open_terms(self, entry: ledger_pb2.LedgerEntry) -> None:
        terms = read_terms(entry.terms)
        if self.account is None:
            self.run_id = entry.run_id
            self.account = Account(terms.sites, terms.relation, terms.disjoint, terms.adaptive)
        elif self.terms is None or _unlike(terms, self.terms) or entry.run_id != self.run_id:
            raise LedgerError(f"entry {entry.number} opens the ledger on other terms than before")
        self.terms = terms

    def spent(self) -> dict[str, Bound]:
        """Return the largest ε over sites of each unit that some mechanism protects."""
        return {} if self.account is None or self.terms is None else spent(self.account, self.terms)


def spent(account: Account, terms: Terms) -> dict[str, Bound]:
    """Return the largest ε over sites of each unit that some mechanism protects.

    By the bound that is quick: near the end of a budget it may be above the tight one, which
    the filter goes by.
    """
    return {unit: account.worst(Scope(unit), terms.delta) for unit in account.units()}


def replay(path: Path) -> Iterator[tuple[ledger_pb2.LedgerEntry, Replay]]:
    """Yield each entry of a ledger, and what all up to it amount to.

    Raises :class:`LedgerError` naming the first line that is wrong.
    """
    state = Replay()
    for data, head in read_chain(path):
        try:
            entry = read_entry(data)
            state.enter(entry)
        except (LedgerError, ConfigError, WireError, ValueError) as error:
            raise LedgerError(f"{path}, line {head.lines}: {error}") from error
        state.head = head
        yield entry, state


def check_stated(entry: ledger_pb2.LedgerEntry, found: Mapping[str, Bound]) -> None:
    """Raise :class:`LedgerError` unless an entry states the ε that the entries make."""
    stated = {item.unit: item.epsilon for item in entry.spent}
    wanted = {unit: bound.epsilon for unit, bound in found.items()}
    alike = stated.keys() == wanted.keys() and all(
        stated[unit] == wanted[unit]
        or math.isclose(stated[unit], wanted[unit], rel_tol=SLACK, abs_tol=SLACK)
        for unit in wanted
    )
    if entry.status != OPENED and not alike:
        raise LedgerError(
            f"entry {entry.number} states ε {stated or 'nothing'}, the entries up to it make "
            f"{wanted or 'nothing'}"
        )


def _unlike(new: Terms, old: Terms) -> bool:
    """Say whether terms differ in what an ε depends on; a budget may be changed on a resume."""
    keys = ("sites", "records", "delta", "relation", "disjoint", "adaptive")
    return any(getattr(new, key) != getattr(old, key) for key in keys)
