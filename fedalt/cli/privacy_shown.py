"""What plans and reports of an ε show alike: facts of units, and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedalt.cli.files import cannot_write
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.pictures import Drawn, deltas_around, draw
from fedalt.privacy.summary import costliest


def unit_facts(bounds: Mapping[str, tuple[Bound, Bound]]) -> dict[str, Any]:
    """Return the running and the smallest bound of each unit as plain data."""
    return {
        unit: {
            "running": running.epsilon,
            "epsilon": tight.epsilon,
            "bound": tight.method,
            "protected": math.isfinite(tight.epsilon),
        }
        for unit, (running, tight) in bounds.items()
    }


def draw_account(
    title: str,
    account: Account,
    final: Mapping[str, Bound],
    delta: float,
    rounds: Mapping[str, tuple[list[float], list[float]]],
    budget: Mapping[str, float],
    path: Path,
    option: str,
) -> None:
    """Draw an account over rounds and against δ; units without a finite ε are left out."""
    deltas = deltas_around(delta)
    curves = {}
    for unit, bound in final.items():
        if math.isfinite(bound.epsilon):
            history = costliest(account, Scope(unit), delta)
            found = account.accountant.curve(history, deltas.tolist())
            curves[unit] = (deltas.tolist(), [item.epsilon for item in found])
    shown = {unit: rounds[unit] for unit in curves if unit in rounds}
    try:
        draw(Drawn(title, delta, shown, final, curves, budget), path)
    except OSError as error:
        raise cannot_write(option, path, error) from error
