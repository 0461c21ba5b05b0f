"""``fedalt privacy report``: what a run has spent, by its ledger, and what it means."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedalt.alternation.site import Site
from fedalt.cli.bars import walk_bar
from fedalt.cli.files import picture_path
from fedalt.cli.preflight_privacy import phases_of
from fedalt.cli.privacy_shown import draw_account, unit_facts
from fedalt.cli.privacy_verify import ledgers
from fedalt.cli.runs import find_run
from fedalt.cli.show import print_json, print_notes, print_table
from fedalt.privacy.mechanisms import mechanisms_table
from fedalt.privacy.summary import by_site, spendings
from fedalt.privacy.tables import (
    scopes_table,
    site_tables,
    spending_facts,
    units_table,
)
from fedalt.privacy.terms import notes_of
from fedalt.privacy.verify import Verified, verify
from fedalt.privacy.words import meaning
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Table

Rounds = dict[str, tuple[list[float], list[float]]]


def run(arguments: argparse.Namespace) -> int:
    """Report what a run has spent; its ledger is verified on the way."""
    picture = picture_path(arguments.plot)
    folder = find_run(arguments)
    name, place = next(iter(ledgers(folder).items()))
    with walk_bar("reading the ledger", 0, not arguments.json) as heard:
        verified = verify(place, heard)
    if picture is not None:
        final = {unit: tight for unit, (_, tight) in verified.bounds().items()}
        terms, title = verified.terms, f"{folder.name}: what the run has spent"
        draw_account(title, verified.account, final, terms.delta, over_rounds(verified),
                     terms.budget, picture, "--plot")  # fmt: skip
    if arguments.json:
        print_json({"folder": str(place.path), "run": name, **_facts(place, verified)})
        return 0
    _print(place, name, verified)
    if picture is not None:
        print(f"picture  {picture}")
    return 0


def over_rounds(verified: Verified) -> Rounds:
    """Return the rounds after which each unit's ε was finite, and that ε."""
    last: dict[str, dict[int, float]] = {}
    for entry in verified.entries:
        for item in entry.spent:
            last.setdefault(item.unit, {})[entry.round] = item.epsilon
    return {
        unit: ([n for n, e in found.items() if math.isfinite(e)],
               [e for e in found.values() if math.isfinite(e)])
        for unit, found in last.items()
    }  # fmt: skip


def _print(folder: RunFolder, name: str, verified: Verified) -> None:
    terms, bounds = verified.terms, verified.bounds()
    print(
        f"{folder.name}{'' if name == 'main' else f' ({name})'}: {verified.rounds} rounds, "
        f"{terms.sites} sites, {terms.records} records; δ={terms.delta:.3g}, {terms.relation}"
    )
    scoped = scopes_table(spendings(verified.account, terms.delta))
    tables: list[Table] = [units_table("ε spent", bounds, terms.delta)]
    tables += [scoped] if scoped is not None else []
    for unit in bounds:
        found = by_site(verified.account, unit, terms.delta)
        tables += site_tables(found, _named(terms.sites))
    rounds = _rounds_table(verified)
    # Of an infinite ε there is nothing to follow over rounds.
    tables += [rounds] if rounds.rows else []
    tables.append(mechanisms_table(verified.entries))
    for table in tables:
        print()
        print_table(table)
    print()
    print_notes(_meanings(verified))
    print_notes([f"note: {note}" for note in _notes(folder, verified)])
    print_notes([f"accounted for by {_versions(terms.versions)}"])


def _named(count: int) -> Sequence[Site]:
    """Return stand-ins for sites: a ledger knows their numbers, not their names."""
    return [Site(index, f"site {index}", 0) for index in range(count)]


def _rounds_table(verified: Verified) -> Table:
    """Return ε over rounds, at most twenty of them."""
    found = over_rounds(verified)
    rounds = sorted({int(n) for numbers, _ in found.values() for n in numbers})
    every = max(1, math.ceil(len(rounds) / 20))
    shown = [*rounds[:-1:every], *rounds[-1:]]
    after = {unit: dict(zip(*pair, strict=True)) for unit, pair in found.items()}
    rows = tuple((n, *(values.get(n) for values in after.values())) for n in shown)
    columns = ("round", *(f"ε of a {unit}" for unit in after))
    return Table("over rounds, by the running bound", columns, rows)


def _meanings(verified: Verified) -> list[str]:
    return [meaning(u, tight, verified.terms.delta) for u, (_, tight) in verified.bounds().items()]


def _notes(folder: RunFolder, verified: Verified) -> list[str]:
    notes = notes_of(verified.terms, phases_of(folder.config()))
    if verified.open:
        several = "s were" if len(verified.open) > 1 else " was"
        notes.append(
            f"{len(verified.open)} reservation{several} never settled, by a crash or a failed "
            "round: what is reserved counts as spent"
        )
    if verified.unprotected:
        several = "s" if verified.unprotected > 1 else ""
        notes.append(f"{verified.unprotected} release{several} had no mechanism: ε is infinite")
    reason = (folder.result() or {}).get("reason")
    return [*notes, *([f"the run ended by its budget: {reason}"] if reason else [])]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _facts(folder: RunFolder, verified: Verified) -> dict[str, Any]:
    terms, account = verified.terms, verified.account
    sites = {unit: by_site(account, unit, terms.delta) for unit in verified.bounds()}
    table = mechanisms_table(verified.entries)
    rounds = over_rounds(verified)
    return {
        "rounds": verified.rounds,
        "delta": terms.delta,
        "relation": terms.relation,
        "budget": dict(terms.budget),
        "units": unit_facts(verified.bounds()),
        "scopes": spending_facts(spendings(account, terms.delta)),
        "sites": {u: {"quantiles": s.quantiles(), "tight": s.tight} for u, s in sites.items()},
        "over_rounds": {u: {"round": n, "epsilon": e} for u, (n, e) in rounds.items()},
        "mechanisms": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "unsettled": len(verified.open),
        "unprotected_releases": verified.unprotected,
        "meaning": _meanings(verified),
        "notes": _notes(folder, verified),
        "versions": dict(terms.versions),
    }
