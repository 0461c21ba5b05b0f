"""Medians and ratios of the runs, and the table that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

Line = Mapping[str, Any]

MEDIANS = (
    "cpu_ms_per_client_round",
    "wall_ms_per_client_round",
    "startup_cpu_s",
    "startup_wall_s",
    "peak_mb",
)


@dataclass(frozen=True)
class Row:
    """An engine on a work: medians over the repeats, and how it stands to the reference.

    ``cpu_ratio`` and ``wall_ratio`` are medians over the repeats of (this engine / reference) in
    the same repeat, minutes apart on the same machine; ``None`` without a reference.
    """

    work: str
    engine: str
    repeats: int
    cpu_ms_per_client_round: float
    wall_ms_per_client_round: float
    startup_cpu_s: float
    startup_wall_s: float
    peak_mb: float
    cpu_range: tuple[float, float]
    cpu_ratio: float | None
    wall_ratio: float | None
    accuracy: float | None
    source: str
    order: str
    mode: str


def summarise(lines: Sequence[Line], works: Sequence[str], reference: str) -> list[Row]:
    """Return a row an engine and work, in the order of ``works`` and by cost."""
    rows = []
    for work in works:
        engines = dict.fromkeys(line["engine"] for line in lines if line["work"] == work)
        found = [_row(lines, work, engine, reference) for engine in engines]
        rows += sorted(found, key=lambda row: row.cpu_ms_per_client_round)
    return rows


def _row(lines: Sequence[Line], work: str, engine: str, reference: str) -> Row:
    own = _by_repeat(lines, work, engine)
    other = _by_repeat(lines, work, reference)
    last = own[max(own)]
    cpu = [line["cpu_ms_per_client_round"] for line in own.values()]
    return Row(
        work=work,
        engine=engine,
        repeats=len(own),
        **{key: statistics.median(line[key] for line in own.values()) for key in MEDIANS},
        cpu_range=(min(cpu), max(cpu)),
        cpu_ratio=_ratio(own, other, "cpu_ms_per_client_round"),
        wall_ratio=_ratio(own, other, "wall_ms_per_client_round"),
        accuracy=last["accuracy"],
        source=last["source"],
        order=last["order"],
        mode=str(last.get("mode", "")),
    )


def _by_repeat(lines: Sequence[Line], work: str, engine: str) -> dict[int, Line]:
    chosen = (line for line in lines if line["work"] == work and line["engine"] == engine)
    return {line["repeat"]: line for line in chosen}


def _ratio(own: Mapping[int, Line], other: Mapping[int, Line], key: str) -> float | None:
    pairs = [own[repeat][key] / other[repeat][key] for repeat in own if repeat in other]
    return statistics.median(pairs) if pairs else None


def show(
    rows: Sequence[Row], left_out: Mapping[str, str], reference: str, console: Console
) -> None:
    """Print the table, and below it who was left out and why."""
    table = Table(title="A client-round (medians; the first rounds are start-up)")
    table.add_column("work")
    table.add_column("engine")
    for head in ("CPU ms", "wall ms", f"CPU / {reference}", f"wall / {reference}"):
        table.add_column(head, justify="right")
    for head in ("start-up CPU s", "peak MB", "accuracy"):
        table.add_column(head, justify="right")
    table.add_column("batches")
    previous = ""
    for row in rows:
        if previous and row.work != previous:
            table.add_section()
        name = f"{row.engine} ({row.mode})" if row.mode else row.engine
        table.add_row(
            row.work if row.work != previous else "",
            name,
            _figure(row.cpu_ms_per_client_round),
            _figure(row.wall_ms_per_client_round),
            _times(row.cpu_ratio),
            _times(row.wall_ratio),
            f"{row.startup_cpu_s:.1f}",
            f"{row.peak_mb:.0f}",
            "" if row.accuracy is None else f"{row.accuracy:.4f}",
            row.order,
        )
        previous = row.work
    console.print(table)
    sources = sorted({f"{row.work}: {row.source}" for row in rows})
    console.print("data: " + "; ".join(sources), highlight=False)
    console.print(
        "Engines with the same batches agree in accuracy but for rounding; another order of "
        "batches (stored, not shuffled) moves it by some thousandths. pca: residual ratio.",
        highlight=False,
    )
    for name, why in left_out.items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain data."""
    return [asdict(row) for row in rows]
