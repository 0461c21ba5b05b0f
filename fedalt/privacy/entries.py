"""The ledger's entries: to and from the schema of ``proto/fedalt/v1/ledger.proto``, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from fedalt.alternation.phase import Phase
from fedalt.errors import LedgerError
from fedalt.hashing import canonical_json
from fedalt.privacy.accounting import Bound
from fedalt.privacy.charges import Charge, Draw
from fedalt.privacy.events import from_plain, to_plain
from fedalt.privacy.ranges import from_ranges, to_ranges
from fedalt.privacy.release import Protection
from fedalt.wire.v1 import ledger_pb2
from fedalt.wire.version import MAJOR, MINOR, check_version

OPENED, RESERVED, COMMITTED, ABORTED = "opened", "reserved", "committed", "aborted"


@dataclass(frozen=True)
class Terms:
    """What holds for a whole ledger.

    ``budget`` maps a unit (``client``), or a unit and a block (``client/body``), to the largest
    ε; ``adaptive`` says that what a run measures decides about its phases or its end;
    ``disjoint`` names the attribute of which every person has one value; ``records`` counts
    the training records of all sites.
    """

    sites: int
    records: int
    delta: float
    relation: str = "add_remove"
    disjoint: str = ""
    policy: str = "stop"
    adaptive: bool = False
    budget: Mapping[str, float] = field(default_factory=dict)
    config_sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def opened(run_id: str, terms: Terms) -> dict[str, Any]:
    """Return the entry with which a process begins to write."""
    return _plain(
        ledger_pb2.LedgerEntry(
            run_id=run_id, status=OPENED, terms=ledger_pb2.LedgerTerms(**asdict(terms))
        )
    )


def reserved(
    run_id: str,
    number: int,
    phase: Phase,
    charges: Sequence[Charge],
    planned: int,
    spent: Mapping[str, Bound],
    fixed: bool = True,
) -> dict[str, Any]:
    """Return the entry of what a phase is about to spend."""
    return _plain(
        ledger_pb2.LedgerEntry(
            run_id=run_id,
            status=RESERVED,
            round=number,
            phase=phase.name,
            charges=[_charge(run_id, charge) for charge in charges],
            mechanism=_mechanism(phase, None),
            planned=planned,
            fixed_in_advance=fixed,
            spent=_spent(spent),
        )
    )


def committed(
    run_id: str,
    number: int,
    phase: Phase,
    settles: int,
    charges: Sequence[Charge],
    planned: int,
    replies: int,
    applied: Protection | None,
    spent: Mapping[str, Bound],
    fixed: bool = True,
) -> dict[str, Any]:
    """Return the entry of what a phase did spend."""
    released = [*dict.fromkeys(block for charge in charges for block in charge.blocks)]
    return _plain(
        ledger_pb2.LedgerEntry(
            run_id=run_id,
            status=COMMITTED,
            round=number,
            phase=phase.name,
            settles=settles,
            charges=[_charge(run_id, charge) for charge in charges],
            mechanism=_mechanism(phase, applied),
            planned=planned,
            replies=replies,
            released=released,
            fixed_in_advance=fixed,
            spent=_spent(spent),
        )
    )


def aborted(
    run_id: str,
    number: int,
    phase: str,
    settles: int,
    reason: str,
    spent: Mapping[str, Bound],
) -> dict[str, Any]:
    """Return the entry that says that a reservation came to nothing: nothing was released."""
    return _plain(
        ledger_pb2.LedgerEntry(
            run_id=run_id,
            status=ABORTED,
            round=number,
            phase=phase,
            settles=settles,
            reason=reason,
            spent=_spent(spent),
        )
    )


def read_entry(data: Mapping[str, Any]) -> ledger_pb2.LedgerEntry:
    """Read an entry; raises :class:`LedgerError` for what the schema has not."""
    entry = ledger_pb2.LedgerEntry()
    try:
        ParseDict(dict(data), entry, ignore_unknown_fields=True)
    except ParseError as error:
        raise LedgerError(f"entry {data.get('number')}: no entry of a ledger ({error})") from error
    check_version(entry.major, entry.minor, f"the ledger's entry {entry.number}")
    return entry


def read_terms(message: ledger_pb2.LedgerTerms) -> Terms:
    """Read the terms of an opening entry."""
    values = {name: getattr(message, name) for name in Terms.__dataclass_fields__}
    maps = {"budget": dict(message.budget), "versions": dict(message.versions)}
    return Terms(**{**values, **maps})


def read_charge(message: ledger_pb2.Charge, sites: int, run_id: str) -> Charge:
    """Read a charge; raises :class:`LedgerError` where its parts do not fit each other."""
    found = from_ranges(message.sites, sites)
    if len(found) != message.size or message.sites_sha256 != _commitment(run_id, message.sites):
        raise LedgerError(f"a charge of {message.size} sites names '{message.sites}'")
    draw = message.draw
    return Charge(
        unit=message.unit,
        sites=found,
        blocks=tuple(message.blocks),
        modality=message.modality,
        task=message.task,
        event=from_plain(json.loads(message.event)),
        draw=Draw(draw.kind, draw.rate, draw.size, draw.population),
        steps=message.steps,
        alone={k: from_plain(json.loads(v)) for k, v in sorted(message.alone.items())},
    )


def _charge(run_id: str, charge: Charge) -> ledger_pb2.Charge:
    sites = to_ranges(charge.sites)
    return ledger_pb2.Charge(
        unit=charge.unit,
        sites=sites,
        sites_sha256=_commitment(run_id, sites),
        size=len(charge.sites),
        blocks=charge.blocks,
        modality=charge.modality,
        task=charge.task,
        draw=ledger_pb2.Draw(**asdict(charge.draw)),
        steps=charge.steps,
        event=canonical_json(to_plain(charge.event)),
        alone={k: canonical_json(to_plain(v)) for k, v in charge.alone.items()},
    )


def _mechanism(phase: Phase, applied: Protection | None) -> ledger_pb2.Mechanism | None:
    spec = phase.privacy
    if spec is None:
        return None
    message = ledger_pb2.Mechanism(
        name=spec.mechanism,
        trust=spec.trust,
        clip=spec.clip,
        clips=spec.clips,
        noise_multiplier=spec.noise,
    )
    for key, value in ({} if applied is None else asdict(applied)).items():
        setattr(message, key, value)
    return message


def _spent(spent: Mapping[str, Bound]) -> list[ledger_pb2.Spent]:
    return [
        ledger_pb2.Spent(unit=unit, epsilon=bound.epsilon, bound=bound.method)
        for unit, bound in spent.items()
    ]


def _commitment(run_id: str, sites: str) -> str:
    return hashlib.sha256(f"{run_id}|{sites}".encode()).hexdigest()


def _plain(entry: ledger_pb2.LedgerEntry) -> dict[str, Any]:
    entry.major, entry.minor = MAJOR, MINOR
    data: dict[str, Any] = MessageToDict(entry, preserving_proto_field_name=True)
    return data
