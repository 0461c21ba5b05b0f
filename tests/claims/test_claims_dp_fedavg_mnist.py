"""Client-level privacy costs accuracy by how few clients share the noise; on MNIST."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from claims_runs import Runs, interval

from fedalt.scenario import find_scenario

MNIST = Path(os.environ.get("FEDALT_DATA", "")) / "mnist"
SEEDS = (0, 1)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="FEDALT_DATA holds no mnist")
def test_the_same_noise_costs_few_clients_more(tmp_path: Path) -> None:
    scenario, runs = find_scenario("dp_fedavg_mnist"), Runs(tmp_path)
    claim = scenario.config()["claim"]

    def accuracy(arm: str, seed: int) -> float:
        changes = (*claim["base"], *claim["arms"][arm], "rounds=30", f"seed={seed}")
        run = runs.carry_out(changes, lambda: scenario.config(changes))
        return float(run.result["metrics"]["server/accuracy"])

    found = {
        arm: np.array([accuracy(arm, seed) for seed in SEEDS])
        for arm in ("many", "many-1", "few", "few-1")
    }
    many, few = found["many"] - found["many-1"], found["few"] - found["few-1"]
    assert np.abs(many).max() < 0.03, interval(many.tolist())
    assert min(few - many) > 0.05, interval((few - many).tolist())
