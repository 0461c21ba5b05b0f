"""What each mechanism of a run did, by the entries that its rounds were committed with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedalt.privacy.entries import COMMITTED
from fedalt.runs.report import Table
from fedalt.wire.v1 import ledger_pb2


def mechanisms_table(entries: Iterable[ledger_pb2.LedgerEntry]) -> Table:
    """Return a row a phase, and a unit that it protects; what varied is a range."""
    groups: dict[tuple[str, str], list[ledger_pb2.LedgerEntry]] = {}
    for entry in entries:
        if entry.status == COMMITTED:
            for unit in dict.fromkeys(charge.unit for charge in entry.charges):
                groups.setdefault((entry.phase, unit), []).append(entry)
    rows = tuple(
        (
            phase,
            unit or "nobody",
            _one_of([e.mechanism.name for e in found] if unit else []),
            _one_of([e.mechanism.trust for e in found] if unit else []),
            len(found),
            _replies(found),
            _range([e.mechanism.clip for e in found]) if unit else None,
            _range([e.mechanism.noise_multiplier for e in found]) if unit else None,
            _range([e.mechanism.noise_std for e in found]) if unit else None,
            _range([e.mechanism.sensitivity for e in found]) if unit else None,
            _drawn(found, unit),
            _one_of([e.mechanism.rng for e in found] if unit else []),
        )
        for (phase, unit), found in groups.items()
    )
    columns = ("phase", "protects", "noise", "trust", "rounds", "replies", "clip", "z",
               "noise std", "sensitivity", "drawn", "generator")  # fmt: skip
    note = (
        "as the ledger has it of what was done: noise std = z · sensitivity is what was added to "
        "a sum; 0 where the mechanism did not say"
    )
    return Table("mechanisms", columns, rows, (note,))


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} – {high:.4g}"


def _one_of(values: Iterable[str]) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value)) or None


def _replies(found: Sequence[ledger_pb2.LedgerEntry]) -> str:
    """Return the replies that counted, of those that were asked for."""
    return f"{sum(e.replies for e in found)} of {sum(e.planned for e in found)}"


def _drawn(found: Sequence[ledger_pb2.LedgerEntry], unit: str) -> str | None:
    """Return how units came to take part."""
    draws = {
        (charge.draw.kind, charge.draw.rate, charge.steps)
        for entry in found
        for charge in entry.charges
        if charge.unit == unit
    }
    kinds = sorted({kind for kind, _, _ in draws if kind not in ("", "none")})
    if not kinds:
        return None
    rates = _range([rate for _, rate, _ in draws])
    steps = [count for _, _, count in draws]
    return f"{', '.join(kinds)} q={rates}" + (f", {_range(steps)} steps" if max(steps) > 1 else "")
