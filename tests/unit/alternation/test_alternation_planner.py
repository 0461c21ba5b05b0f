"""The planner: cohorts, order of rounds, saved state, and checks before a run."""

from __future__ import annotations

import json

import pytest
from alternation_toys import SITES

from fedalt.alternation import (
    Block,
    BlockMap,
    History,
    Phase,
    Planner,
    RoundSchedule,
    Selector,
    Site,
    chain,
    cycle,
    nest,
    parallel,
    repeat,
    until,
    when,
)
from fedalt.alternation.condition import not_, rounds
from fedalt.errors import ScheduleError
from fedalt.seeds import Seeds

A, B = Phase("a"), Phase("b")
EMPTY = until(A, not_(rounds(1)))
NONE = History()


def some(count: int) -> Selector:
    return Selector("fixed", count=count)


def test_cohorts_come_from_the_selector_and_the_seed() -> None:
    phase = Phase("a", clients=Selector("fixed", count=2, where={"d0": ("x",)}))

    def draw(seed: int | Seeds) -> list[tuple[int, ...]]:
        planner, found = Planner(cycle(phase), seed, SITES), []
        for number in range(1, 21):
            plan = planner.plan(number, NONE)
            assert isinstance(plan, RoundSchedule) and plan.round == number
            found.append(tuple(site.index for site in plan.parts[0].cohort))
        return found

    assert draw(1) == draw(Seeds(1)) != draw(2)
    assert {len(set(cohort)) for cohort in draw(1)} == {2}
    assert {index for cohort in draw(1) for index in cohort} == {1, 3, 5, 7}


def test_phases_of_one_round_draw_apart_and_poisson_may_be_empty() -> None:
    rare = Selector("poisson", rate=0.05)
    planner = Planner(cycle(parallel(*(Phase(n, clients=rare) for n in "ab"))), 0, SITES)
    plans = [planner.plan(number, NONE) for number in range(1, 41)]
    cohorts = [[part.cohort for part in plan.parts] for plan in plans if plan]
    assert any(a == () for a, _ in cohorts)
    assert any(a != b for a, b in cohorts)


def test_selector_tests_of_sites() -> None:
    selector = Selector(where={"d0": ("x",)}).excluding({"d1": ("x",), "d2": ("x",)})
    assert [site.index for site in selector.eligible(SITES)] == [1, 3, 5]
    narrowed = selector.narrowed({"d0": ("x", "y"), "d1": ("x",)})
    assert [site.index for site in narrowed.eligible(SITES)] == [3]
    assert Selector.from_dict(narrowed.to_dict()) == narrowed
    one = Selector.from_dict({"unless": {"d0": "x"}})
    assert [site.index for site in one.eligible(SITES)] == [0, 2, 4, 6]
    with pytest.raises(ScheduleError, match=r"d0 in \['x'\] and in \['y'\] leaves no site"):
        selector.narrowed({"d0": ("y",)})


def test_split_covers_every_site_once() -> None:
    planner = Planner(when({"d0": "x", "d1": "x"}, A, B, "client"), 0, SITES)
    plan = planner.plan(1, NONE)
    assert plan is not None
    cohorts = [[site.index for site in part.cohort] for part in plan.parts]
    assert cohorts == [[3, 7], [0, 1, 2, 4, 5, 6]]


def test_rounds_are_planned_in_order() -> None:
    planner = Planner(chain(A, B), 0, SITES)
    with pytest.raises(ScheduleError, match="round 2 cannot be planned: the next one is round 1"):
        planner.plan(2, NONE)
    planner.plan(1, NONE)
    with pytest.raises(ScheduleError, match="the next one is round 2"):
        planner.plan(1, NONE)


def test_an_ended_planner_stays_ended_after_a_resume() -> None:
    planner = Planner(A, 0, SITES)
    assert planner.plan(1, NONE) is not None
    assert planner.plan(2, NONE) is None
    resumed = Planner(A, 0, SITES)
    resumed.load_state_dict(json.loads(json.dumps(planner.state_dict())))
    assert resumed.plan(2, NONE) is None


def test_max_rounds_bounds_and_does_not_bind_a_resume() -> None:
    short, longer = Planner(cycle(A), 0, SITES, None, 1), Planner(cycle(A), 0, SITES, None, 2)
    short.plan(1, NONE)
    assert short.plan(2, NONE) is None
    longer.load_state_dict(short.state_dict())
    assert longer.plan(2, NONE) is not None


@pytest.mark.parametrize(
    "other", [cycle(B), repeat(A, 2), cycle(Phase("a", epochs=2)), cycle(Phase("a", task="t"))]
)
def test_another_schedules_state_is_refused(other: object) -> None:
    saved = Planner(cycle(A), 0, SITES).state_dict()
    with pytest.raises(ScheduleError, match="the saved state belongs to another schedule"):
        Planner(other, 0, SITES).load_state_dict(saved)  # type: ignore[arg-type]


BLOCKS = BlockMap.of(["encoder.w", "head.w"], [Block("encoder", ("encoder/*",))])


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("a", train=("encodr",)), "phase 'a', train: the model has no block 'encodr' .did"),
        (Phase("a", send=("x",)), "phase 'a', send: the model has no block 'x'"),
        (Phase("a", aggregate={"y": "mean"}), "phase 'a', aggregate: the model has no block 'y'"),
        (nest(B, Phase("i", train=("z",))), "phase 'b.i', train: the model has no block 'z'"),
        (nest(B, Phase("i", train=("z",)), local=True), "phase 'i', train: the model has no block"),
    ],
)
def test_unknown_blocks_are_named(phase: Phase, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Planner(phase, 0, SITES, BLOCKS)


def test_known_blocks_pass() -> None:
    phase = Phase("a", train=("encoder",), send=("all",), aggregate={"encoder": "mean"})
    assert Planner(phase, 0, SITES, BLOCKS).plan(1, NONE) is not None


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (Selector(where={"d0": ("z",)}), "phase 'a', clients: 1 needed, but 0 of 8 sites fit"),
        (some(9), "phase 'a', clients: 9 needed, but 8 of 8 sites fit"),
    ],
)
def test_missing_sites_are_found_before_a_run(clients: Selector, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Planner(chain(B, Phase("a", clients=clients)), 0, SITES)


def test_an_odd_site_is_no_reason_to_fail() -> None:
    assert Planner(A, 0, [Site(3, "only", 0)]).plan(1, NONE) is not None


@pytest.mark.parametrize(
    "schedule",
    [
        cycle(repeat(A, 0)),
        cycle(EMPTY),
        repeat(chain(EMPTY, repeat(B, 0))),
        until(repeat(A, 0), rounds(3)),
        nest(A, repeat(B, 0)),
        nest(A, repeat(B, 0), local=True),
    ],
)
def test_what_can_never_emit_is_an_error_and_not_a_hang(schedule: object) -> None:
    with pytest.raises(ScheduleError, match="at round 1: "):
        Planner(schedule, 0, SITES).plan(1, NONE)  # type: ignore[arg-type]


def test_empty_parts_of_something_longer_are_passed_over() -> None:
    planner = Planner(chain(EMPTY, repeat(EMPTY, 10**9), repeat(A, 0), B), 0, SITES)
    plan = planner.plan(1, NONE)
    assert plan is not None and plan.parts[0].phase == B
    assert Planner(repeat(A, 0), 0, SITES).plan(1, NONE) is None


def test_errors_of_a_round_name_it() -> None:
    planner = Planner(parallel(chain(A, B), chain(B, B)), 0, SITES)
    planner.plan(1, NONE)
    with pytest.raises(ScheduleError, match="parallel at round 2: branches 0 and 1 both emit"):
        planner.plan(2, NONE)
    # Metrics cannot change within a round, so this inner loop would never stop.
    stuck = Planner(nest(A, until(B, rounds(5)), local=True), 0, SITES)
    with pytest.raises(ScheduleError, match="local inner schedule of 'a' has not ended after 1000"):
        stuck.plan(1, NONE)
    twice = Planner(nest(nest(A, B, local=True), B), 0, SITES)
    with pytest.raises(ScheduleError, match="outer phase 'a' has inner phases already"):
        twice.plan(1, NONE)
