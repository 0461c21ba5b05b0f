"""The ε that a finished run has spent, in lines for the terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from fedalt.runs.folder import RunFolder


def spent_lines(folder: RunFolder, result: Mapping[str, Any]) -> list[str]:
    """Return a line a unit that the run protected, and one if a budget ended it."""
    if not result.get("ledger"):
        return []
    lines = [
        f"privacy ε of a {unit} {found['epsilon']:.4g} ({found['bound']}) at δ={found['delta']:.3g}"
        if math.isfinite(found["epsilon"])
        else f"privacy ε of a {unit} is infinite: something was released without a mechanism"
        for unit, found in result.get("privacy", {}).items()
    ]
    lines.append(f"        more: fedalt privacy report {shlex.quote(str(folder.path))}")
    if result.get("ended") == "budget":
        lines.append(f"ended   by its budget: {result['reason']}")
    return lines
