"""The laws of the algebra, on random schedules."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from alternation_toys import SITES, Named, denoted, names, run, schedules, unroll
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedalt.alternation import (
    History,
    Phase,
    Planner,
    Schedule,
    chain,
    cycle,
    fingerprint,
    parallel,
    parse_schedule,
    preview_schedule,
    repeat,
    to_dict,
)

QUICK = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
A, B, C = Phase("a"), Phase("b"), Phase("c")


@QUICK
@given(case=denoted())
def test_rounds_are_as_worked_out_apart(case: Named) -> None:
    schedule, expected = case
    found = [tuple(p.name for p in phases) for phases in unroll(schedule, len(expected) + 5)]
    assert found == expected


@QUICK
@given(schedule=schedules(), seed=st.integers(0, 3))
def test_same_seed_same_plan(schedule: Schedule, seed: int) -> None:
    first, history = run(Planner(schedule, seed, SITES), 1, 10, History())
    again, history_again = run(Planner(schedule, seed, SITES[::-1]), 1, 10, History())
    assert first == again
    assert history == history_again


@QUICK
@given(schedule=schedules(), stop=st.integers(0, 10))
def test_resumed_at_any_round_goes_on_as_if_never_stopped(schedule: Schedule, stop: int) -> None:
    whole, _ = run(Planner(schedule, 5, SITES), 1, 12, History())
    begun = Planner(schedule, 5, SITES)
    before, history = run(begun, 1, stop, History())
    saved = json.loads(json.dumps([begun.state_dict(), history.to_dict()], allow_nan=False))
    data = json.loads(json.dumps(to_dict(schedule)))
    resumed = Planner(parse_schedule(data["phases"], data["schedule"]), 5, SITES)
    resumed.load_state_dict(saved[0])
    after, _ = run(resumed, len(before) + 1, 12, History.from_dict(saved[1]))
    assert before + after == whole


@QUICK
@given(schedule=schedules())
def test_plain_data_round_trip(schedule: Schedule) -> None:
    data = json.loads(json.dumps(to_dict(schedule)))
    back = parse_schedule(data["phases"], data["schedule"])
    assert back == schedule
    assert fingerprint(back) == fingerprint(schedule)


@QUICK
@given(schedule=schedules())
def test_what_is_emitted_was_announced(schedule: Schedule) -> None:
    announced = {phase.name for phase in schedule.phases()}
    emitted = {phase.name for phases in unroll(schedule, 10) for phase in phases}
    assert emitted
    assert emitted <= announced


@QUICK
@given(schedule=schedules(finite=True))
def test_finite_schedules_end_and_stay_ended(schedule: Schedule) -> None:
    assert not schedule.endless
    seen = preview_schedule(schedule, 0, SITES, 3000)
    assert seen.ended


@QUICK
@given(schedule=schedules(depth=2))
def test_an_endless_schedule_does_not_end(schedule: Schedule) -> None:
    if schedule.endless:
        assert len(unroll(schedule, 60)) == 60
    assert cycle(schedule).endless
    assert len(unroll(cycle(schedule), 60)) == 60


@QUICK
@given(schedule=schedules(finite=True, depth=2))
def test_cycle_of_one_is_repeat(schedule: Schedule) -> None:
    assert cycle(schedule) == repeat(schedule)
    assert parallel(schedule) == schedule
    assert chain(schedule) == schedule
    once = unroll(repeat(schedule, 1), 100)
    assert unroll(repeat(schedule), 100)[: len(once)] == once


@QUICK
@given(x=schedules(finite=True, depth=2), y=schedules(finite=True, depth=2), z=schedules(depth=2))
def test_chain_is_associative(x: Schedule, y: Schedule, z: Schedule) -> None:
    left, right = chain(chain(x, y), z), chain(x, chain(y, z))
    assert left == right
    assert unroll(left, 20) == unroll(right, 20)


@QUICK
@given(x=denoted(depth=2), times=st.integers(0, 4))
def test_repeat_has_so_many_times_the_rounds(x: Named, times: int) -> None:
    assert len(unroll(repeat(x[0], times), 1000)) == times * len(x[1])


@QUICK
@given(x=denoted(depth=2, prefix="x"), y=denoted(depth=2, prefix="y"))
def test_parallel_is_as_long_as_its_longest(x: Named, y: Named) -> None:
    assert len(unroll(parallel(x[0], y[0]), 1000)) == max(len(x[1]), len(y[1]))


def test_cycle_goes_round() -> None:
    assert names(cycle(A, B, C), 7) == ["a", "b", "c", "a", "b", "c", "a"]
    assert names(chain(A, repeat(chain(B, C), 2), A)) == ["a", "b", "c", "b", "c", "a"]


SCRIPT = """
import json
from fedalt.alternation import *
sel = Selector(mode="poisson", rate=0.5)
ps = [Phase(n, clients=sel) for n in "abcd"]
tree = cycle(
    sweep("task", ["u", "v", "w"], nest(fork(m=ps[0], n=ps[1]), ps[2]), order="shuffled"),
    until(choose(*ps, weights=[1, 2, 3, 4]), rounds(5)),
    until(power_law(*ps, p_new=0.3), rounds(5)),
    until(adaptive(*ps, policy=proportional("loss")), rounds(5)),
    when({"d": "x"}, ps[0], ps[1], level="client"),
)
sites = [Site(i, str(i), 1, {"d": "x" if i % 2 else "y"}) for i in range(6)]
planner, history = Planner(tree, 11, sites), History()
for r in range(1, 61):
    plan = planner.plan(r, history)
    print(r, [(p.phase.name, p.phase.task, [s.index for s in p.cohort]) for p in plan.parts])
    history = history.append({f"{p.phase.name}/loss": float(r % 3) for p in plan.parts})
print(json.dumps(planner.state_dict()))
"""


def test_same_plan_in_any_process() -> None:
    texts = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 61


def test_import_is_cheap() -> None:
    code = (
        "import sys, fedalt.alternation; "
        "print([m for m in ('torch', 'matplotlib', 'flwr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
