"""Rounds for ledgers without a run: sites, phases and plans, and a ledger that charges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedalt.alternation import Phase, PlannedPhase, RoundSchedule, Selector
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.privacy.entries import Terms
from fedalt.privacy.private_ledger import PrivacyLedger
from fedalt.privacy.release import Protection, Release

DELTA = 1e-5


def roster(count: int, groups: int = 1, size: int = 100) -> Roster:
    return Roster(
        [Site(i, f"site-{i}", size + i % 2, {"group": str(i % groups)}) for i in range(count)]
    )


def client_phase(name: str = "train", noise: float = 1.0, **changes: Any) -> Phase:
    """A phase with client-level noise at the server."""
    keys = PrivacySpec.__dataclass_fields__
    spec = {k: changes.pop(k) for k in list(changes) if k in keys}
    changes.setdefault("clients", Selector(mode="poisson", rate=0.2))
    return Phase(name, privacy=PrivacySpec(unit="client", noise=noise, **spec), **changes)


def record_phase(name: str = "train", noise: float = 1.0, **changes: Any) -> Phase:
    """A phase of DP-SGD at the sites."""
    changes.setdefault("batch_size", 10)
    return Phase(name, privacy=PrivacySpec(unit="record", noise=noise), **changes)


def rounds(*phases: Phase, sites: Roster, number: int = 1) -> RoundSchedule:
    """A round in which every eligible site takes part."""
    parts = [PlannedPhase(phase, tuple(phase.clients.eligible(sites))) for phase in phases]
    return RoundSchedule(number, tuple(parts))


def ledger(folder: Path, sites: Roster, **terms: Any) -> PrivacyLedger:
    folder.mkdir(exist_ok=True)
    records = sum(site.size for site in sites)
    values: dict[str, Any] = {"sites": len(sites), "records": records, "delta": DELTA, **terms}
    return PrivacyLedger(Terms(**values), sites, folder, "run")


def run_round(
    book: PrivacyLedger, plan: RoundSchedule, applied: Protection | None = None
) -> dict[str, float]:
    """Reserve and commit a round; return the ε spent."""
    allowed = book.reserve(plan)
    releases = [
        Release(part.phase, tuple(site.index for site in part.cohort), applied)
        for part in allowed.parts
    ]
    return book.commit(plan.round, releases)
