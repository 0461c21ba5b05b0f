"""Budgets: what a round may still spend, asked before anything is sent.

    stop          the run ends before the first round that would exceed, with the model it has
    skip-client   sites whose own ε would exceed are left out; the run ends when nobody is left
    refuse        a run whose plan would exceed does not begin

A draw of clients that is secret charges everyone eligible alike, so nobody can be left out of it
alone: there, skip-client ends the run as stop does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fedalt.alternation.planner import PlannedPhase, RoundSchedule
from fedalt.errors import BudgetError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.charges import Charge
from fedalt.privacy.entries import Terms

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
        for key, limit, over, bound in self._over(account, charges):
            if len(over):
                return Excess(key, limit, bound, over)
        return None

    def _over(
        self, account: Account, charges: list[list[Charge]]
    ) -> Iterator[tuple[str, float, np.ndarray, Bound]]:
        """Yield each budget with the touched sites that would exceed it, and their largest ε."""
        touched = [charge for part in charges for charge in part if len(charge.sites)]
        if not touched:
            return
        after = account.with_(touched)
        sites = np.unique(np.concatenate([charge.sites for charge in touched]))
        profiles, inverse = np.unique(after[sites], return_inverse=True)
        for key, limit in self.terms.budget.items():
            unit, _, block = key.partition("/")
            found = [self._bound(account, Scope(unit, block), p, limit) for p in profiles.tolist()]
            exceeds = np.array([bound.epsilon > limit for bound in found])
            yield (
                key,
                limit,
                sites[exceeds[inverse]],
                max(found, key=lambda bound: bound.epsilon),
            )

    def _bound(self, account: Account, scope: Scope, profile: int, limit: float) -> Bound:
        """Return a profile's ε; the tight bound is computed only where the quick one exceeds."""
        quick = account.bound(profile, scope, self.terms.delta)
        if quick.epsilon <= limit:
            return quick
        return account.bound(profile, scope, self.terms.delta, tight=True)

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
