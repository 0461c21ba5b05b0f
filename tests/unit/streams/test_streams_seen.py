"""What an experience holds: exact counts, seen rows only, orders, and partial participation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedalt.alternation import PRESETS, Environment
from fedalt.alternation.seen import Meeting, Seen
from fedalt.alternation.stream_view import StreamView
from fedalt.errors import DataError, ScheduleError

ROWS = 60
BASE = StreamView(tasks=(0, 1, 2, 3, 4), new=20, rehearsal=0.5)


def go(
    stream: StreamView, site: int = 0, root: int = 7, at: tuple[int, ...] | None = None
) -> list[tuple[Meeting, Seen]]:
    """Go through a stream's experiences, with the state read back from arrays each time."""
    found, state = [], dict[str, np.ndarray]()
    for experience in at or range(len(stream.tasks)):
        view = replace(stream, experience=experience)
        meeting, after = Seen.read(state).meet(view, site, root, lambda task: ROWS)
        state = after.entries()
        found.append((meeting, after))
    return found


@pytest.mark.parametrize("environment", [Environment("uniform"), PRESETS["inverse_lag"]], ids=str)
@pytest.mark.parametrize("order", ["sync", "shift", "shuffle"])
def test_rehearsal_draws_only_rows_that_were_seen(environment: Environment, order: str) -> None:
    """New rows are recorded here, apart from the code: rehearsal must stay inside them."""
    given: dict[int, set[int]] = {}
    for site in (0, 3):
        given.clear()
        for meeting, _ in go(replace(BASE, environments=(environment,), order=order), site):
            new = meeting.rows[meeting.task]
            assert meeting.task not in given and len(set(new.tolist())) == 20 == meeting.new
            for task, rows in meeting.rows.items():
                assert len(set(rows.tolist())) == len(rows), "drawn twice"
                if task != meeting.task:
                    assert set(rows.tolist()) <= given[task], "a row that was never seen"
            given[meeting.task] = set(new.tolist())
            assert sum(meeting.rehearsed.values()) == (10 if len(given) > 1 else 0)


def test_the_pool_is_smaller_than_what_there_is_so_a_leak_would_show() -> None:
    """Drawing from all 60 rows instead of the 20 seen would leave the pool almost surely."""
    pools = [set(after.pools[0].tolist()) for _, after in go(BASE)]
    assert all(pool == pools[0] and len(pool) == 20 for pool in pools)
    assert pools[0] != set(range(20)), "drawn, not the first ones"


def test_experiences_draw_anew_and_repeat_for_the_same_seed() -> None:
    stream = replace(BASE, environments=(Environment("uniform"),))
    first, again, other = go(stream), go(stream), go(stream, root=8)
    for (one, _), (two, _) in zip(first, again, strict=True):
        assert all(np.array_equal(one.rows[t], two.rows[t]) for t in one.rows)
    assert not np.array_equal(first[0][0].rows[0], other[0][0].rows[0])
    drawn = [set(m.rows[0].tolist()) for m, _ in first[1:]]
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]


def test_rounds_of_one_experience_hold_the_same_rows() -> None:
    stream = replace(BASE, environments=(Environment("uniform"),))
    found = go(stream, at=(0, 1, 1, 1))
    assert found[1][0].rows.keys() == found[3][0].rows.keys()
    assert all(np.array_equal(found[1][0].rows[t], found[3][0].rows[t]) for t in found[1][0].rows)
    assert found[3][1].since == {0: 0, 1: 1}


def test_orders() -> None:
    def tasks(order: str, site: int) -> list[int]:
        return [m.task for m, _ in go(replace(BASE, order=order), site)]

    assert tasks("sync", 3) == [0, 1, 2, 3, 4]
    assert tasks("shift", 3) == [3, 4, 0, 1, 2]
    assert sorted(tasks("shuffle", 3)) == [0, 1, 2, 3, 4]
    assert len({tuple(tasks("shuffle", site)) for site in range(8)}) > 4
    reverse = replace(BASE, tasks=(4, 3, 2, 1, 0))
    assert [m.task for m, _ in go(reverse)] == [4, 3, 2, 1, 0]


def test_sites_live_in_environments_in_turn() -> None:
    stream = replace(BASE, environments=(Environment("none"), Environment("upper")))
    assert go(stream, 0)[-1][0].rehearsed == {}
    assert go(stream, 1)[-1][0].rehearsed == {0: 20, 1: 20, 2: 20, 3: 20}
    assert go(stream, 2)[-1][0].rehearsed == {}


def test_a_site_that_missed_a_task_rehearses_only_what_it_met() -> None:
    stream = replace(BASE, environments=(PRESETS["inverse_lag"],))
    meeting = go(stream, at=(0, 3))[-1][0]
    assert meeting.task == 3 and meeting.rehearsed == {0: 10}
    # lags 4 and 1: shares 1/4 and 1 of ten rows are 2 and 8.
    assert go(stream, at=(0, 3, 4))[-1][0].rehearsed == {0: 2, 3: 8}


def test_a_hazard_brings_one_task_at_a_time_and_its_seen_rows() -> None:
    hazard = Environment("hazard", exponent=0.5, p_new=0.2)
    stream = replace(BASE, environments=(hazard,), rehearsal=0.0)
    found = [meeting for meeting, _ in go(stream, at=tuple(range(40)))]
    tasks = [meeting.task for meeting in found]
    assert list(dict.fromkeys(tasks)) == [0, 1, 2, 3, 4] and len(tasks) == 40
    for task in range(5):
        rows = [m.rows[task].tolist() for m in found if m.task == task]
        assert all(each == rows[0] for each in rows)
    assert all(not m.rehearsed for m in found)


def test_all_rows_are_new_where_none_are_counted() -> None:
    meeting = go(replace(BASE, new=0))[0][0]
    assert meeting.rows[0].tolist() == list(range(ROWS))


def test_refusals_name_the_task_and_what_to_do() -> None:
    with pytest.raises(DataError, match="asks for 20 new rows of task 0, but the site has 5"):
        Seen().meet(BASE, 0, 0, lambda task: 5)
    with pytest.raises(DataError, match="task 0 has no rows at this site"):
        Seen().meet(BASE, 0, 0, lambda task: 0)
    stream = replace(BASE, environments=(Environment("last"),), new=0, rehearsal=1.0)
    _, seen = Seen().meet(stream, 0, 0, lambda task: 10)
    with pytest.raises(ScheduleError, match=r"^experience 1: .* rehearses 60 rows .* 10"):
        seen.meet(replace(stream, experience=1), 0, 0, lambda task: 60)


def test_experiences_counted_anew_are_refused() -> None:
    """A second stream without 'first' would find every past task one experience old."""
    seen = go(BASE, at=(0, 1, 2))[-1][1]
    with pytest.raises(ScheduleError, match=r"goes back to experience 0 .* by 'first' \(3 or more"):
        seen.meet(BASE, 0, 7, lambda task: ROWS)
    other = replace(BASE, tasks=(4, 3), experience=2, first=2)
    with pytest.raises(ScheduleError, match="has experience 2 with task 4, after experience 2"):
        seen.meet(other, 0, 7, lambda task: ROWS)
    onwards = replace(other, experience=3, first=3, environments=(Environment("upper"),))
    assert seen.meet(onwards, 0, 7, lambda task: ROWS)[0].rehearsed == {0: 20, 1: 20, 2: 20}
    # Work that is done once more, after a resume, is the same experience.
    assert seen.meet(replace(BASE, experience=2), 0, 7, lambda task: ROWS)[0].task == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rehearsal": 1.01}, r"rehearsal is 1.01, but must lie in \[0, 1\]"),
        ({"rehearsal": -0.1}, r"rehearsal is -0.1, but must lie in \[0, 1\]"),
        ({"rehearsal": float("nan")}, "rehearsal is nan"),
        ({"experience": 5}, "experience 5 is out of range: 5 tasks make experiences 0 to 4"),
        ({"experience": -1}, "experience is -1, but must not be negative"),
        ({"new": -1}, "new is -1, but must not be negative"),
        ({"first": 1}, "experience 0 is out of range: 5 tasks make experiences 1 to 5"),
        ({"tasks": ()}, "at least one number"),
        ({"tasks": (0, 0)}, "each once"),
        ({"tasks": (-1,)}, "at least one number from 0"),
        ({"order": "shfit"}, "unknown order 'shfit' (did you mean 'shift'?)"),
        ({"budget": "rows"}, "unknown budget 'rows'"),
        ({"environments": ()}, "at least one environment"),
    ],
)
def test_bad_views_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        replace(BASE, **change)  # type: ignore[arg-type]
    assert message.replace("\\", "") in str(caught.value)


def test_plain_data_reads_back() -> None:
    stream = replace(
        BASE, environments=(Environment("upper"), PRESETS["power_5.6"]), order="shuffle"
    )
    assert StreamView.from_dict(stream.to_dict()) == stream
    with pytest.raises(ScheduleError, match="unknown key 'ordr'"):
        StreamView.from_dict({"tasks": [0], "ordr": "sync"})
