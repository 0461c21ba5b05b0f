"""Handwritten digits, split among clients; a small network learns to tell them apart.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017 (arXiv:1602.05629): the digits, the two models and the pathological
partition. The Dirichlet partition follows Hsu et al., arXiv:1909.06335.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.data import load_images, partition
from fedalt.errors import ConfigError, nearest
from fedalt.seeds import Seeds
from fedalt.task import Arrays

MODELS = ("logistic", "mlp", "cnn")


class DigitsTask:
    """Digit images among ``clients`` sites.

    ``partition`` is ``iid``, ``dirichlet`` (label skew of strength ``alpha``) or
    ``pathological`` (``shards`` label-sorted shards a client); ``model`` is ``logistic``,
    ``mlp`` (two hidden layers of 200) or ``cnn``; ``rows`` keeps only so many training images.
    """

    def __init__(
        self,
        data: str = "mnist",
        root: str | None = None,
        clients: int = 20,
        partition: str = "dirichlet",
        alpha: float = 0.3,
        shards: int = 2,
        model: str = "mlp",
        rows: int | None = None,
        download: bool = False,
        seed: int = 0,
    ) -> None:
        if model not in MODELS:
            raise ConfigError(f"task.model: unknown model '{model}'{nearest(model, MODELS)}")
        self.images = load_images(data, root, download=download)
        self._model = model
        rng = Seeds(seed).at("partition").numpy()
        kept = np.arange(len(self.images.train_y))
        if rows is not None:
            if not 0 < rows <= len(kept):
                raise ConfigError(f"task.rows={rows}: must be 1 to {len(kept)}")
            kept = np.sort(rng.choice(kept, size=rows, replace=False))
        self._x = torch.from_numpy(self.images.train_x[kept])
        self.labels = self.images.train_y[kept]
        self._y = torch.from_numpy(self.labels)
        self.parts = split(partition, self.labels, clients, rng, alpha, shards)

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a client."""
        return [Site(i, f"client-{i}", len(part)) for i, part in enumerate(self.parts)]

    @property
    def blocks(self) -> Sequence[Block]:
        """The last layer, and all before it where there is any."""
        head = Block("head", ("head/*",))
        return [head] if self._model == "logistic" else [head, Block("body", ("body/*",))]

    def model(self) -> nn.Module:
        """Build the network; initial weights come from :meth:`initial_arrays`."""
        return network(self._model)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return He-initialised weights and zero biases from the run's own generator."""
        rng = seeds.numpy()
        arrays = {}
        for name, value in self.model().state_dict().items():
            shape = tuple(value.shape)
            scale = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) > 1 else 0.0
            arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        return arrays

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        """Return a site's images (n, 1, 28, 28) in [0, 1] and labels (n,)."""
        rows = torch.from_numpy(self.parts[site])
        return self._x[rows].unsqueeze(1).float() / 255.0, self._y[rows]

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the mean cross-entropy, and the accuracy."""
        images, labels = batch
        scores = model(images)
        correct = (scores.detach().argmax(1) == labels).float().mean()
        return functional.cross_entropy(scores, labels), {"accuracy": correct}

    @torch.no_grad()
    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the test images."""
        model = self._trained(arrays)
        total, correct = 0.0, 0
        for images, labels in self._test_batches:
            scores = model(images)
            total += float(functional.cross_entropy(scores, labels, reduction="sum"))
            correct += int((scores.argmax(1) == labels).sum())
        count = len(self.images.test_y)
        return {"loss": total / count, "accuracy": correct / count}

    @torch.no_grad()
    def client_accuracy(self, arrays: Arrays) -> np.ndarray:
        """Return a model's accuracy (clients,) on each client's own training images."""
        model = self._trained(arrays)
        found = []
        for site in range(len(self.parts)):
            images, labels = self.site_data(site)
            guesses = torch.cat([model(batch).argmax(1) for batch in torch.split(images, 1000)])
            found.append(float((guesses == labels).float().mean()))
        return np.array(found)

    def _trained(self, arrays: Arrays) -> nn.Module:
        model = self.model().eval()
        model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
        return model

    @cached_property
    def _test_batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        x = torch.from_numpy(self.images.test_x).unsqueeze(1).float() / 255.0
        y = torch.from_numpy(self.images.test_y)
        return list(zip(torch.split(x, 1000), torch.split(y, 1000), strict=True))


def split(
    name: str, labels: np.ndarray, clients: int, rng: np.random.Generator, alpha: float, shards: int
) -> list[np.ndarray]:
    """Split rows among clients by the named partition."""
    options: Mapping[str, Mapping[str, Any]] = {
        "iid": {},
        "dirichlet": {"alpha": alpha},
        "pathological": {"shards_per_client": shards},
    }
    if name not in options:
        raise ConfigError(f"task.partition: unknown partition '{name}'{nearest(name, options)}")
    return partition(name, clients, rng, labels=labels, **options[name])


def network(name: str) -> nn.Module:
    """Build a model of blocks ``body`` and ``head`` for 28 × 28 grey images."""
    if name == "logistic":
        layers = {"flat": nn.Flatten(), "head": nn.Linear(784, 10)}
    elif name == "mlp":
        body = nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU())
        layers = {"flat": nn.Flatten(), "body": body, "head": nn.Linear(200, 10)}
    else:
        body = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        layers = {"body": body, "head": nn.Linear(32 * 7 * 7, 10)}
    made = nn.Sequential()
    for part, layer in layers.items():
        made.add_module(part, layer)
    return made
