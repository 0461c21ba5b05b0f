"""A memory of past tasks' rows, of fixed size: a uniform sample of all rows offered to it.

Algorithm R (Vitter 1985, "Random sampling with a reservoir"): the n-th row offered takes a
place with probability capacity/n, one drawn at random. What is kept are numbers of tasks and
rows, from the pools of what the client was given; never the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fedalt.clients.kernels.evaluate import Batch, take
from fedalt.clients.kernels.methods.base import Entries, Scene
from fedalt.errors import ConfigError


@dataclass(frozen=True)
class Reservoir:
    """``held`` are pairs (task, row), (m, 2); ``offered`` pairs (task, rows offered), (t, 2)."""

    capacity: int
    held: np.ndarray
    offered: np.ndarray

    @classmethod
    def empty(cls, capacity: int) -> Reservoir:
        """Return a memory without rows."""
        return cls(capacity, np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32))

    def offer(self, task: int, rows: np.ndarray, rng: np.random.Generator) -> Reservoir:
        """Offer a task's rows, one after the other; a task offered before is passed over.

        Its rows are the same as then, and would count twice.
        """
        if task in self.offered[:, 0]:
            return self
        begin = int(self.offered[:, 1].sum())
        new = np.stack([np.full(len(rows), task), rows], axis=1).astype(np.int32)
        free = min(len(new), self.capacity - len(self.held))
        held = np.concatenate([self.held, new[:free]])
        later = np.arange(begin + free, begin + len(new))
        places = rng.integers(0, later + 1)
        for number in np.flatnonzero(places < self.capacity):
            held[places[number]] = new[free + number]
        offered = np.concatenate([self.offered, [[task, len(rows)]]]).astype(np.int32)
        return Reservoir(self.capacity, held, offered)

    @classmethod
    def read(cls, state: Mapping[str, np.ndarray], key: str, capacity: int) -> Reservoir:
        """Read what :meth:`entries` wrote; raises :class:`ConfigError` if the size has changed."""
        if f"{key}/held" not in state:
            return cls.empty(capacity)
        former = int(state[f"{key}/capacity"])
        if former != capacity:
            raise ConfigError(
                f"state '{key}' is a memory of {former} rows, and now {capacity} are asked for; a "
                "sample cannot be resized and stay uniform: keep the size over the whole stream"
            )
        return cls(capacity, state[f"{key}/held"], state[f"{key}/offered"])

    def entries(self, key: str) -> Entries:
        """Return entries for a client's state."""
        return {
            f"{key}/held": self.held,
            f"{key}/offered": self.offered,
            f"{key}/capacity": np.array(self.capacity, np.int64),
        }


@dataclass(frozen=True)
class Remembered:
    """A memory's rows as tensors, of which each call of :meth:`draw` takes some at random."""

    data: Batch
    size: int
    rng: np.random.Generator

    def draw(self) -> Batch:
        """Return rows of the memory, drawn without replacement; all if there are no more."""
        count = len(self.data[0])
        if count <= self.size:
            return self.data
        chosen = self.rng.choice(count, self.size, replace=False)
        return take(self.data, torch.from_numpy(chosen).to(self.data[0].device))


def remember(scene: Scene, use: str, capacity: int, size: int) -> tuple[Remembered | None, Entries]:
    """Return a method's memory, None while it is empty, and the entries to keep if it changed.

    The rows of a task that has just ended are offered; so it holds none of the present task
    unless that one has been met before. A step draws ``size`` rows, 0 for ``batch_size``.
    """
    key, former = scene.key("memory", use), scene.former
    memory = Reservoir.read(scene.client.site.state, key, capacity)
    kept: Entries = {}
    if former is not None:
        memory = memory.offer(former.task, former.rows, scene.seeds(f"{use} offer").numpy())
        kept = memory.entries(key)
    if not len(memory.held):
        return None, kept
    tasks = np.unique(memory.held[:, 0])
    data = scene.batch({int(t): memory.held[memory.held[:, 0] == t, 1] for t in tasks})
    size = size or scene.stage.phase.batch_size
    return Remembered(data, size, scene.seeds(f"{use} draw").numpy()), kept
