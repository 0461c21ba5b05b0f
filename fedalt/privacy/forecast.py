"""What a run will cost its people, before it runs: its schedule walked as its ledger will be.

Charges follow from the phases and their cohorts alone (``charges``), the same filter is asked
and the same account is kept, so an ε foretold is the ledger's after the run if participation
goes as planned. It is never below that: shares of noise that drop out are charged by the ledger
when they do, everything else is charged when it is reserved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.alternation.phase import Phase
from fedalt.alternation.planner import PlannedPhase, RoundSchedule
from fedalt.alternation.preview import Preview
from fedalt.alternation.roster import Roster
from fedalt.errors import BudgetError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.budget import Filter
from fedalt.privacy.charges import Charge, charges_of, unprotected
from fedalt.privacy.entries import Terms
from fedalt.privacy.replay import spent
from fedalt.privacy.separation import Separation

EVALUATE = Phase("evaluate", kernel="evaluate")


@dataclass(frozen=True)
class Step:
    """Where an account stands after a round.

    ``spent`` is the largest ε of each unit by the bound that is quick (empty where it was not
    asked for), ``profiles`` the different histories of sites, by their numbers in the account.
    """

    round: int
    phases: tuple[str, ...]
    spent: Mapping[str, Bound]
    profiles: np.ndarray


@dataclass(frozen=True)
class Forecast:
    """A plan's account. ``reason`` says which budget ends the run early; empty if none does."""

    terms: Terms
    account: Account
    steps: tuple[Step, ...]
    reason: str = ""

    @property
    def units(self) -> tuple[str, ...]:
        """The units that some mechanism protects."""
        return self.account.units()

    def bounds(self) -> dict[str, tuple[Bound, Bound]]:
        """Return the bound that the run keeps up with and the smallest, of each unit at the end."""
        running, total = spent(self.account, self.terms), self.total()
        return {unit: (running[unit], total[unit]) for unit in total}

    def total(self) -> dict[str, Bound]:
        """Return the largest ε of each unit at the end, by the smallest sound bound."""
        delta = self.terms.delta
        return {u: self.account.worst(Scope(u), delta, tight=True) for u in self.units}

    def rounds_within(self, unit: str, budget: float) -> int:
        """Return after how many rounds a unit's ε, tightly bounded, is still within a budget."""
        within, beyond = 0, len(self.steps) + 1
        while beyond - within > 1:
            middle = (within + beyond) // 2
            after = self.steps[middle - 1]
            bound = self._after(unit, after, budget)
            within, beyond = (middle, beyond) if bound <= budget else (within, middle)
        return within

    def _after(self, unit: str, step: Step, budget: float) -> float:
        """Return an ε after a round; the tight one is computed only where the quick one exceeds."""
        ask, scope, delta = self.account.worst, Scope(unit), self.terms.delta
        quick = ask(scope, delta, profiles=step.profiles).epsilon
        return quick if quick <= budget else ask(scope, delta, True, step.profiles).epsilon


def forecast(
    terms: Terms,
    preview: Preview,
    evaluate_every: int = 0,
    each_round: bool = True,
    heard: Callable[[], None] = lambda: None,
) -> Forecast:
    """Walk a preview's rounds; ``heard`` is called after each.

    ``evaluate_every`` is how often clients tell what they measure, which nothing protects. With
    ``each_round`` the ε of every unit is known after every round, not only at the end.
    """
    roster = Roster.of(preview.sites)
    account = Account(terms.sites, terms.relation, terms.disjoint, terms.adaptive)
    asked, turns = Filter(terms), Turns()
    known: dict[tuple[int, tuple[int, ...]], tuple[PlannedPhase, list[Charge]]] = {}

    def costs(part: PlannedPhase) -> list[Charge]:
        # Rounds share phases, and whole cohorts: the same objects cost the same.
        key = (id(part.phase), tuple(map(id, part.cohort)))
        if key not in known:
            made = charges_of(part.phase, part.cohort, roster)
            known[key] = (part, made)
        return known[key][1]

    steps: list[Step] = []
    for plan in preview.rounds:
        try:
            allowed, charges = asked.screen(plan, account, costs)
            turns.enter(allowed)
        except BudgetError as error:
            return Forecast(terms, account, tuple(steps), str(error))
        for part in charges:
            account.add(part)
        if evaluate_every and plan.round % evaluate_every == 0:
            account.add([unprotected(EVALUATE, roster, ("metrics",))])
        now = spent(account, terms) if each_round else {}
        names = tuple(part.phase.name for part in allowed.parts)
        steps.append(Step(plan.round, names, now, np.unique(account.profiles)))
        heard()
    return Forecast(terms, account, tuple(steps))


class Turns:
    """The turns of phases whose noise is correlated over rounds."""

    def __init__(self) -> None:
        self._of: dict[str, Separation] = {}

    def enter(self, plan: RoundSchedule) -> None:
        """Note a round; raises :class:`BudgetError` for a site that comes again too soon."""
        for part in plan.parts:
            spec, name = part.phase.privacy, part.phase.name
            if spec is not None and spec.mechanism == "banded":
                turns = self._of.setdefault(name, Separation(name, spec.bands))
                turns.enter(plan.round, [site.index for site in part.cohort])


def plain(found: Forecast) -> list[dict[str, Any]]:
    """Return a forecast's rounds as plain data: a row a round and unit."""
    return [
        {
            "round": step.round,
            "phases": "+".join(step.phases),
            "unit": unit,
            "epsilon": bound.epsilon,
            "bound": bound.method,
        }
        for step in found.steps
        for unit, bound in step.spent.items()
    ]


def noises(phases: Sequence[Phase]) -> dict[str, float]:
    """Return the noise multiplier of each phase, or phase within one, that protects someone."""
    found: dict[str, float] = {}
    for phase in phases:
        if phase.privacy is not None:
            found[phase.name] = phase.privacy.noise
        found |= {f"{phase.name}/{k}": z for k, z in noises(phase.inner).items()}
    return found
