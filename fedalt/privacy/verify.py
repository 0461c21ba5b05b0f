"""Does a run's ledger say what happened? Every ε is computed again from its entries alone.

Three things are seen to: that the lines follow from each other (``chain``), that the ε which
each states is what the entries up to it make (``replay``), and that the file holds what the
newest commit and the result vouch for. A forger who changes a line has to seal all later ones
anew, state the ε that these make, and change the commit and the result as well; lines that were
written after the last commit are vouched for by nothing but the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedalt.errors import LedgerError
from fedalt.hashing import json_hash
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.entries import COMMITTED, OPENED, Terms
from fedalt.privacy.ledger import FILE
from fedalt.privacy.private_ledger import check_holds
from fedalt.privacy.replay import Replay, check_stated, replay, spent
from fedalt.privacy.terms import versions_here
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.folder import RunFolder
from fedalt.wire.v1 import ledger_pb2


@dataclass(frozen=True)
class Verified:
    """A ledger that holds: its entries, and what they amount to.

    ``open`` are the reservations (round, phase) that nothing settled: they count as spent.
    ``vouched`` is how many lines a commit or the result vouches for, ``processes`` how often it
    was opened, ``unprotected`` how many releases no mechanism protected.
    """

    terms: Terms
    account: Account
    entries: tuple[ledger_pb2.LedgerEntry, ...]
    rounds: int
    open: tuple[tuple[int, str], ...]
    vouched: int
    processes: int
    unprotected: int

    def bounds(self) -> dict[str, tuple[Bound, Bound]]:
        """Return the running and the smallest sound bound on the ε of each unit."""
        quick, delta = spent(self.account, self.terms), self.terms.delta
        tight = {u: self.account.worst(Scope(u), delta, tight=True) for u in quick}
        return {unit: (quick[unit], tight[unit]) for unit in quick}


def has_ledger(folder: RunFolder) -> bool:
    """Say whether a run has a privacy ledger, or should have one."""
    return (folder.path / FILE).exists() or bool(_vouchers(folder))


def verify(folder: RunFolder, heard: Callable[[], None] = lambda: None) -> Verified:
    """Verify a run's ledger; ``heard`` is called after each entry.

    Raises :class:`LedgerError` naming the first line that is wrong, or what is missing.
    """
    path, seen, state = folder.path / FILE, [], Replay()
    for entry, state in replay(path):
        try:
            check_stated(entry, state.spent())
        except LedgerError as error:
            other = _other_versions(state.terms)
            raise LedgerError(f"{path}, line {entry.number + 1}: {error}{other}") from error
        seen.append(entry)
        heard()
    if state.account is None or state.terms is None:
        raise LedgerError(f"{path} holds no entry")
    vouchers = _vouchers(folder)
    for facts in vouchers:
        check_holds(path, facts)
    _check_of_run(folder, state)
    done = [entry for entry in seen if entry.status == COMMITTED]
    waiting = [entry for entry in seen if entry.number in state.open]
    released = [*done, *waiting]
    return Verified(
        terms=state.terms,
        account=state.account,
        entries=tuple(seen),
        rounds=state.rounds,
        open=tuple((number, phase) for number, phase, _ in state.open.values()),
        vouched=max((int(facts.get("lines", 0)) for facts in vouchers), default=0),
        processes=sum(entry.status == OPENED for entry in seen),
        unprotected=sum(any(not c.unit for c in entry.charges) for entry in released),
    )


def _other_versions(terms: Terms | None) -> str:
    """Say where libraries differ from those that a ledger was written with: so may their ε."""
    written, here = {} if terms is None else terms.versions, versions_here()
    found = [
        f"{name} {version}, here {here[name]}"
        for name, version in sorted(written.items())
        if here.get(name, version) != version
    ]
    return f" (the ledger was written with {'; '.join(found)})" if found else ""


def _vouchers(folder: RunFolder) -> list[Mapping[str, Any]]:
    """Return what the newest commit and the result say of where the ledger ends."""
    snapshot, _ = newest_checkpoint(folder.checkpoints)
    found = [{} if snapshot is None else snapshot.facts.get("ledger_file", {})]
    found.append((folder.result() or {}).get("ledger", {}))
    return [facts for facts in found if facts]


def _check_of_run(folder: RunFolder, state: Replay) -> None:
    """See that the ledger belongs to this run's configuration."""
    config = {k: v for k, v in folder.config().items() if k != "compared"}
    stated = state.terms.config_sha256 if state.terms is not None else ""
    if stated and stated != json_hash(config):
        raise LedgerError(
            f"{folder.path / FILE} was opened for another configuration than this run's "
            f"config.json ({stated[:12]}): one of the two was changed"
        )
