"""The example of a stream of one's own tasks, as its README shows it, and what goes wrong."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from e2e_command import Command

README = Path(__file__).parents[2] / "scenarios" / "continual_own" / "README.md"
QUICK = ("task.hidden=[50]", "engine.mode=sequential", "progress=false")


def made_tasks() -> str:
    """Run the README's example here, and return the README."""
    page = README.read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    subprocess.run([sys.executable, "-W", "error", "-c", found[1]], check=True)
    return page


def test_the_example_runs_as_written(command: Command) -> None:
    page = made_tasks()
    lines = re.findall(r"^ +fedalt (plan|simulate) (continual_own .*)$", page, re.MULTILINE)
    assert [verb for verb, _ in lines] == ["plan", "simulate", "simulate"]
    told = command(*shlex.split(" ".join(lines[0])), "--json")
    assert told.code == 0, told.err
    plan = told.json()["streams"]
    assert plan["new_tasks"] == [[0, 1, 2]] * 4
    # 350 rows of each task, of which 35 are held out; the last task's are not past yet.
    assert plan["rows_kept"] == [2 * 315] * 4
    assert plan["row_bytes"] == 4 * 64 + 1
    for verb, words in lines[1:]:
        told = command(verb, *shlex.split(words), *QUICK)
        assert told.code == 0, told.err
        assert "4 clients, 3 tasks, domain-incremental" in told.out
        assert "data: tasks (3 files of one's own)" in told.out
    first = json.loads((command.runs()[0] / "report" / "matrices.json").read_text("utf-8"))
    assert set(first) == {"inverse_lag", "none", "uniform"}
    matrix = np.array(first["none"]["global"])
    assert matrix.shape == (3, 3)
    # Each task is learnt when it comes, and the first is forgotten.
    assert (np.diag(matrix) > 0.4).all()
    assert matrix[2, 0] < matrix[0, 0] - 0.1


def test_the_plan_of_a_run_names_what_the_folder_lacks(command: Command) -> None:
    told = command("simulate", "continual_own")
    assert told.code == 2
    assert "task.folder names no folder of tasks" in told.err
    assert 'np.savez("tasks/01-summer.npz", train_x=x' in told.err
    made_tasks()
    told = command("simulate", "continual_own", "task.folder=tasks", "task.tasks=2")
    assert told.code == 2 and "'tasks' holds 3 .npz files; set task.tasks=3" in told.err
    np.savez("tasks/02-turned-60.npz", train_x=np.zeros((4, 8, 8)))
    told = command("simulate", "continual_own", "task.folder=tasks")
    assert told.code == 3 and "02-turned-60.npz': array train_y is missing" in told.err
    assert "Traceback" not in told.err and command.runs() == []
