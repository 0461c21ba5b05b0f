"""What the terminal shows: tables, notes, JSON for machines."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from fedalt.runs.report import Table

WIDE = 140
"""Columns of output that is no terminal: enough for whole tables."""


class _Console(Console):
    """A console that leaves a pipe closed by its reader to :func:`fedalt.cli.main.main`."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console(stderr: bool = False, least: int = 0) -> Console:
    """Return a console as wide as its terminal, or as COLUMNS says, or :data:`WIDE`."""
    stream = sys.stderr if stderr else sys.stdout
    asked = os.environ.get("COLUMNS", "")
    width = None if stream.isatty() else int(asked) if asked.isdigit() and int(asked) else WIDE
    made = _Console(stderr=stderr, width=width, highlight=False, markup=False)
    if made.width < least:
        made.width = least
    return made


def print_json(data: Any) -> None:
    """Print plain data as strict JSON: a number that is not finite becomes null."""
    print(json.dumps(_finite(data), indent=2, sort_keys=True, allow_nan=False))


def print_table(table: Table) -> None:
    """Print a report's table with its notes.

    Cells break between words only: half a number would read as another number. A table whose
    words need more than the terminal is printed as wide as they need.
    """
    rich = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    needed = 0
    for i, column in enumerate(table.columns):
        texts = [cell(row[i]) for row in table.rows]
        least = max(map(len, " ".join([column, *texts]).split()), default=1)
        words = i == 0 or any(_is_words(row[i]) for row in table.rows)
        rich.add_column(column, justify="left" if words else "right", min_width=least)
        needed += least + 3
    for row in table.rows:
        rich.add_row(*(cell(value) for value in row))
    out = console(least=needed)
    # Not the table's own title: that would wrap at the table's width.
    out.print(table.title, style="bold", soft_wrap=True)
    out.print(rich)
    print_notes(table.notes)


def print_notes(notes: Sequence[str]) -> None:
    """Print notes, wrapped to the width with their later lines set in."""
    width = max(20, console().width - 1)
    for note in notes:
        print(
            textwrap.fill(
                note,
                width,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def cell(value: object) -> str:
    """Write a table's value: four significant digits, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, float):
        if value != value:
            return "–"
        # With trailing zeros: a ratio of 1.000 is measured, a 1 is counted.
        return f"{value:#.4g}".rstrip(".") if 1e-4 <= abs(value) < 1e5 else f"{value:.3g}"
    return str(value)


def _is_words(value: object) -> bool:
    """Say whether a value is a text that does not begin as a number does."""
    return isinstance(value, str) and bool(value) and not (value[0].isdigit() or value[0] in "–-+")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
