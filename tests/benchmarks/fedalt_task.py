"""The works as fedalt tasks: the usual one, clients made on demand, a client in a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from continual_work import Continual
from images import load_images
from nets import loss_of, network, perceptron
from torch import nn
from work import Arrays, Work

from fedalt.alternation import LazySites
from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds


class BenchTask:
    """A work's clients; ``final`` holds the weights that the server judged last."""

    blocks: tuple[Block, ...] = ()

    def __init__(self, work: Work) -> None:
        self.work = work
        self.source = work.source
        self.final: Arrays = {}
        self.sites: Sequence[Site] = [
            Site(i, f"client-{i}", work.size(i)) for i in range(work.clients)
        ]
        self._x, self._y = torch.from_numpy(work.x), torch.from_numpy(work.y)

    def model(self) -> nn.Module:
        """Build the network."""
        return network(self.work.name)

    def initial_arrays(self, seeds: Seeds) -> Arrays:
        """Return the work's initial weights, whatever the run's seed."""
        return self.work.initial()

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a client's images and labels."""
        rows = self.work.rows(site)
        return self._x[rows], self._y[rows]

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the batch's mean loss and no metrics."""
        return loss_of(self.work.name, model(batch[0]), batch[1]), {}

    def evaluate(self, arrays: Any) -> dict[str, float]:
        """Keep the weights; they are judged when the clock has stopped."""
        self.final = {name: np.array(values) for name, values in arrays.items()}
        return {}


def sizes_of(count: int) -> np.ndarray:
    """Return clients' numbers of samples, 50 to 100, each from its index alone."""
    return 50 + (np.arange(count) * 2_654_435_761 >> 8) % 51


class LazyTask(BenchTask):
    """Any number of clients, each of whom draws its images from the whole set when asked.

    What a client costs to make counts in its client-round, so these rows compare with one
    another and not with the work whose data lie ready.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.final = {}
        self.sites = LazySites(sizes_of(work.clients))
        images = load_images()
        self.source = f"{images.source}, drawn on demand"
        self._x = torch.from_numpy(images.train_x.reshape(-1, 1, 28, 28))
        self._y = torch.from_numpy(images.train_y)

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Draw a client's images and labels, the same ones each time."""
        rng = np.random.default_rng([site, 4])
        rows = torch.from_numpy(rng.integers(0, len(self._y), self.sites[site].size))
        return self._x[rows].float().div_(255), self._y[rows]


class ContinualTask(BenchTask):
    """The one client of a stream; a StreamTask."""

    protocol = "domain-incremental"

    def __init__(self, work: Continual) -> None:
        self.stream = work
        self.source = work.source
        self.final = {}
        self.tasks = [f"permutation {task}" for task in range(work.rounds)]
        self.sites = [Site(0, "client-0", len(work.y) * work.rounds)]
        self._x, self._y = torch.from_numpy(work.x), torch.from_numpy(work.y)

    def model(self) -> nn.Module:
        """Build the network."""
        return perceptron(self.stream.initial())

    def initial_arrays(self, seeds: Seeds) -> Arrays:
        """Return the work's initial weights, whatever the run's seed."""
        return self.stream.initial()

    def task_rows(self, site: int, task: int) -> int:
        """Return N₀, for every task."""
        return len(self._y)

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return images with a task's order of pixels, and labels."""
        chosen = torch.from_numpy(rows).long()
        return self._x[chosen][:, torch.from_numpy(self.stream.pixels[task])], self._y[chosen]

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return the rows of all tasks; nothing here asks for them."""
        every = np.arange(len(self._y))
        parts = [self.task_data(site, task, every) for task in range(len(self.tasks))]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the batch's mean loss and no metrics."""
        return loss_of("mlp", model(batch[0]), batch[1]), {}
