"""A small task that comes in tasks, whose rows say which task, site and row they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds

FEATURES, CLASSES = 8, 3


class ToyStream:
    """``tasks`` random linear problems; site k has ``rows[k]`` rows of each."""

    protocol = "domain-incremental"
    blocks: Sequence[Block] = ()

    def __init__(self, tasks: int = 4, rows: tuple[int, ...] = (30, 30), seed: int = 0) -> None:
        self.tasks = [f"task-{i}" for i in range(tasks)]
        self._rows = rows
        self._truth = Seeds(seed).at("truth").numpy().standard_normal((tasks, FEATURES, CLASSES))
        self._seed = seed
        self.asked: list[tuple[int, int, list[int]]] = []

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"site-{i}", n * len(self.tasks)) for i, n in enumerate(self._rows)]

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, CLASSES))

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        state = self.model().state_dict()
        return {n: (0.3 * rng.standard_normal(v.shape)).astype("f4") for n, v in state.items()}

    def task_rows(self, site: int, task: int) -> int:
        return self._rows[site]

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Remember what was asked for, as a test's witness."""
        self.asked.append((site, task, [int(row) for row in rows]))
        x = Seeds(self._seed).at("rows", site, task).numpy().standard_normal((200, FEATURES))
        y = (x @ self._truth[task]).argmax(1)
        return torch.from_numpy(x[rows].astype("f4")), torch.from_numpy(y[rows])

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        every = np.arange(self._rows[site])
        parts = [self.task_data(site, task, every) for task in range(len(self.tasks))]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def site_eval_slices(self, site: int) -> Mapping[str, np.ndarray]:
        count = self._rows[site]
        return {str(t): np.arange(t * count, (t + 1) * count) for t in range(len(self.tasks))}

    def scores(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        scores: torch.Tensor = model(batch[0])
        return scores

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        scores = self.scores(model, batch)
        correct = (scores.detach().argmax(1) == batch[1]).float().mean()
        return functional.cross_entropy(scores, batch[1]), {"accuracy": correct}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        model: Any = self.model().eval()
        model.load_state_dict({n: torch.tensor(v) for n, v in arrays.items()})
        found = {}
        for task in range(len(self.tasks)):
            batch = self.task_data(0, task, np.arange(100, 200))
            with torch.no_grad():
                found[f"accuracy/{task}"] = float(self.loss(model, batch)[1]["accuracy"])
        self.asked.clear()
        return found
