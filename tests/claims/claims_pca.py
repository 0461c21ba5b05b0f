"""Federated PCA through the whole system: one way to run it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from claims_runs import Runs

from fedalt.config import variant_overrides
from fedalt.runs.report import Finished
from fedalt.scenario import find_scenario
from fedalt.scenarios.federated_pca.task import FederatedPCA

SYNTHETIC = ("task.data=synthetic", "task.rank=6")
NSL_KDD = ("task.data=nsl_kdd",)
SEEDS = (0, 1, 2)
QUICK = ("checkpoint.every=1000", "evaluate.server_every=0", "compare=[]")
"""Commit and judge at the end only: neither changes the weights."""

needs_nsl_kdd = pytest.mark.skipif(
    not os.environ.get("FEDALT_DATA"), reason="NSL-KDD: FEDALT_DATA names no folder"
)


@dataclass
class Bench(Runs):
    """Runs variants of the scenario."""

    def run(self, *overrides: str, variant: str | None = None, again: bool = False) -> Finished:
        """Run a configuration to its end; the same one again is read from memory."""
        key = (*overrides, f"variant={variant}")
        return self.carry_out(
            key, lambda: configuration(*overrides, variant=variant), variant or "main", again
        )

    def task(self, run: Finished) -> FederatedPCA:
        return cast(FederatedPCA, self.tasks(run.config["task"]))

    def judge(self, run: Finished) -> dict[str, float]:
        return self.task(run).evaluate(run.arrays)

    def over_seeds(
        self, *overrides: str, variant: str | None = None, seeds: Sequence[int] = SEEDS
    ) -> list[dict[str, float]]:
        """Judge one configuration under several seeds."""
        runs = [self.run(*overrides, f"seed={seed}", variant=variant) for seed in seeds]
        return [self.judge(run) for run in runs]

    def last_rounds(self, *overrides: str, variant: str, rounds: int = 50) -> float:
        """Return the mean residual ratio over the last consensus rounds: it need not settle."""
        run = self.run(*overrides, "evaluate.server_every=5", variant=variant)
        numbers, values = run.metric("server/residual_ratio")
        last = run.rounds[-1]["round"] - rounds
        return float(np.mean([v for n, v in zip(numbers, values, strict=True) if n > last]))


def configuration(*overrides: str, variant: str | None = None) -> dict[str, Any]:
    scenario = find_scenario("federated_pca")
    extra = variant_overrides(scenario.config(), variant) if variant else []
    return scenario.config([*quick_unless(overrides), *extra, *overrides])


def quick_unless(overrides: Sequence[str]) -> list[str]:
    named = {override.split("=", 1)[0] for override in overrides}
    return [item for item in QUICK if item.split("=", 1)[0] not in named]


def pick(results: Sequence[Mapping[str, float]], measure: str) -> list[float]:
    return [result[measure] for result in results]
