"""The gradient kernel on a stream: which rows it reads, how many steps, what it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stream_tasks import ToyStream

from fedalt.alternation import Environment, Phase, StreamView, View
from fedalt.alternation.seen import Seen
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError, DataError
from fedalt.modes import Mode
from fedalt.scenarios.continual_power_law.rows import check_task
from fedalt.seeds import Seeds

STREAM = StreamView(
    tasks=(0, 1, 2, 3), new=20, rehearsal=0.25, environments=(Environment("uniform"),)
)


def order(task: ToyStream, experience: int, mode: str = "sequential", **changes: Any) -> Order:
    stream = replace(STREAM, experience=experience, **changes.pop("stream", {}))
    values = {"epochs": 2, "batch_size": 8, **changes}
    phase = Phase("learn", view=View(stream=stream), params={"lr": 0.1}, **values)
    arrays = task.initial_arrays(Seeds(1))
    return Order("run", experience + 1, phase, arrays, tuple(arrays), mode=mode)


def sites(task: ToyStream, states: list[dict[str, np.ndarray]]) -> list[SiteContext]:
    return [
        SiteContext(task, i, state, Seeds(1).at("round", 1, "client", i))
        for i, state in enumerate(states)
    ]


def run(task: ToyStream, experiences: list[int], mode: str = "sequential", **changes: Any) -> Any:
    """Run experiences after each other; return the last works and the states."""
    states: list[dict[str, np.ndarray]] = [{} for _ in task.sites]
    kernel, works = GradientKernel(), []
    for experience in experiences:
        asked = order(task, experience, mode, **changes)
        works = list(kernel.cohort(asked, sites(task, states)))
    return works, states


def test_it_reads_only_rows_of_the_experience_and_never_an_unseen_one() -> None:
    task = ToyStream()
    states: list[dict[str, np.ndarray]] = [{}, {}]
    given: dict[tuple[int, int], set[int]] = {}
    for experience in range(4):
        task.asked.clear()
        for site in sites(task, states):
            GradientKernel()(order(task, experience), site)
        for site, number, rows in task.asked:
            if number == experience:
                given[site, number] = set(rows)
            else:
                assert set(rows) <= given[site, number], "rehearsed a row never trained on"
        rehearsed = [sum(len(r) for s, t, r in task.asked if s == 0 and t != experience)]
        assert rehearsed == [5 if experience else 0]
    assert all(len(rows) == 20 < 30 for rows in given.values())


def test_steps_are_matched_unless_epochs_are() -> None:
    """20 new rows in batches of 8 are 3 steps an epoch, with or without rehearsal."""
    for budget, steps in (("steps", (6, 6)), ("epochs", (6, 8))):
        for experience, wanted in enumerate(steps):
            works, _ = run(ToyStream(), list(range(experience + 1)), stream={"budget": budget})
            assert [work.steps for work in works] == [wanted, wanted]
    works, _ = run(ToyStream(), [0, 1], steps=5)
    assert [work.steps for work in works] == [5, 5], "steps that are named win"


def test_upper_takes_all_that_was_seen_at_the_same_number_of_steps() -> None:
    upper = {"environments": (Environment("upper"),)}
    works, _ = run(ToyStream(), [0, 1, 2], stream=upper)
    assert [(work.num_examples, work.steps) for work in works] == [(60, 6), (60, 6)]


def test_only_work_that_succeeds_leaves_a_trace() -> None:
    task = ToyStream(rows=(30, 10))
    states: list[dict[str, np.ndarray]] = [{}, {}]
    works = list(GradientKernel().cohort(order(task, 0), sites(task, states)))
    assert isinstance(works[0], Work) and Seen.read(states[0]).now == 0
    assert isinstance(works[1], DataError) and states[1] == {}
    assert "site 'site-1'" in str(works[1]) and "has 10" in str(works[1])
    # What a client keeps is its pools' row numbers and where it stands.
    assert sorted(states[0]) == ["stream/now", "stream/pool/0", "stream/since"]


def test_errors_name_their_site_once() -> None:
    task = ToyStream(rows=(30, 30, 10))
    changes = {"environments": (Environment("last"),), "rehearsal": 1.0, "new": 0, "order": "shift"}
    states: list[dict[str, np.ndarray]] = [{} for _ in task.sites]
    for experience in (0, 1):
        task.task_rows = lambda site, number, e=experience: 10 + 20 * e  # type: ignore[method-assign]
        asked = order(task, experience, stream=changes)
        works = list(GradientKernel().cohort(asked, sites(task, states)))
    wanted = "site 'site-2': experience 1: environment 'last' rehearses 30 rows of the task met 1"
    assert str(works[2]).startswith(wanted)

    def rows(site: int, number: int) -> int:
        check_task(site, number + 9, 4)
        return 0

    task.task_rows = rows  # type: ignore[method-assign]
    (work, *_) = GradientKernel().cohort(order(task, 0), sites(task, [{}]))
    assert str(work) == "site 'site-0': there is no task 9, only 0 to 3 (site 0)"


@pytest.mark.parametrize("mode", ["batched", "batched:1", "compiled"])
def test_every_mode_agrees_on_a_stream(mode: str) -> None:
    task = ToyStream(rows=(30, 25, 40))
    uneven = {"stream": {"new": 0}}
    wanted, states = run(task, [0, 1, 2], **uneven)
    found, others = run(task, [0, 1, 2], str(Mode.read(mode)), **uneven)
    for work, other in zip(wanted, found, strict=True):
        assert (work.steps, work.num_examples) == (other.steps, other.num_examples)
        for name, values in work.arrays.items():
            np.testing.assert_allclose(other.arrays[name], values, rtol=0, atol=2e-5)
    for state, other_state in zip(states, others, strict=True):
        assert state.keys() == other_state.keys()
        assert all(np.array_equal(state[key], other_state[key]) for key in state)


def test_what_cannot_be_a_stream_is_refused() -> None:
    from federations import LeastSquares

    plain = SiteContext(LeastSquares(), 0, {}, Seeds(1))
    arrays = plain.task.initial_arrays(Seeds(1))
    asked = replace(order(ToyStream(), 0), arrays=arrays, returns=tuple(arrays))
    with pytest.raises(ConfigError, match="LeastSquares has no tasks: a stream needs"):
        GradientKernel()(asked, plain)
    task = ToyStream(tasks=2)
    with pytest.raises(ConfigError, match=r"names task 3, but the task has 2 \(0 to 1\)"):
        GradientKernel()(order(task, 0), sites(task, [{}])[0])
