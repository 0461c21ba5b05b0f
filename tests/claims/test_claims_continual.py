"""Continual streams through the whole system: small, over seeds, and the full claim (slow).

The order of environments at an equal budget is what is claimed; that power-law rehearsal beats
uniform rehearsal is not, and nothing here tests it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claims_runs import Runs, interval

from fedalt.cli.main import main
from fedalt.runs.report import Finished
from fedalt.scenario import find_scenario
from fedalt.scenarios.continual_power_law.measures import StreamRun, measure, read_run

SEEDS = (0, 1, 2)
SMALL = (
    *("task.data=mnist", "task.clients=1", "task.rows=600", "task.tasks=8", "task.hidden=[100]"),
    *(
        "schedule.stream.rehearsal=0.2",
        "task.test_rows=1000",
        "phases.learn.epochs=6",
        "schedule.stream.rounds=1",
        "compare=[]",
    ),
    *("evaluate.clients_every=0", "checkpoint.every=1000", "engine.mode=sequential"),
)

needs_mnist = pytest.mark.skipif(
    not os.environ.get("FEDALT_DATA"), reason="MNIST: FEDALT_DATA names no folder"
)


@dataclass
class Bench(Runs):
    """Runs configurations of the scenario."""

    def run(self, *overrides: str) -> Finished:
        scenario = find_scenario("continual_power_law")
        return self.carry_out(overrides, lambda: scenario.config([*SMALL, *overrides]))

    def read(self, *overrides: str) -> StreamRun:
        run = self.run(*overrides)
        return read_run(self.tasks(run.config["task"]), run)

    def over_seeds(self, name: str, environment: str, *more: str) -> np.ndarray:
        found = []
        for seed in SEEDS:
            run = self.run(f"schedule.stream.environment={environment}", f"seed={seed}", *more)
            found.append(measure(self.tasks(run.config["task"]), run)[name])
        return np.array(found)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("runs"))


@needs_mnist
def test_environments_keep_their_order_at_an_equal_budget(bench: Bench) -> None:
    acc = {name: bench.over_seeds("acc", name) for name in ("none", "inverse_lag", "upper")}
    gain = acc["inverse_lag"] - acc["none"]
    assert gain.min() > 0.03, f"rehearsal over none: {interval(gain.tolist())}"
    room = acc["upper"] - acc["inverse_lag"]
    assert room.min() > 0.02, f"all of the past over a tenth of it: {interval(room.tolist())}"


@needs_mnist
def test_the_oldest_tasks_pay_for_a_fast_decay(bench: Bench) -> None:
    """More than the newest gain; that those stay level is for the full claim to say."""
    pairs = {
        name: bench.over_seeds(name, "uniform") - bench.over_seeds(name, "exponential")
        for name in ("oldest", "newest")
    }
    assert pairs["oldest"].min() > 0.0, interval(pairs["oldest"].tolist())
    lost = (pairs["oldest"] + pairs["newest"]).tolist()
    assert np.mean(lost) > 0.02, interval(lost)


@needs_mnist
def test_work_is_matched_and_rows_are_what_the_budget_says(bench: Bench) -> None:
    steps = {}
    for name in ("none", "exponential", "inverse_lag", "uniform", "upper"):
        read = bench.read(f"schedule.stream.environment={name}", "seed=0")
        steps[name] = read.steps
        rows = {"none": 4800, "upper": 600 * 36}.get(name, 4800 + 7 * 120)
        assert read.rows == rows, name
    # 600 rows in batches of 64 are 10 steps; 6 epochs, 8 experiences.
    assert set(steps.values()) == {480}


@needs_mnist
def test_clients_at_different_tasks_rehearse_for_each_other(bench: Bench) -> None:
    more = ("task.clients=3", "task.tasks=3", "schedule.stream.rounds=4", "phases.learn.epochs=1")
    together = bench.over_seeds("acc", "none", *more)
    apart = bench.over_seeds("acc", "none", *more, "schedule.stream.order=shift")
    assert (apart - together).min() > 0.02, interval((apart - together).tolist())


@needs_mnist
def test_before_a_task_is_learnt_nothing_is_known_of_it(bench: Bench) -> None:
    """Above the diagonal of the accuracy matrix is chance, and the diagonal is well above it."""
    matrix = bench.read("schedule.stream.environment=none", "seed=0").matrix
    future = matrix[np.triu_indices(8, k=1)]
    assert matrix.shape == (8, 8) and future.max() < 0.35 and abs(future.mean() - 0.1) < 0.08
    assert np.diag(matrix).min() > 0.6


@needs_mnist
@pytest.mark.slow
def test_the_claim_holds_on_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of environments over five seeds, on the data that tests have.

    The values are those of Fashion-MNIST, so only statements of order are asked for here.
    """
    import json

    monkeypatch.chdir(tmp_path)
    arms = "none,last,exponential,power_5.6,inverse_lag,uniform,upper,sync_none,shift_none"
    words = ["reproduce", "continual_power_law", "task.data=mnist", "--arms", arms, "--jobs", "2"]
    assert main([*words, "progress=false"]) == 0
    (told,) = Path("runs/reproduce/continual_power_law/parts").glob("*/claim.json")
    data: Any = json.loads(told.read_text(encoding="utf-8"))
    judged = {s["statement"]: s["verdict"] for s in data["holds"] if ">" in s["statement"]}
    assert len(judged) > 8 and "does not hold" not in judged.values(), judged
    for text in ("exponential > last", "inverse_lag > exponential", "shift_none > sync_none"):
        assert any(text in name and verdict == "holds" for name, verdict in judged.items()), text
