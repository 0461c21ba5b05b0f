"""The ε that a finished run has spent, in lines for the terminal."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from fedalt.privacy.ledger import FILE
from fedalt.runs.folder import RunFolder

PREFIX = "privacy/"
"""How the ledger names its metrics of a round: by unit."""


def spent_lines(folder: RunFolder, result: Mapping[str, Any]) -> list[str]:
    """Return a line a unit that the run protected, and one if a budget ended it."""
    if not result.get("ledger"):
        return []
    at = _delta(folder)
    found = {
        key.removeprefix(PREFIX): value
        for key, value in result.get("metrics", {}).items()
        if key.startswith(PREFIX)
    }
    lines = [
        f"privacy ε of a {unit} at most {value:.4g}{at}"
        if math.isfinite(value)
        else f"privacy ε of a {unit} is infinite: something was released without a mechanism"
        for unit, value in found.items()
    ]
    lines.append(f"        more: fedalt privacy report {shlex.quote(str(folder.path))}")
    if result.get("ended") == "budget":
        lines.append(f"ended   by its budget: {result['reason']}")
    return lines


def _delta(folder: RunFolder) -> str:
    """Tell the ledger's δ by its first line; a report verifies it, this only shows it."""
    try:
        with (folder.path / FILE).open(encoding="utf-8") as lines:
            return f" at δ={float(json.loads(lines.readline())['terms']['delta']):.3g}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
