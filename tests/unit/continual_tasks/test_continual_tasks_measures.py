"""What is read of a finished run: who trained, when conditions ended, and first looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import BLOCKWISE, settings
from stream_tasks import ToyStream

from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
from fedalt.scenarios.continual_power_law.measures import StreamRun, measure, read_run
from fedalt.scenarios.continual_power_law.report import write

LEARN: dict[str, Any] = {"epochs": 1, "batch_size": 10, "params": {"lr": 0.1}}
LOOK: dict[str, Any] = {"steps": 1, "batch_size": 10, "params": {"lr": 0.1}}


def carried_out(
    folder: Path, task: ToyStream, body: dict[str, Any], each: bool = False, **changes: Any
) -> Finished:
    """Run a stream to its end; ``changes`` are of the phase ``learn`` or ``server_every``."""
    judged = {"clients_every": int(each), "server_every": changes.pop("server_every", 1)}
    config = settings(
        task={"_target_": "toy"},
        phases={"learn": {**LEARN, **changes}, "first_look": {**LOOK, **changes}},
        schedule={"stream": {"of": "learn", "new": 20, **body}},
        evaluate={**judged, "each": each},
        strategy=BLOCKWISE,
        rounds=40,
    )
    run = RunFolder(folder / "run")
    run.create({**config, "compared": {}})
    simulate(config, run, lambda spec: task)  # type: ignore[arg-type]
    return finished(run, "main")


def test_conditions_end_where_they_ended_in_the_run(tmp_path: Path) -> None:
    """Judged every other round, an experience lasts two; nothing measured would make it five."""
    stop = {"above": {"metric": "server/accuracy/0", "value": -1.0}}
    body = {"of": {"until": {"of": "learn", "stop": stop, "max_rounds": 5}}, "tasks": 4}
    task = ToyStream()
    run = carried_out(tmp_path, task, body, server_every=2)
    assert len(run.rounds) == 8
    read = read_run(task, run)
    assert read.plan.new_tasks().tolist() == [[0, 1, 2, 3]] * 2
    judged = [run.rounds[place]["metrics"] for place in (1, 3, 5, 7)]
    wanted = [[metrics[f"server/accuracy/{j}"] for j in range(4)] for metrics in judged]
    np.testing.assert_allclose(read.matrix, wanted)


def test_a_client_that_never_trains_is_no_client_of_the_stream(tmp_path: Path) -> None:
    task = ToyStream(rows=(30,) * 6)
    clients = {"mode": "fixed", "count": 2}
    run = carried_out(tmp_path, task, {"tasks": 2}, each=True, clients=clients)
    read = read_run(task, run)
    trained = sorted(read.plan.sites)
    assert 2 <= len(trained) < 6 == len(run.clients[0]["sites"]), "the seed draws too many"
    assert read.clients is not None and read.clients.shape == (len(trained), 2, 4)
    last = run.clients[-1]["sites"]
    for row, site in enumerate(trained):
        wanted = [last[str(site)][f"accuracy/{j}"] for j in range(4)]
        np.testing.assert_allclose(read.clients[row, -1], wanted)
    report = write(task, {"main": run}, tmp_path)
    assert report.tables[0].columns[-1] == "facilitation"
    told = json.loads((tmp_path / "matrices.json").read_text())["none"]
    assert told["sites"] == trained and len(told["clients"]) == len(trained)


def test_clients_without_a_past_or_a_measurement_do_not_hide_the_others() -> None:
    nan = np.nan
    clients = np.array([[[0.8, 0.1], [0.6, 0.9]], [[nan, nan], [0.5, 0.5]], [[nan, nan]] * 2])
    plan: Any = type("Plan", (), {"new_tasks": lambda self: np.array([[0, 1], [-1, 0], [0, 1]])})
    empty = np.zeros((2, 2))
    read = StreamRun(plan(), empty, empty[0], None, clients, 0, 0)
    means = read.client_means()
    assert means == pytest.approx(
        {"client_acc": (0.75 + 0.5) / 2, "client_bwt": -0.2, "client_forgetting": 0.2}
    )


@pytest.mark.parametrize("rounds", [1, 2])
def test_first_looks_are_those_at_tasks_new_to_the_clients(tmp_path: Path, rounds: int) -> None:
    """In shift order clients are at different tasks: a look is the mean over them."""
    body = {"of": {"chain": ["first_look", "learn"]}, "tasks": 3, "rounds": rounds}
    task = ToyStream()
    run = carried_out(tmp_path, task, {**body, "order": "shift"})
    read = read_run(task, run)
    looks = [event["metrics"] for event in run.rounds if "first_look" in event["phases"]]
    assert len(looks) == 3 * rounds
    wanted = [
        np.mean([look[f"server/accuracy/{j}"] for j in tasks])
        for look, tasks in zip(looks[::rounds], ((0, 1), (1, 2), (2, 0)), strict=True)
    ]
    assert read.few_steps is not None
    np.testing.assert_allclose(read.few_steps, wanted)
    slope = np.polyfit(range(3), wanted, 1)[0]
    assert measure(task, run)["facilitation_slope"] == pytest.approx(slope)


def test_looks_that_were_not_judged_are_not_measured(tmp_path: Path) -> None:
    """Rounds 3, 6, … are judged: the looks are rounds 1, 3 and 5."""
    body = {"of": {"chain": ["first_look", "learn"]}, "tasks": 3}
    task = ToyStream()
    run = carried_out(tmp_path, task, body, server_every=3)
    found = read_run(task, run).few_steps
    assert found is not None
    look = run.rounds[2]["metrics"]["server/accuracy/1"]
    np.testing.assert_allclose(found, [np.nan, look, np.nan])
    (tmp_path / "none").mkdir()
    never = carried_out(tmp_path / "none", task, {"tasks": 2})
    assert read_run(task, never).few_steps is None
