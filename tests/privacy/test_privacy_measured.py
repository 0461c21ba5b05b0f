"""The noise in a model is the noise in its ledger, whoever added it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate
from scipy.stats import chi2

LEVEL = 1e-6
"""How rarely sound noise may fail."""
RATE, SITES, FEATURES = 0.5, 5, 6000
PRIVACY = {
    "delta": 1e-5, "relation": "add_remove", "budget": {}, "policy": "stop", "disjoint": "",
    "allow_unprotected": False,
}  # fmt: skip


class Nothing(LeastSquares):
    """Sites whose rows are all zero: their gradients are too, so that a model moves by noise."""

    def __init__(self) -> None:
        super().__init__(SITES, FEATURES)
        self.x = [np.zeros_like(x) for x in self.x]
        self.y = [np.zeros_like(y) for y in self.y]
        self.start = super().initial_arrays(None)["weight"]  # type: ignore[arg-type]


def deviation(kind: str, task: Nothing, stated: Mapping[str, Any]) -> float:
    """Return the standard deviation of a model's weights that the ledger's entry makes."""
    std = stated["noise_std"]
    if kind == "central":
        return float(std / stated["denominator"])
    if kind == "local":
        return float(std / math.sqrt(SITES))
    if kind == "distributed":
        return float(std / SITES)
    # One step at each site, of all its rows, averaged by their numbers.
    total = sum(task.sizes)
    return math.sqrt(sum((n / total * RATE * std / n) ** 2 for n in task.sizes))


@pytest.mark.parametrize("kind", ["central", "local", "distributed", "record"])
def test_measured_noise_is_that_of_the_ledger(kind: str, tmp_path: Path) -> None:
    unit = {"unit": "record"} if kind == "record" else {"unit": "client", "trust": kind}
    task, spec = Nothing(), {**unit, "clip": 0.7, "noise": 1.3}
    phase = {
        "train": "slope", "batch_size": 1000, "params": {"lr": RATE}, "privacy": spec,
        "clients": {"mode": "all"},
    }  # fmt: skip
    _, snapshot = federate(
        task, tmp_path / "run", rounds=1, phases={"train": phase}, privacy=PRIVACY
    )
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    (stated,) = [e["mechanism"] for e in map(json.loads, lines) if e["status"] == "committed"]
    assert stated["clip"] == 0.7
    assert stated["noise_std"] >= 0.7 * 1.3
    assert stated["noise_std"] == pytest.approx(stated["noise_multiplier"] * stated["sensitivity"])
    moved = (snapshot.model["weight"] - task.start) / deviation(kind, task, stated)
    total, count = float(np.square(moved).sum()), moved.size
    assert chi2.ppf(LEVEL, count) < total < chi2.isf(LEVEL, count)
