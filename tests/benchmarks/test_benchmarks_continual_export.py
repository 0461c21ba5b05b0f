"""Another library is compared on what fedalt's client meets: no other rows, batches, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continual_avalanche import BASE, check_rows
from continual_streams import export
from nets import perceptron
from torch.nn import functional

from fedalt.build import TaskCache
from fedalt.runs.folder import RunFolder
from fedalt.runs.plan import preview_of
from fedalt.runs.report import finished
from fedalt.runs.simulate import simulate
from fedalt.runs.streams import walk_streams
from fedalt.scenario import find_scenario

SMALL = ("seed=3", "task.tasks=4", "task.rows=200", "task.hidden=[12]", "task.test_rows=50")


@pytest.fixture(autouse=True)
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the digits that scikit-learn carries take MNIST's place."""
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def settings(environment: str) -> tuple[dict[str, Any], TaskCache]:
    chosen = (*BASE, *SMALL, f"schedule.stream.environment={environment}")
    return find_scenario("continual_power_law").config(chosen), TaskCache()


@pytest.mark.parametrize(
    ("environment", "rehearsed"), [("none", 0), ("uniform", 20), ("upper", -1)]
)
def test_rows_are_those_that_the_plan_counts(
    environment: str, rehearsed: int, tmp_path: Path
) -> None:
    config, tasks = settings(environment)
    task = tasks(config["task"])
    met = export(config, task, tmp_path / "stream.npz")
    preview, _ = preview_of(config, tasks)
    planned = walk_streams(preview, task, config["seed"])
    assert planned is not None
    for e, meeting in planned.sites[0].meetings.items():
        x, y = zip(*(task.task_data(0, t, rows) for t, rows in meeting.rows.items()), strict=True)
        np.testing.assert_array_equal(met[e].x, torch.cat(x))
        np.testing.assert_array_equal(met[e].y, torch.cat(y))
        past = 200 * e if rehearsed < 0 else rehearsed * (e > 0)
        assert (met[e].new, len(met[e].y)) == (200, 200 + past)
    check_rows(met, task.source, 200)
    with pytest.raises(SystemExit, match=r"\[200\] new rows of '.*digits.*', but 2000"):
        check_rows(met, task.source, 2000)


def test_a_plain_loop_on_the_file_ends_on_the_runs_weights(tmp_path: Path) -> None:
    config, tasks = settings("inverse_lag")
    export(config, tasks(config["task"]), tmp_path / "stream.npz")
    stream = np.load(tmp_path / "stream.npz")
    first = {k.partition("/")[2]: stream[k] for k in stream if k.startswith("initial/")}
    model = perceptron(first)
    for e in range(4):
        optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
        x, y = torch.tensor(stream[f"x_{e}"]), torch.tensor(stream[f"y_{e}"])
        batches = np.split(stream[f"order_{e}"], np.cumsum(stream[f"sizes_{e}"])[:-1])
        assert len(batches) == stream["steps"] == 6 * 4
        for rows in batches:
            optimiser.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    folder = RunFolder(tmp_path / "run")
    folder.create({**config, "compared": {}})
    simulate(config, folder, tasks)
    run = finished(folder, "main")
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, run.arrays[name], rtol=1e-4, atol=1e-5, err_msg=name)
    # And it is judged on the same rows.
    told = run.rounds[-1]["metrics"]
    for j in range(4):
        shown = model(torch.tensor(stream[f"test_x_{j}"])).argmax(1).numpy()
        right = (shown == stream[f"test_y_{j}"]).mean()
        assert right == pytest.approx(told[f"server/accuracy/{j}"], abs=1e-6)
