"""Streams from the command line: a plan, a run with its report, and every mistake named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from e2e_command import Command

# scikit-learn's digits stand in for MNIST: no folder is named, and nothing is downloaded.
SMALL = (
    *("continual_power_law", "task.tasks=4", "task.clients=3", "task.rows=100", "task.side=14"),
    *("task.hidden=[20]", "phases.learn.epochs=1", "schedule.stream.rounds=2", "progress=false"),
)


def test_a_run_tells_scores_costs_and_pictures(command: Command) -> None:
    told = command("simulate", *SMALL, "compare=[none,shift]")
    assert told.code == 0, told.err
    assert "environment" in told.out and "inverse_lag" in told.out and "worst client" in told.out
    (run,) = command.runs()
    pictures = {path.name for path in (run / "report").glob("*.png")}
    assert pictures == {
        *("forgetting.png", "clients.png", "spacing.png", "oldest_newest.png", "timeline.png"),
        "accuracy.png",
    }
    matrices = json.loads((run / "report" / "matrices.json").read_text(encoding="utf-8"))
    assert np.shape(matrices["shift"]["clients"]) == (3, 4, 4)
    assert matrices["shift"]["new_tasks"][1] == [1, 2, 3, 0]
    shown = command("runs", "show", run.name, "--json").json()
    scores, costs = shown["tables"]
    acc = dict(
        zip((row[0] for row in scores["rows"]), (row[1] for row in scores["rows"]), strict=True)
    )
    assert set(acc) == {"inverse_lag", "none", "shift"} and all(0 < v < 1 for v in acc.values())
    kept = {row[0]: row[costs["columns"].index("rows kept")] for row in costs["rows"]}
    # All past tasks' pools but the last one's, or none at all.
    assert kept == {"inverse_lag": 300, "none": 0, "shift": 0}
    steps = {row[costs["columns"].index("steps")] for row in costs["rows"]}
    # 100 rows in batches of 64: 2 steps, 2 rounds, 4 experiences, 3 clients.
    assert steps == {48}


def test_the_plan_is_what_the_run_does(command: Command) -> None:
    plan = command("plan", *SMALL, "schedule.stream.order=shift", "--json").json()["streams"]
    assert plan["new_tasks"] == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1]]
    assert plan["rows_kept"] == [300, 300, 300] and plan["row_bytes"] == 14 * 14 + 1
    text = command("plan", *SMALL).out
    assert "0, 1, 2  0 1 2 3" in text and "in how many rounds a record is read" in text
    assert list(Path().iterdir()) == []


def test_a_hazard_brings_tasks_back(command: Command) -> None:
    words = ("schedule.stream.environment=hazard", "+schedule.stream.experiences=9")
    plan = command("plan", *SMALL, *words, "--json").json()["streams"]
    tasks = np.array(plan["new_tasks"])
    assert tasks.shape == (3, 9) and (tasks == tasks[0]).all() and tasks[0, 0] == 0
    assert command("simulate", *SMALL, *words, "compare=[]").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("schedule.stream.tasks=9",), 2, r"stream names task 8, but the task has 4 \(0 to 3\)"),
        (("schedule.stream.tasks=[0,7]",), 2, r"stream names task 7, but the task has 4"),
        (("schedule.stream.tasks=0",), 2, r"tasks is 0, but must be at least 1"),
        (("schedule.stream.rehearsal=1.5",), 2, r"rehearsal is 1\.5, but must lie in \[0, 1\]"),
        (("schedule.stream.rehearsal=-0.1",), 2, r"rehearsal is -0\.1, but must lie in \[0, 1\]"),
        (("schedule.stream.new=5000",), 3, r"'client-0': .* 5000 new rows of task 0, .* has 100"),
        (("schedule.stream.environment=unifrom",), 2, r"did you mean 'uniform'"),
        (
            ("schedule.stream.environment={power_law: {exponent: 0}}",),
            2,
            r"exponent is 0, but must be above 0",
        ),
        (("schedule.stream.order=shfit",), 2, r"unknown order 'shfit' \(did you mean 'shift'"),
        (("schedule.stream.budget=rows",), 2, r"unknown budget 'rows'"),
        (("+phases.learn.params.ewc_lambda=-1",), 2, r"params\.ewc_lambda is -1, but must be"),
        (("+phases.learn.params.ewc_lamda=1",), 2, r"unknown params\.ewc_lamda \(did you mean"),
        (
            (
                "schedule={repeat: {of: learn, times: 3}}",
                "+phases.learn.params.si_c=1",
                "report=null",
            ),
            2,
            r"si.* needs to know when a task ends: put the phase into a schedule's 'stream'",
        ),
        (("task.variant=split", "task.tasks=3"), 2, r"task\.tasks is 3, but 10 classes split"),
        (("task.variant=permutd",), 2, r"task\.variant: unknown name 'permutd' \(did you mean"),
        (("task.protocol=domain",), 2, r"task\.protocol: unknown protocol 'domain'"),
    ],
)
def test_mistakes_are_named_and_leave_no_run(
    command: Command, words: tuple[str, ...], code: int, message: str
) -> None:
    told = command("simulate", *SMALL, "compare=[]", *words)
    assert told.code == code, told.err
    assert re.search(message, told.err), told.err
    assert "Traceback" not in told.err and command.runs() == []


def test_a_task_that_comes_in_no_tasks_cannot_be_a_stream(command: Command) -> None:
    told = command(
        *("simulate", "fedavg_mnist", "schedule={stream: {of: train, tasks: 3}}", "report=null")
    )
    assert told.code == 2 and "DigitsTask comes in no tasks; use a StreamTask" in told.err


def test_more_rehearsal_than_was_seen_is_refused_before_the_run(command: Command) -> None:
    """Under a skewed split one client has few rows of a task that all budgets must come from."""
    words = (
        *("task.variant=split", "task.tasks=5", "task.protocol=class-incremental"),
        *("task.partition={name: dirichlet, alpha: 0.3}", "task.rows=null", "task.held_out=0"),
        *("schedule.stream.environment=last", "schedule.stream.rehearsal=1.0"),
    )
    told = command("simulate", *SMALL, "compare=[]", *words)
    assert told.code in (2, 3), told.err
    assert re.search(r"rehearses \d+ rows .* were seen; lower rehearsal|has no rows", told.err)
    assert command.runs() == []


@pytest.mark.parametrize(
    ("words", "acc"),
    [(("rounds=5",), True), (("rounds=1",), True), (("evaluate.server_every=3",), True),
     (("evaluate.server_every=0",), False), (("evaluate.each=false",), True)],
)  # fmt: skip
def test_a_run_cut_short_or_seldom_judged_still_has_a_report(
    command: Command, words: tuple[str, ...], acc: bool
) -> None:
    told = command("simulate", *SMALL, "compare=[]", *words)
    assert told.code == 0, told.err
    assert ("inverse_lag" in told.out) == acc
    assert acc or "evaluate.server_every is 0" in told.out
