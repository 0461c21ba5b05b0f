"""A site's own account of what its rows have been through, kept with the site's state.

An entry is a row of a float64 array: sampling rate q, noise multiplier z, rows a user may have
(1: the unit is the record) and how many steps were taken so. Equal mechanisms share a row. The
account stays at the site, needs no ledger of the server's to be read, and tells of a client that
was in several runs' rounds as its state does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedalt.errors import ConfigError

if TYPE_CHECKING:
    import dp_accounting as dp

KEY = "privacy/events"
"""Where the account lies in a site's state."""
_COLUMNS = 4


def add(account: np.ndarray | None, entries: Sequence[tuple[float, float, int, int]]) -> np.ndarray:
    """Return an account (E, 4) with further entries: rate, noise, contributions, steps of each.

    Raises :class:`ConfigError` for an array that is no account.
    """
    totals: dict[tuple[float, ...], float] = {}
    for row in (*_rows(account), *entries):
        *mechanism, steps = map(float, row)
        totals[tuple(mechanism)] = totals.get(tuple(mechanism), 0.0) + steps
    rows = [(*mechanism, steps) for mechanism, steps in totals.items()]
    return np.array(rows, np.float64).reshape(-1, _COLUMNS)


def history(account: np.ndarray | None) -> dict[dp.DpEvent, int]:
    """Return an account as events and how often each happened; no account is an empty one."""
    # Slow to import, and a site that trains without privacy needs none of it.
    from fedalt.privacy.events import gaussian, sampled, user_sampled

    found: dict[dp.DpEvent, int] = {}
    for rate, noise, contributions, steps in _rows(account):
        event = sampled(rate, gaussian(noise))
        if contributions > 1:
            event = user_sampled(rate, int(contributions), noise)
        found[event] = found.get(event, 0) + int(steps)
    return found


def _rows(account: np.ndarray | None) -> list[tuple[float, ...]]:
    if account is None:
        return []
    if account.ndim != 2 or account.shape[1] != _COLUMNS:
        raise ConfigError(
            f"state '{KEY}' has shape {account.shape}, but an account has {_COLUMNS} columns; it "
            "was written by another version"
        )
    return [tuple(map(float, row)) for row in account]
