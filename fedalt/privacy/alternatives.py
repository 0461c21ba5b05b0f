"""What alternation costs: a schedule against drawing everybody alike, and against no account.

    as scheduled   each client for the rounds that could touch it
    uniform        all N clients by Poisson sampling with q = (expected clients of the round)/N
    naive          every client for every round, at the phase's own rate

A schedule lowers cost only where it lowers touches: four public groups that take turns at q=0.2
cost more than everyone at q=0.05, since a group's members know when it is their turn, and less
than everyone at 0.2. For client-level phases, under one relation and δ.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import dp_accounting as dp

from fedalt.alternation.planner import PlannedPhase
from fedalt.alternation.preview import Preview
from fedalt.alternation.roster import Roster
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.charges import Charge, charges_of
from fedalt.privacy.events import sampled
from fedalt.privacy.forecast import Forecast
from fedalt.privacy.summary import touches

UNIT = "client"


@dataclass(frozen=True)
class Alternative:
    """A way to spread the same rounds: its ε, and the rounds that could touch one client."""

    name: str
    how: str
    bound: Bound
    touches: int


def alternatives(found: Forecast, preview: Preview) -> list[Alternative]:
    """Return a schedule's ε of a client beside that of other ways to do as many rounds.

    Empty where something does not protect clients. Uniform sampling is left out where no account
    would gain from it: under replace-one, and where the server may not see who takes part.
    """
    rounds = preview.rounds[: len(found.steps)]
    parts = [part for plan in rounds for part in plan.parts]
    specs = [part.phase.privacy for part in parts]
    if not parts or not all(spec is not None and spec.unit == UNIT for spec in specs):
        return []
    roster = Roster.of(preview.sites)
    uniform: Counter[dp.DpEvent] = Counter()
    naive: Counter[dp.DpEvent] = Counter()
    for part in parts:
        (charge, *_) = charges_of(part.phase, part.cohort, roster)
        naive[charge.event] += 1
        uniform[sampled(_expected(part, charge) / len(roster), _inner(charge.event))] += 1
    delta, ask = found.terms.delta, found.account.accountant.tight
    own = found.account.worst(Scope(UNIT), delta, tight=True)
    if math.isinf(own.epsilon):
        return []
    most = int(touches(found.account, Scope(UNIT)).max(initial=0))
    ways = [Alternative("as scheduled", "each for the rounds that could touch it", own, most)]
    count = len(parts)
    secret = all(spec is not None and spec.trust == "central" for spec in specs)
    if secret and found.terms.relation != "replace_one":
        how = "all clients, drawn secretly, as many a round as now"
        ways.append(Alternative("uniform sampling", how, ask(uniform, delta), count))
    how = "every client for every round"
    return [*ways, Alternative("naive", how, ask(naive, delta), count)]


def _expected(part: PlannedPhase, charge: Charge) -> float:
    """Return how many clients a phase expects in a round."""
    poisson = charge.draw.kind == "poisson"
    return charge.draw.rate * charge.draw.population if poisson else float(len(part.cohort))


def _inner(event: dp.DpEvent) -> dp.DpEvent:
    """Return an event without its sample."""
    kinds = (dp.PoissonSampledDpEvent, dp.SampledWithoutReplacementDpEvent)
    return event.event if isinstance(event, kinds) else event
