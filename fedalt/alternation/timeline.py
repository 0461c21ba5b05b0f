"""A preview as text: a row per phase over the rounds, and who is touched how often."""

from __future__ import annotations

from collections.abc import Sequence

from fedalt.alternation.block import ALL
from fedalt.alternation.preview import Preview

FULL, PART, NONE = "█", "▒", "·"
MOST_RUNS = 2


def text_timeline(preview: Preview, width: int = 100, most_sites: int = 40) -> str:
    """Return the preview as lines of text, the chart fitted to ``width`` columns."""
    count = len(preview.rounds)
    if not count:
        return "no round: the schedule ends before its first"
    end = "the schedule ends there" if preview.ended else "the schedule goes on"
    phases = preview.phase_rounds()
    lines = [
        f"{_times(count, 'round')}, {_times(len(phases), 'phase')}, "
        f"{_times(len(preview.sites), 'site')}; {end}",
        "",
        *_chart(preview, width),
        "",
        *_touches(preview, most_sites),
    ]
    if preview.notes:
        lines += ["", *(f"note: {note}" for note in preview.notes)]
    return "\n".join(lines)


def runs(rounds: Sequence[int]) -> list[tuple[int, int]]:
    """Return the stretches of consecutive rounds, as first and last of each."""
    found: list[tuple[int, int]] = []
    for number in rounds:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _chart(preview: Preview, width: int) -> list[str]:
    phases, count = preview.phase_rounds(), len(preview.rounds)
    label = max(len(name) for name in phases)
    facts = {name: _facts(preview, name, rounds) for name, rounds in phases.items()}
    room = max(20, width - label - 4 - max(map(len, facts.values())))
    span = -(-count // room)
    columns = -(-count // span)
    ruler = "1" + str(count).rjust(columns - 1) if columns > len(str(count)) else ""
    lines = [f"{'':<{label}}  {ruler}"] if ruler else []
    for name, rounds in phases.items():
        marks = "".join(_mark(set(rounds), i * span + 1, span, count) for i in range(columns))
        lines.append(f"{name:<{label}}  {marks}  {facts[name]}")
    if span > 1:
        lines.append(f"a column is {span} rounds: {FULL} all, {PART} some, {NONE} none of them")
    return lines


def _mark(rounds: set[int], first: int, span: int, count: int) -> str:
    column = range(first, min(first + span, count + 1))
    hit = sum(number in rounds for number in column)
    return NONE if not hit else FULL if hit == len(column) else PART


def _facts(preview: Preview, name: str, rounds: Sequence[int]) -> str:
    stretches = [f"{a}–{b}" if a < b else f"{a}" for a, b in runs(rounds)]
    shown = ", ".join(stretches[:MOST_RUNS]) + (", …" if len(stretches) > MOST_RUNS else "")
    visits = _times(preview.site_rounds(name), "visit")
    return f"{_times(len(rounds), 'round')} ({shown}), {visits}"


def _touches(preview: Preview, most_sites: int) -> list[str]:
    blocks = [ALL, *(name for name in preview.block_names() if name != ALL)]
    label = max([len("rounds touched"), *(len(site.name) for site in preview.sites)])
    widths = [max(5, len(name)) for name in blocks]
    heads = ("any" if name == ALL else name for name in blocks)
    head = "  ".join(f"{name:>{w}}" for name, w in zip(heads, widths, strict=True))
    lines = [f"{'rounds touched':<{label}}  {head}"]
    for site in preview.sites[:most_sites]:
        counts = (preview.touches(site, block) for block in blocks)
        row = "  ".join(f"{n:>{w}}" for n, w in zip(counts, widths, strict=True))
        lines.append(f"{site.name:<{label}}  {row}")
    if len(preview.sites) > most_sites:
        lines.append(f"… and {len(preview.sites) - most_sites} more sites")
    return lines


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
