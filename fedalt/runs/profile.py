"""Where a run's time went, and which modes computed it: read from its folder, made into tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedalt.runs.events import read_events
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Table

_PARTS = (
    ("plan", "the schedule draws the round's phases and cohorts"),
    ("dispatch", "the strategy configures, messages are made"),
    ("compute", "the engine runs the clients"),
    ("admission", "replies are decoded and checked"),
    ("aggregation", "the strategy aggregates"),
    ("judgement", "the server judges the model"),
    ("evaluation", "clients judge the model"),
    ("commit", "the round is written to disk"),
)


def profile_table(folder: RunFolder) -> Table | None:
    """Return seconds, milliseconds a client-round and shares by part; None without ``profile``."""
    events = read_events(folder.events)
    spent: dict[str, float] = {}
    for event in events:
        if event["event"] == "profile":
            for name, seconds in event["seconds"].items():
                spent[name] = spent.get(name, 0.0) + seconds
    if not spent:
        return None
    rounds = [event for event in events if event["event"] == "round"]
    clients = sum(sum(event["sites"].values()) for event in rounds)
    total = sum(spent.values())
    rows = tuple(
        (
            name,
            round(spent[name], 3),
            round(1000 * spent[name] / max(1, clients), 4),
            f"{100 * spent[name] / max(total, 1e-12):.1f} %",
            what,
        )
        for name, what in _PARTS
        if name in spent
    )
    columns = ("part", "seconds", "ms a client-round", "share", "what")
    notes = (
        f"wall-clock time of {len(rounds)} rounds, {clients} client-rounds; the event log has each",
    )
    return Table("where the time went", columns, rows, notes)


def mode_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each choice that the engine made: modes, and ways to rows' gradients."""
    lines = []
    for phases in result.get("engine", {}).values():
        for phase, choice in phases.items():
            if "mode" in choice:
                why = _times("ms a client", choice["milliseconds"]) or choice["note"]
                lines.append(f"mode    {phase}: {choice['mode']} ({why})")
                continue
            # The kernel keeps its choices for private stages together.
            for stage, way in choice.items():
                why = _times("ms a batch", way["milliseconds"]) or "told"
                lines.append(f"rows    {stage}: gradients of single rows by {way['way']} ({why})")
    return lines


def _times(unit: str, milliseconds: Mapping[str, float]) -> str:
    """Return what each way took, where there was more than one to choose from."""
    if len(milliseconds) < 2:
        return ""
    return f"{unit}: " + ", ".join(f"{name} {ms:g}" for name, ms in milliseconds.items())
