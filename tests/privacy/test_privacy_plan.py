"""Plans: an ε foretold is the ledger's, alternation costs what was measured, and what to change."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privacy_plans import DELTA, client_phase, ledger, record_phase, roster

from fedalt.alternation import (
    History,
    Phase,
    Planner,
    Preview,
    Schedule,
    Selector,
    cycle,
    parallel,
    preview_schedule,
    repeat,
)
from fedalt.alternation.roster import Roster
from fedalt.errors import BudgetError
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Bound
from fedalt.privacy.alternatives import Alternative, alternatives
from fedalt.privacy.entries import Terms
from fedalt.privacy.forecast import Forecast, forecast, noises, plain
from fedalt.privacy.release import Release
from fedalt.privacy.summary import by_site, spendings, touches
from fedalt.privacy.words import meaning

THOUSAND = roster(1000, groups=4)
TWENTY = roster(20, groups=4)


def foretold(
    schedule: Schedule | Phase, sites: Roster, rounds: int, every: int = 0, **terms: Any
) -> tuple[Forecast, Preview]:
    preview = preview_schedule(schedule, 3, sites, rounds)
    values: dict[str, Any] = {"sites": len(sites), "records": 1, "delta": DELTA, **terms}
    return forecast(Terms(**values), preview, every), preview


def turns(noise: float, mode: str = "poisson", rate: float = 0.2) -> Schedule:
    """Four public groups of clients that take turns."""
    return cycle(
        *(
            client_phase(
                f"group-{group}",
                noise=noise,
                clients=Selector(mode=mode, rate=rate, where={"group": (str(group),)}),
            )
            for group in range(4)
        )
    )


def by_name(ways: list[Alternative]) -> dict[str, Alternative]:
    return {way.name: way for way in ways}


def test_alternation_among_groups_costs_more_than_uniform_and_less_than_naive() -> None:
    found, preview = foretold(turns(1.0), THOUSAND, 200)
    ways = by_name(alternatives(found, preview))
    assert ways["as scheduled"].bound.epsilon == pytest.approx(10.13, abs=0.01)
    assert ways["uniform sampling"].bound.epsilon == pytest.approx(4.77, abs=0.01)
    assert ways["naive"].bound.epsilon == pytest.approx(21.5, abs=0.05)
    assert [way.touches for way in ways.values()] == [50, 200, 200]


def test_fewer_touches_cost_less_without_amplification() -> None:
    found, preview = foretold(turns(8.0, "all"), THOUSAND, 100)
    ways = by_name(alternatives(found, preview))
    assert ways["as scheduled"].bound.epsilon == pytest.approx(2.56, abs=0.01)
    assert ways["naive"].bound.epsilon == pytest.approx(5.68, abs=0.01)
    assert (ways["as scheduled"].touches, ways["naive"].touches) == (25, 100)


def test_blocks_of_one_person_compose() -> None:
    blocks = [
        client_phase(name, noise=8.0, clients=Selector(), train=(name,))
        for name in ("trunk", "ct", "mr")
    ]
    found, _ = foretold(cycle(*blocks), roster(100), 75)
    of = {item.scope: item for item in spendings(found.account, DELTA)}
    assert of[Scope("client")].bound.epsilon == pytest.approx(4.80, abs=0.01)
    for name in ("trunk", "ct", "mr"):
        assert of[Scope("client", block=name)].bound.epsilon == pytest.approx(2.56, abs=0.01)
    assert of[Scope("client")].most == 75 and of[Scope("client", block="ct")].most == 25


SCHEDULES: dict[str, Schedule | Phase] = {
    "clients": repeat(client_phase(noise=2.0)),
    "records": repeat(record_phase(noise=1.5, clients=Selector(mode="fixed", count=5))),
    "two phases": cycle(
        client_phase("body", noise=2.0, train=("body",)),
        client_phase("head", noise=4.0, train=("head",), clients=Selector(where={"group": ("1",)})),
    ),
    "side by side": parallel(
        client_phase("ct", train=("ct",), modality="ct", clients=Selector(where={"group": ("0",)})),
        client_phase("mr", train=("mr",), modality="mr", clients=Selector(where={"group": ("1",)})),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_foretold_is_what_the_ledger_charges(name: str, tmp_path: Path) -> None:
    found, preview = foretold(SCHEDULES[name], TWENTY, 9)
    book = ledger(tmp_path, TWENTY)
    for plan, step in zip(preview.rounds, found.steps, strict=True):
        allowed = book.reserve(plan)
        sites = [tuple(site.index for site in part.cohort) for part in allowed.parts]
        spent = book.commit(
            plan.round,
            [Release(part.phase, some) for part, some in zip(allowed.parts, sites, strict=True)],
        )
        assert spent == {f"privacy/{unit}": b.epsilon for unit, b in step.spent.items()}
    for unit, bound in found.total().items():
        assert bound == book.account.worst(Scope(unit), DELTA, tight=True)
        assert 0.0 < bound.epsilon <= found.steps[-1].spent[unit].epsilon


def test_a_secret_draw_that_differs_from_the_plans_costs_the_same(tmp_path: Path) -> None:
    found, _ = foretold(repeat(client_phase()), TWENTY, 3)
    book = ledger(tmp_path, TWENTY)
    for plan in preview_schedule(repeat(client_phase()), 99, TWENTY, 3).rounds:
        book.reserve(plan)
        after = book.commit(plan.round, [Release(part.phase, ()) for part in plan.parts])
    assert after["privacy/client"] == found.steps[-1].spent["client"].epsilon


@pytest.mark.parametrize("trust", ["distributed", "local"])
def test_a_draw_that_is_charged_to_whom_it_names_is_the_plans(trust: str) -> None:
    schedule = repeat(client_phase(trust=trust))
    draws = {
        secret: [
            [site.index for site in plan.parts[0].cohort]
            for plan in (Planner(schedule, 3, TWENTY, secret=secret).plan(1, History()),)
            if plan is not None
        ]
        for secret in (None, 1, 2)
    }
    assert draws[None] == draws[1] == draws[2]
    hidden = repeat(client_phase())
    first, second = (
        Planner(hidden, 3, THOUSAND, secret=secret).plan(1, History()) for secret in (1, 2)
    )
    assert first != second


@pytest.mark.parametrize("policy", ["stop", "skip-client"])
def test_a_plan_ends_where_its_run_would(policy: str, tmp_path: Path) -> None:
    schedule = repeat(record_phase(noise=3.0, clients=Selector()))
    terms: dict[str, Any] = {"budget": {"record": 1.2}, "policy": policy}
    large = [replace(site, index=site.index + 2) for site in roster(2, size=400)]
    sites = Roster([*roster(2, size=60), *large])
    found, preview = foretold(schedule, sites, 60, **terms)
    book, done = ledger(tmp_path, sites, **terms), 0
    for plan in preview.rounds:
        try:
            allowed = book.reserve(plan)
        except BudgetError as error:
            assert str(error) == found.reason
            break
        book.commit(plan.round, [Release(part.phase, ()) for part in allowed.parts])
        done += 1
    assert 0 < done == len(found.steps) < 60
    assert found.account.worst(Scope("record"), DELTA, tight=True).epsilon <= 1.2


def test_evaluation_by_clients_is_foretold_as_unprotected() -> None:
    found, _ = foretold(repeat(client_phase()), TWENTY, 4, every=3)
    values = [step.spent["client"].epsilon for step in found.steps]
    assert [math.isinf(value) for value in values] == [False, False, True, True]
    assert alternatives(found, _) == []


def test_rounds_within_a_budget_are_the_last_that_keep_to_it() -> None:
    found, _ = foretold(repeat(client_phase(noise=2.0, clients=Selector())), TWENTY, 40)
    ask = found.account.accountant.tight
    rounds = found.rounds_within("client", 5.0)
    (event,) = {cell.event for cell in found.account.cells()}
    assert ask({event: rounds}, DELTA).epsilon <= 5.0 < ask({event: rounds + 1}, DELTA).epsilon
    assert found.rounds_within("client", 1e-3) == 0
    assert found.rounds_within("client", 1e3) == 40


def test_sites_of_many_sizes_have_their_own_epsilon() -> None:
    sites = roster(3, size=50)
    found, _ = foretold(repeat(record_phase(noise=1.0)), sites, 5)
    each = by_site(found.account, "record", DELTA)
    assert each.tight and each.epsilon[0] == each.epsilon[2] != each.epsilon[1]
    assert each.quantiles()["100 %"] == each.epsilon.max() == found.total()["record"].epsilon
    assert touches(found.account, Scope("record")).tolist() == [5, 5, 5]


def test_disjoint_modalities_are_compared_not_added() -> None:
    both = cycle(
        record_phase("ct", noise=8.0, modality="ct", kernel="covariance"),
        record_phase("mr", noise=8.0, modality="mr", kernel="covariance"),
    )
    joint, _ = foretold(both, TWENTY, 50)
    apart, _ = foretold(both, TWENTY, 50, disjoint="modality")
    assert apart.total()["record"].epsilon == pytest.approx(2.56, abs=0.01)
    assert joint.total()["record"].epsilon > apart.total()["record"].epsilon
    assert np.all(touches(apart.account, Scope("record")) == 25)


def test_rows_of_a_plan_are_a_round_and_a_unit() -> None:
    schedule = parallel(client_phase("a", train=("a",)), record_phase("b", train=("b",)))
    found, _ = foretold(repeat(schedule), TWENTY, 2)
    rows = plain(found)
    assert [(row["round"], row["unit"]) for row in rows] == [
        (1, "record"), (1, "client"), (2, "record"), (2, "client"),
    ]  # fmt: skip
    assert {row["phases"] for row in rows} == {"a+b"}
    text = io.StringIO()
    csv.DictWriter(text, list(rows[0])).writerows(rows)
    assert "inf" in text.getvalue(), "records alone are protected in phase b"


def test_noises_of_inner_phases_are_named() -> None:
    outer = Phase("outer", inner=(record_phase("rows", noise=1.5), record_phase("more", noise=2.0)))
    assert noises([outer, client_phase("top", noise=3.0)]) == {
        "outer/rows": 1.5, "outer/more": 2.0, "top": 3.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (0.0, "at most 50 % sure"),
        (1.0, "at most 73.2 % sure"),
        (8.0, "perhaps more than 99.9 % sure"),
        (math.inf, "infinite"),
    ],
)
def test_an_epsilon_is_said_in_words(epsilon: float, text: str) -> None:
    assert text in meaning("client", Bound(epsilon, "pld"), DELTA)
