"""Slices of a site's data measured one by one, every client's measures told, and refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import federate, settings
from stream_tasks import ToyStream

from fedalt.alternation import Phase, StreamView, View, parse_schedule, preview_schedule
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.evaluate import EvaluateKernel
from fedalt.errors import ConfigError
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import finished
from fedalt.runs.simulate import simulate
from fedalt.runs.streams import walk_streams
from fedalt.seeds import Seeds


def site(task: ToyStream) -> SiteContext:
    return SiteContext(task, 1, {}, Seeds(0))


def test_each_slice_is_measured_as_if_it_were_alone() -> None:
    task = ToyStream(rows=(30, 20))
    arrays = task.initial_arrays(Seeds(0))
    work = EvaluateKernel()(Order("r", 1, Phase("evaluate"), arrays, ()), site(task))
    model: Any = task.model().eval()
    model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
    found = []
    for number in range(4):
        with torch.no_grad():
            loss, metrics = task.loss(model, task.task_data(1, number, np.arange(20)))
        assert work.metrics[f"accuracy/{number}"] == pytest.approx(float(metrics["accuracy"]))
        assert work.metrics[f"loss/{number}"] == pytest.approx(float(loss), rel=1e-5)
        found.append(float(metrics["accuracy"]))
    assert work.metrics["accuracy"] == pytest.approx(np.mean(found))


def test_it_cannot_be_part_of_a_stream() -> None:
    phase = Phase("judge", kernel="evaluate", view=View(stream=StreamView(tasks=(0,))))
    order = Order("r", 1, phase, ToyStream().initial_arrays(Seeds(0)), ())
    with pytest.raises(ConfigError, match=r"set evaluate\.clients_every instead"):
        EvaluateKernel()(order, site(ToyStream()))


def test_a_run_tells_what_every_client_measured_and_the_steps_taken(tmp_path: Path) -> None:
    config = settings(
        task={"_target_": "toy"},
        phases={"learn": {"epochs": 1, "batch_size": 10, "params": {"lr": 0.1}}},
        schedule={
            "stream": {
                "of": "learn",
                "tasks": 3,
                "environment": "uniform",
                "rehearsal": 0.5,
                "new": 20,
            }
        },
        evaluate={"clients_every": 1, "server_every": 1, "each": True},
        strategy={"_target_": "fedalt.server.strategies.blockwise.Blockwise"},
        rounds=9,
    )
    folder = RunFolder(tmp_path / "run")
    folder.create({**config, "compared": {}})
    task = ToyStream()
    simulate(config, folder, lambda spec: task)  # type: ignore[arg-type]
    run = finished(folder, "main")
    assert [event["round"] for event in run.clients] == [1, 2, 3]
    last = run.clients[-1]["sites"]
    assert sorted(last) == ["0", "1"]
    for number in range(4):
        values = [last[name][f"accuracy/{number}"] for name in ("0", "1")]
        pooled = run.rounds[-1]["metrics"][f"clients/accuracy/{number}"]
        assert pooled == pytest.approx(np.mean(values), abs=1e-5)
    # Two clients, two steps each: 20 new rows in batches of 10, rehearsal or not.
    assert [event["steps"] for event in run.rounds] == [{"learn": 4}] * 3
    assert "num-examples" not in json.dumps(run.clients)


def test_the_plan_counts_exactly_the_records_that_a_run_reads(tmp_path: Path) -> None:
    """Sampled clients, several passes, own orders and environments: record by record."""
    learn = {"batch_size": 8, "clients": {"mode": "fixed", "count": 3}, "params": {"lr": 0.1}}
    body = {
        "of": {"chain": ["learn", "learn"]},
        "tasks": 6,
        "new": 20,
        "rounds": 2,
        "rehearsal": 0.5,
        "order": "shuffle",
        "environment": ["inverse_lag", "uniform"],
    }
    task, trained = ToyStream(tasks=6, rows=(30,) * 8), Counter[tuple[int, int, int]]()
    schedule = parse_schedule({"learn": learn}, {"stream": body})
    preview = preview_schedule(schedule, Seeds(0).at("schedule"), task.sites, 100)
    plan = walk_streams(preview, task, 0)
    assert plan is not None
    planned = Counter(
        {
            (site, number, int(row)): int(times)
            for site, own in plan.sites.items()
            for number, counts in own.touches.items()
            for row, times in zip(own.seen.pools[number], counts, strict=True)
        }
    )
    read = task.task_data

    def spied(site: int, number: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        trained.update((site, number, int(row)) for row in rows)
        return read(site, number, rows)

    task.task_data = spied  # type: ignore[method-assign]
    engine = {**settings()["engine"], "mode": "sequential"}
    judged = {"clients_every": 0, "server_every": 0, "each": False}
    federate(
        task,
        tmp_path / "run",
        rounds=100,
        phases={"learn": learn},
        schedule={"stream": body},
        engine=engine,
        evaluate=judged,
    )
    assert trained == planned and max(planned.values()) > 4


@pytest.mark.parametrize(
    "slices",
    [{"a": range(5)}, {"a": range(50), "b": range(45, 80)}, {}],
    ids=["some", "twice", "no"],
)
def test_slices_that_miss_rows_or_share_them_leave_the_whole_as_it_is(
    slices: dict[str, range], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ToyStream(rows=(30, 20))
    order = Order("r", 1, Phase("evaluate"), task.initial_arrays(Seeds(0)), ())
    wanted = EvaluateKernel()(order, site(task)).metrics
    named = {name: np.array(some) for name, some in slices.items()}
    monkeypatch.setattr(task, "site_eval_slices", lambda number: named)
    found = EvaluateKernel()(order, site(task)).metrics
    for key in ("loss", "accuracy"):
        assert found[key] == pytest.approx(wanted[key], rel=1e-6)
    assert set(found) == {"loss", "accuracy"} | {
        f"{k}/{n}" for k in ("loss", "accuracy") for n in named
    }
