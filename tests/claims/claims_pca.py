"""Federated PCA through the whole system: one way to run it, and intervals over seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from fedalt.build import TaskCache
from fedalt.config import variant_overrides
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
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
class Bench:
    """Runs variants of the scenario in a folder, each configuration once."""

    folder: Path
    tasks: TaskCache = field(default_factory=TaskCache)
    done: dict[tuple[str, ...], Finished] = field(default_factory=dict)

    def run(self, *overrides: str, variant: str | None = None, again: bool = False) -> Finished:
        """Run a configuration to its end; the same one again is read from memory."""
        key = (*overrides, f"variant={variant}")
        if again or key not in self.done:
            config = configuration(*overrides, variant=variant)
            folder = RunFolder(self.folder / f"run-{len(self.done)}{'-again' * again}")
            folder.create({**config, "compared": {}})
            simulate(config, folder, self.tasks)
            made = finished(folder, variant or "main")
            if again:
                return made
            self.done[key] = made
        return self.done[key]

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


def interval(values: Sequence[float], level: float = 0.95) -> str:
    """Mean ± half of a t-interval over seeds, for messages."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.4f} (one seed)"
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf((1.0 + level) / 2.0, len(values) - 1)) * error
    return f"{mean:.4f} ± {half:.4f} ({len(values)} seeds: {', '.join(f'{v:.4f}' for v in values)})"
