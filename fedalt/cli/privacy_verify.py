"""``fedalt privacy verify``: a run's ledger, computed again from its entries."""

from __future__ import annotations

import argparse
from typing import Any

from fedalt.cli.bars import walk_bar
from fedalt.cli.privacy_shown import unit_facts
from fedalt.cli.runs import find_run
from fedalt.cli.show import print_json, print_notes, print_table
from fedalt.errors import ConfigError
from fedalt.privacy.ledger import FILE
from fedalt.privacy.tables import units_table
from fedalt.privacy.verify import Verified, has_ledger, verify
from fedalt.runs.folder import RunFolder


def run(arguments: argparse.Namespace) -> int:
    """Verify the ledgers of a run and of its variants."""
    folder = find_run(arguments)
    found = {name: _verify(place, arguments.json) for name, place in ledgers(folder).items()}
    if arguments.json:
        facts = {name: _facts(verified) for name, verified in found.items()}
        print_json({"folder": str(folder.path), "verified": True, "ledgers": facts})
        return 0
    for name, verified in found.items():
        _print(name, verified)
    return 0


def ledgers(folder: RunFolder) -> dict[str, RunFolder]:
    """Return the runs of a folder that have a ledger: ``main``, and variants by name.

    Raises :class:`ConfigError` if there is none.
    """
    variants = folder.config().get("compared", {})
    runs = {"main": folder, **{name: folder.variant(name) for name in variants}}
    begun = {name: place for name, place in runs.items() if place.path.is_dir()}
    found = {name: place for name, place in begun.items() if has_ledger(place)}
    if not found:
        raise ConfigError(
            f"{folder.path} has no privacy ledger: no phase of it protects anyone, so its ε is "
            "infinite (a phase protects by a privacy spec, see: fedalt privacy --help)"
        )
    return found


def _verify(folder: RunFolder, quiet: bool) -> Verified:
    path = folder.path / FILE
    lines = path.read_bytes().count(b"\n") if path.is_file() else 0
    with walk_bar("entries of the ledger", lines, not quiet) as heard:
        return verify(folder, heard)


def _print(name: str, verified: Verified) -> None:
    count = len(verified.entries)
    print_table(
        units_table(f"{name}: {count} entries hold", verified.bounds(), verified.terms.delta)
    )
    notes = [
        f"{verified.rounds} rounds committed, by {verified.processes} "
        f"process{'' if verified.processes == 1 else 'es'}",
        f"{verified.vouched} of {count} lines are vouched for by a commit"
        + ("" if verified.vouched == count else "; the rest by the chain alone"),
    ]
    for number, phase in verified.open:
        notes.append(f"round {number}, phase '{phase}': reserved and never settled, so spent")
    if verified.unprotected:
        several = "" if verified.unprotected == 1 else "s"
        notes.append(f"{verified.unprotected} release{several} had no mechanism: ε is infinite")
    print_notes(notes)
    print()


def _facts(verified: Verified) -> dict[str, Any]:
    return {
        "entries": len(verified.entries),
        "rounds": verified.rounds,
        "processes": verified.processes,
        "vouched": verified.vouched,
        "delta": verified.terms.delta,
        "relation": verified.terms.relation,
        "unsettled": [{"round": number, "phase": phase} for number, phase in verified.open],
        "unprotected_releases": verified.unprotected,
        "units": unit_facts(verified.bounds()),
    }
