"""The combinator: experiences in order, passes, what it may hold, plain data, and the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stream_tasks import ToyStream

from fedalt.alternation import (
    BlockMap,
    Phase,
    Schedule,
    Selector,
    chain,
    fingerprint,
    parse_schedule,
    preview_schedule,
    repeat,
    stream,
    to_dict,
)
from fedalt.errors import ConfigError, DataError, ScheduleError
from fedalt.runs.streams import ABSENT, walk_streams
from fedalt.seeds import Seeds

LEARN = Phase("learn")


def planned(schedule: Schedule, task: Any = None, rounds: int = 100) -> Any:
    task = task or ToyStream()
    blocks = BlockMap.of(task.initial_arrays(Seeds(0)), task.blocks)
    return preview_schedule(schedule, Seeds(3).at("schedule"), task.sites, rounds, blocks)


def experiences(schedule: Schedule) -> list[tuple[str, int]]:
    return [
        (part.phase.name, part.phase.view.stream.experience)
        for plan in planned(schedule).rounds
        for part in plan.parts
    ]


def test_experiences_follow_each_other_and_the_schedule_ends() -> None:
    assert experiences(stream(LEARN, 3)) == [("learn", 0), ("learn", 1), ("learn", 2)]
    twice = experiences(stream(LEARN, 2, rounds=2))
    assert twice == [("learn", 0), ("learn", 0), ("learn", 1), ("learn", 1)]
    both = experiences(stream(chain(Phase("glance"), repeat(LEARN, 2)), 2))
    assert both == [(n, e) for e in (0, 1) for n in ("glance", "learn", "learn")]
    assert planned(stream(LEARN, 2)).ended


def test_streams_follow_each_other_in_a_chain() -> None:
    """A change of regime: the same tasks, first without and then with rehearsal."""
    after = stream(LEARN, [2, 3], environment="inverse_lag", rehearsal=0.5, new=10, first=2)
    schedule = chain(stream(LEARN, [0, 1], new=10), after)
    assert [e for _, e in experiences(schedule)] == [0, 1, 2, 3]
    task = ToyStream()
    plan = walk_streams(planned(schedule, task), task, root=3)
    assert plan is not None and plan.new_tasks()[0].tolist() == [0, 1, 2, 3]
    # Lags are counted over both: 5 rows by 1/2 and 1, then by 1/3, 1/2 and 1.
    rehearsed = [meeting.rehearsed for meeting in plan.sites[0].meetings.values()]
    assert rehearsed == [{}, {}, {0: 2, 1: 3}, {0: 1, 1: 1, 2: 3}]


@pytest.mark.parametrize(
    ("schedule", "where"),
    [
        (chain(stream(LEARN, [0, 1]), stream(LEARN, [2, 3])), "round 3, .* to experience 0"),
        (chain(stream(LEARN, 1), stream(LEARN, [1, 2])), "round 2, .* has experience 0"),
        (repeat(stream(LEARN, 3), 2), "round 4, .* back to experience 0 with task 0"),
        (chain(stream(LEARN, 3), stream(LEARN, 2, first=1)), "round 4, .* to experience 1"),
    ],
    ids=["without first", "one task", "repeated", "first too low"],
)
def test_a_stream_that_counts_anew_is_refused_before_it_runs(
    schedule: Schedule, where: str
) -> None:
    task = ToyStream()
    with pytest.raises(ScheduleError, match=where):
        walk_streams(planned(schedule, task), task, root=3)


def test_a_hazard_may_have_more_experiences_than_tasks() -> None:
    schedule = stream(LEARN, 3, environment={"hazard": {"p_new": 0.5}}, experiences=12)  # type: ignore[arg-type]
    assert len(experiences(schedule)) == 12
    with pytest.raises(ScheduleError, match="only a 'hazard' environment brings tasks back"):
        stream(LEARN, 3, experiences=4)


@pytest.mark.parametrize(
    "body",
    [
        {"of": "learn", "tasks": 4},
        {"of": "learn", "tasks": [3, 1], "environment": "inverse_lag", "rehearsal": 0.1},
        {"of": {"chain": ["learn", "learn"]}, "tasks": 4, "rounds": 2, "order": "shift"},
        {"of": "learn", "tasks": 4, "first": 3, "environment": ["none", {"exponential": {}}]},
        {"of": "learn", "tasks": 2, "environment": "hazard", "experiences": 9, "budget": "epochs"},
    ],
)
def test_yaml_reads_and_writes_back(body: dict[str, Any]) -> None:
    schedule = parse_schedule({"learn": {}}, {"stream": body})
    data = to_dict(schedule)
    again = parse_schedule(data["phases"], data["schedule"])
    assert again == schedule and fingerprint(again) == fingerprint(schedule)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tasks": 4}, "schedule.stream: 'of' is missing"),
        ({"of": "learn"}, "schedule.stream: 'tasks' is missing"),
        ({"of": "learn", "tasks": 0}, "tasks is 0, but must be at least 1"),
        ({"of": "learn", "tasks": [0, -1]}, "at least one number from 0"),
        ({"of": "learn", "tasks": 2.5}, "schedule.stream.tasks: a whole number expected"),
        ({"of": "learn", "tasks": 4, "rehersal": 1}, "unknown key 'rehersal' (did you mean"),
        ({"of": "learn", "tasks": 4, "rehearsal": 2}, "rehearsal is 2, but must lie in [0, 1]"),
        ({"of": "learn", "tasks": 4, "rounds": 0}, "rounds is 0"),
        ({"of": "learn", "tasks": 4, "environment": []}, "a list with at least one item"),
        (
            {"of": "learn", "tasks": 4, "environment": ["none", "lsat"]},
            "schedule.stream.environment[1]: unknown environment 'lsat' (did you mean 'last'?)",
        ),
        ({"of": {"cycle": ["learn"]}, "tasks": 4}, "never ends, so the second task would"),
    ],
)
def test_mistakes_name_their_place(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_schedule({"learn": {}}, {"stream": body})
    assert message in str(caught.value)


def test_the_plan_says_who_meets_what_and_what_is_kept() -> None:
    schedule = stream(
        LEARN, 4, environment="uniform", rehearsal=0.5, new=10, rounds=3, order="shift"
    )
    task = ToyStream()
    plan = walk_streams(planned(schedule, task), task, root=3)
    assert plan is not None
    assert plan.new_tasks().tolist() == [[0, 1, 2, 3], [1, 2, 3, 0]]
    # Site 0's first task: new for 3 rounds, then 5, 3 or 2, 1 or 2 of its rows for 3 rounds each.
    first = plan.sites[0].touches[0]
    counts = [m.rehearsed.get(0, 0) for m in plan.sites[0].meetings.values()]
    assert len(first) == 10 and first.min() >= 3
    assert first.sum() == 3 * (10 + sum(counts)) and counts[:2] == [0, 5]
    # Before the last experience three past tasks are still to be rehearsed.
    assert plan.sites[0].kept() == 30
    assert plan.row_bytes == 8 * 4 + 8
    text = {table.title: table for table in plan.tables()}
    assert text["streams: the new task of each experience"].rows == (
        ("0", "0 1 2 3"),
        ("1", "1 2 3 0"),
    )


def test_without_rehearsal_nothing_is_kept_and_every_row_is_touched_once_a_round() -> None:
    task = ToyStream()
    plan = walk_streams(planned(stream(LEARN, 4, new=10, rounds=2), task), task, root=3)
    assert plan is not None and [site.kept() for site in plan.sites.values()] == [0, 0]
    assert all((c == 2).all() for site in plan.sites.values() for c in site.touches.values())


def test_a_site_that_is_not_drawn_is_absent_and_the_plan_counts_what_it_will_meet() -> None:
    phase = Phase("learn", clients=Selector(mode="fixed", count=1))
    task = ToyStream(rows=(30, 30, 30))
    schedule = stream(phase, 4, environment="uniform", rehearsal=0.5, new=10)
    preview = planned(schedule, task)
    plan = walk_streams(preview, task, root=3)
    assert plan is not None
    drawn = np.full((3, 4), ABSENT)
    for experience, round_ in enumerate(preview.rounds):
        drawn[round_.parts[0].cohort[0].index, experience] = experience
    rows = [s for s in range(3) if (drawn[s] != ABSENT).any()]
    assert np.array_equal(plan.new_tasks(), drawn[rows])


def test_a_plan_says_how_many_sites_it_did_not_follow() -> None:
    task = ToyStream(rows=(30,) * 5)
    preview = planned(stream(LEARN, 4, new=10, rounds=2), task)
    some, every = (walk_streams(preview, task, 3, most) for most in (2, 5))
    assert some is not None and every is not None
    note = "of 2 of the 5 sites that take part"
    assert all(table.notes[0].startswith(note) for table in some.tables())
    assert not any(note[:5] in " ".join(table.notes) for table in every.tables())
    told = [plan.to_dict() for plan in (some, every)]
    assert [(t["sites"], t["sites_not_followed"]) for t in told] == [
        ([0, 1], 3),
        ([0, 1, 2, 3, 4], 0),
    ]


def test_a_plan_refuses_what_a_run_would() -> None:
    task = ToyStream()
    with pytest.raises(ConfigError, match=r"names task 4, but the task has 4 \(0 to 3\)"):
        walk_streams(planned(stream(LEARN, [0, 4]), task), task, root=0)
    with pytest.raises(DataError, match=r"round 1, 'site-0': .* asks for 99 new rows of task 0"):
        walk_streams(planned(stream(LEARN, 2, new=99), task), task, root=0)
    assert walk_streams(planned(repeat(LEARN, 3), task), task, root=0) is None


def test_rows_that_methods_keep_are_counted() -> None:
    task = ToyStream()

    def kept(**params: float) -> list[int]:
        schedule = stream(Phase("learn", params=params), 4, new=10)
        plan = walk_streams(planned(schedule, task), task, root=3)
        assert plan is not None
        return [site.kept() for site in plan.sites.values()]

    assert kept() == [0, 0]
    assert kept(replay_memory=25) == [25, 25]
    assert kept(agem_memory=1000) == [40, 40], "no more than was seen"
    assert kept(ewc_lambda=1.0) == [10, 10], "the former task's, until the next begins"
    assert kept(ewc_lambda=1.0, fisher_rows=4) == [4, 4]
    schedule = stream(Phase("learn", params={"agem_memory": 5, "ewc_lambda": 1.0}), 4)
    plan = walk_streams(planned(schedule, task), task, root=3)
    assert plan is not None and len(plan.notes) == 2
