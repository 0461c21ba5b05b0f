"""Who has spent what: an account by unit, block, modality, task and site.

An ε of several people is the largest among them, never a sum and never a mean. Numbers are by
the smallest sound bound; where sites have more different histories than that can be computed
for in moments, single sites have the quick one, and the column says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dp_accounting as dp
import numpy as np

from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound

MOST_TIGHT = 40
"""So many different histories of sites get their smallest bound."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Spending:
    """What a scope has spent: the largest ε over sites, and how often they were charged."""

    scope: Scope
    bound: Bound
    sites: int
    least: int
    most: int


@dataclass(frozen=True)
class SiteSpending:
    """Every site's own ε (sites,) of a unit, and how often it was charged (sites,)."""

    unit: str
    epsilon: np.ndarray
    touches: np.ndarray
    tight: bool

    def quantiles(self) -> dict[str, float]:
        """Return quantiles of ε over sites; of an infinite one the next higher value."""
        return {
            f"{100 * q:g} %": float(np.quantile(self.epsilon, q, method="higher"))
            for q in QUANTILES
        }


def scopes(account: Account) -> Iterator[Scope]:
    """Yield every unit, then its blocks (where there are several), modalities and tasks."""
    cells = account.cells()
    blocks = dict.fromkeys(block for cell in cells for block in cell.blocks)
    if len(blocks) == 1:
        # One block is the whole.
        blocks = {}
    for unit in account.units():
        yield Scope(unit)
        yield from (Scope(unit, block=block) for block in blocks)
        for key in ("modality", "task"):
            values = dict.fromkeys(getattr(cell, key) for cell in cells)
            yield from (Scope(unit, **{key: value}) for value in values if value)


def spendings(account: Account, delta: float) -> list[Spending]:
    """Return what each of an account's scopes has spent, at δ."""
    return [_spending(account, scope, delta) for scope in scopes(account)]


def _spending(account: Account, scope: Scope, delta: float) -> Spending:
    touched = touches(account, scope)
    return Spending(
        scope,
        account.worst(scope, delta, tight=True),
        int(np.count_nonzero(touched)),
        int(touched.min()),
        int(touched.max()),
    )


def touches(account: Account, scope: Scope) -> np.ndarray:
    """Return how many charges a person at each site has in a scope (sites,)."""
    found, inverse = np.unique(account.profiles, return_inverse=True)
    counts = [
        max((sum(history.values()) for history in account.histories(number, scope)), default=0)
        for number in found.tolist()
    ]
    return np.asarray(counts, np.int64)[inverse]


def by_site(account: Account, unit: str, delta: float) -> SiteSpending:
    """Return every site's own ε; for the operator's eyes, since it tells of single sites."""
    tight = len(np.unique(account.profiles)) <= MOST_TIGHT
    scope = Scope(unit)
    return SiteSpending(unit, account.each(scope, delta, tight), touches(account, scope), tight)


def costliest(account: Account, scope: Scope, delta: float) -> dict[dp.DpEvent, int]:
    """Return the history whose ε is the largest: what one person has been through."""
    found: list[dict[dp.DpEvent, int]] = [
        history
        for number in np.unique(account.profiles).tolist()
        for history in account.histories(number, scope)
    ]
    return max(found, key=lambda history: account.accountant.fast(history, delta).epsilon)
