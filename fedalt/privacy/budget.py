"""Budgets: what a round may still spend, asked before anything is sent.

    stop          the run ends before the first round that would exceed, with the model it has
    skip-client   sites whose own ε would exceed are left out; the run ends when nobody is left
    refuse        a run whose plan would exceed does not begin

A draw of clients that is secret charges everyone eligible alike, so nobody can be left out of it
alone: there, skip-client ends the run as stop does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fedalt.alternation.planner import PlannedPhase, RoundSchedule
from fedalt.errors import BudgetError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound, History
from fedalt.privacy.charges import Charge
from fedalt.privacy.entries import Terms

AHEAD = (64, 16, 4, 0)
"""So many more rounds like the one asked for are looked at together."""
HOPELESS = 1.5
"""A quick bound so many times the budget: the tight one will hardly be within it."""
Costs = Callable[[PlannedPhase], list[Charge]]


@dataclass(frozen=True)
class Excess:
    """A budget that a round would exceed: whose, by how much, and at which sites."""

    key: str
    limit: float
    bound: Bound
    sites: np.ndarray

    def __str__(self) -> str:
        unit, _, block = self.key.partition("/")
        of = f"{unit}, block '{block}'" if block else unit
        return (
            f"ε of a {of} to {self.bound.epsilon:.4g} ({self.bound.method}), above its budget "
            f"of {self.limit:g}"
        )


@dataclass(frozen=True)
class Filter:
    """Says whether a round may run, and for whom."""

    terms: Terms
    _cleared: dict[str, list[History]] = field(default_factory=dict, repr=False)
    """Histories whose tight ε is within a budget, by its key: so is that of all within them."""
    _refused: dict[str, list[History]] = field(default_factory=dict, repr=False)
    """Histories whose tight ε is not: nor is that of any that they are within."""

    def screen(
        self, plan: RoundSchedule, account: Account, costs: Costs
    ) -> tuple[RoundSchedule, list[list[Charge]]]:
        """Return the round that may run, and what each of its parts costs.

        Raises :class:`BudgetError` where there is none.
        """
        charges = [costs(part) for part in plan.parts]
        if not self.terms.budget:
            return plan, charges
        first = self.excess(account, charges)
        if first is None:
            return plan, charges
        if self.terms.policy == "skip-client":
            plan = self._without(plan, account, charges)
            charges = [costs(part) for part in plan.parts]
            left = any(part.cohort for part in plan.parts)
            if left and self.excess(account, charges) is None:
                return plan, charges
        raise BudgetError(
            f"round {plan.round} would bring the {first}, at δ={self.terms.delta:.3g} "
            f"({len(first.sites)} of {self.terms.sites} sites); the run ends with the model of "
            f"round {plan.round - 1}"
        )

    def excess(self, account: Account, charges: list[list[Charge]]) -> Excess | None:
        """Return the first budget that charges would exceed, or None."""
        for key, limit, over, profile in self._over(account, charges):
            if len(over):
                bound = account.bound(profile, _scope(key), self.terms.delta, tight=True)
                return Excess(key, limit, bound, over)
        return None

    def _over(
        self, account: Account, charges: list[list[Charge]]
    ) -> Iterator[tuple[str, float, np.ndarray, int]]:
        """Yield each budget, the touched sites that would exceed it, and one such profile."""
        touched = [charge for part in charges for charge in part if len(charge.sites)]
        if not touched:
            return
        after = account.with_(touched)
        sites = np.unique(np.concatenate([charge.sites for charge in touched]))
        steps = np.stack([account.profiles[sites], after[sites]])
        pairs, inverse = np.unique(steps, axis=1, return_inverse=True)
        for key, limit in self.terms.budget.items():
            exceeds = [not self._fits(account, key, *pair) for pair in pairs.T.tolist()]
            over = np.array(exceeds)[inverse]
            worst = int(after[sites[over][0]]) if over.any() else 0
            yield key, limit, sites[over], worst

    def _fits(self, account: Account, key: str, before: int, after: int) -> bool:
        """Say whether a site may go from one profile to the next.

        Where the quick bound is above the budget the tight one decides, for several more such
        rounds at once: what is within a history that fits need not be computed again.
        """
        limit, scope = self.terms.budget[key], _scope(key)
        if account.bound(after, scope, self.terms.delta).epsilon <= limit:
            return True
        known, refused = self._cleared.setdefault(key, []), self._refused.setdefault(key, [])
        former = account.histories(before, scope)
        for now in account.histories(after, scope):
            if any(_within(now, cleared) for cleared in known):
                continue
            if any(_within(less, now) for less in refused):
                return False
            begin = next((h for h in former if _within(h, now)), {})
            step = {event: count - begin.get(event, 0) for event, count in now.items()}
            for more in AHEAD:
                ahead = {event: count + more * step[event] for event, count in now.items()}
                if self._bounded(account, ahead, limit, exactly=not more):
                    known[:] = [ahead, *(c for c in known if not _within(c, ahead))]
                    break
            else:
                refused.append(now)
                return False
        return True

    def _bounded(self, account: Account, history: History, limit: float, exactly: bool) -> bool:
        accountant, delta = account.accountant, self.terms.delta
        if not exactly and accountant.fast(history, delta).epsilon > HOPELESS * limit:
            return False
        if not account.adaptive and accountant.coarse(history, delta).epsilon <= limit:
            return True
        if not exactly:
            return False
        return accountant.tight(history, delta, account.adaptive).epsilon <= limit

    def _without(
        self, plan: RoundSchedule, account: Account, charges: list[list[Charge]]
    ) -> RoundSchedule:
        """Leave out the sites whose own ε would exceed some budget."""
        over = [found for _, _, found, _ in self._over(account, charges)]
        out = set(np.concatenate(over).tolist()) if over else set()
        parts = tuple(
            replace(part, cohort=tuple(s for s in part.cohort if s.index not in out))
            for part in plan.parts
        )
        return replace(plan, parts=parts)


def _scope(key: str) -> Scope:
    unit, _, block = key.partition("/")
    return Scope(unit, block)


def _within(history: History, other: History) -> bool:
    """Say whether everything in a history happened at least as often in another."""
    return all(count <= other.get(event, 0) for event, count in history.items())
