"""Small federations for tests: tasks with closed forms, and one way to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.config import Settings
from fedalt.runs.checkpoint import Snapshot, newest_checkpoint
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate
from fedalt.seeds import Seeds

BLOCKWISE = {"_target_": "fedalt.server.strategies.blockwise.Blockwise"}


class LeastSquares:
    """Linear regression in float64 among clients of different sizes.

    The loss is half the mean squared error, so that a full-batch gradient is
    Xᵀ(Xw + b − y)/n: every strategy has a closed form in numpy.
    """

    def __init__(self, clients: int = 7, features: int = 3, seed: int = 5) -> None:
        rng = Seeds(seed).numpy()
        self.sizes = [10 + 3 * i for i in range(clients)]
        truth = rng.standard_normal(features)
        self.x = [rng.standard_normal((n, features)) for n in self.sizes]
        self.y = [
            x @ (truth + 0.3 * rng.standard_normal(features)) + 0.1 * rng.standard_normal(len(x))
            for x in self.x
        ]
        self.features = features
        modality = ("ct", "mr")
        self.sites: Sequence[Site] = [
            Site(i, f"client-{i}", n, {"modality": modality[i % 2]})
            for i, n in enumerate(self.sizes)
        ]
        self.blocks: Sequence[Block] = [Block("slope", ("weight",)), Block("offset", ("bias",))]

    def model(self) -> nn.Module:
        return nn.Linear(self.features, 1, dtype=torch.float64)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"weight": np.full((1, self.features), 0.5), "bias": np.zeros(1)}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(self.x[site]), torch.from_numpy(self.y[site])

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        x, y = batch
        return (model(x).squeeze(1) - y).square().mean() / 2, {}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        total = sum(
            float(np.square(x @ arrays["weight"][0] + arrays["bias"] - y).sum() / 2)
            for x, y in zip(self.x, self.y, strict=True)
        )
        return {"loss": total / sum(self.sizes)}


def settings(**changes: Any) -> dict[str, Any]:
    """Return a run's configuration with the given top-level changes."""
    base = asdict(Settings())
    base |= {
        "name": "test",
        "rounds": 3,
        "phases": {
            "train": {
                "kernel": "gradient",
                "epochs": 1,
                "batch_size": 10_000,
                "params": {"lr": 0.1},
            }
        },
        "schedule": {"repeat": {"of": "train"}},
        "strategy": BLOCKWISE,
        "compared": {},
    }
    return {**base, **changes}


class Stop(Exception):
    """Ends a run from outside."""


def federate(
    task: Any, folder: Path, stop_at: int | None = None, **changes: Any
) -> tuple[dict[str, Any], Snapshot]:
    """Run, or go on with, a task in ``folder``; return the result and the last snapshot.

    Raises :class:`Stop` once the round ``stop_at`` is committed.
    """
    config = settings(**changes)
    run = RunFolder(folder)
    if not (folder / "config.json").exists():
        run.create(config)

    def hear(event: Any) -> None:
        if event["event"] == "committed" and event["round"] == stop_at:
            raise Stop

    result = simulate(config, run, lambda spec: task, [hear])  # type: ignore[arg-type]
    snapshot, notes = newest_checkpoint(run.checkpoints)
    assert snapshot is not None, notes
    return result, snapshot
