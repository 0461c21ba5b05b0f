"""A stream of tiny tasks for methods against forgetting, and a client that goes through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase, View
from fedalt.alternation.site import Site
from fedalt.alternation.stream_view import StreamView
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.client import Client, check_order, prepare
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.clients.kernels.methods.base import Former, Scene
from fedalt.clients.kernels.model import ReusedModel
from fedalt.seeds import Seeds

FEATURES, CLASSES, TASKS = 5, 4, 3


def descend(model: nn.Module, loss: torch.Tensor, lr: float = 0.1) -> None:
    """Take one plain step of gradient descent."""
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for param in model.parameters():
            assert param.grad is not None
            param -= lr * param.grad


Arrays = Mapping[str, np.ndarray]


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, CLASSES))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES))


@dataclass(frozen=True, eq=False)
class Softmax:
    """Three tasks of random rows in four classes; task t has classes t and t + 1."""

    build: Any = mlp
    rows: int = 12
    protocol: str = "class-incremental"
    blocks: Sequence[Block] = (Block("body", ("0/*",)), Block("head", ("2/*",)))
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"ward-{i}", self.rows * TASKS) for i in range(2)]

    @property
    def tasks(self) -> Sequence[str]:
        return [f"task {number}" for number in range(TASKS)]

    def task_rows(self, site: int, task: int) -> int:
        return self.rows

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        self.asked.extend((task, int(row)) for row in rows)
        rng = np.random.default_rng([site, task])
        x = (rng.normal(size=(self.rows, FEATURES)) + task).astype(np.float32)
        y = rng.integers(task, task + 2, self.rows)
        return torch.from_numpy(x[rows]), torch.from_numpy(y[rows])

    def seen_classes(self, tasks: Sequence[int]) -> list[int]:
        return sorted({c for task in tasks for c in (task, task + 1)})

    def model(self) -> nn.Module:
        return self.build()

    def scores(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return model(batch[0])

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        return {
            name: rng.normal(0.1, 0.4, tensor.shape).astype(np.float32) ** 2
            if tensor.is_floating_point()
            else tensor.numpy().copy()
            for name, tensor in self.build().state_dict().items()
        }

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        parts = [self.task_data(site, t, np.arange(self.rows)) for t in range(TASKS)]
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        return {}


def phase_of(
    experience: int = 0, stream: Mapping[str, Any] | None = None, **settings: Any
) -> Phase:
    """Make a phase of an experience: two epochs in batches of four at rate 0.1."""
    view = View(stream=StreamView(tuple(range(TASKS)), experience, **(stream or {})))
    params = {"lr": 0.1, **settings.pop("params", {})}
    given = {"epochs": 2, "batch_size": 4, "view": view, **settings}
    return Phase("fit", **given, params=params)


@dataclass
class Walker:
    """One client that trains round after round on what it trained itself."""

    task: Any
    params: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream: Mapping[str, Any] = field(default_factory=dict)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    kernel: GradientKernel = field(default_factory=GradientKernel)
    mode: str = "sequential"
    round: int = 0

    def __post_init__(self) -> None:
        self.arrays = self.arrays or self.task.initial_arrays(Seeds(5).at("test"))

    def order(self, experience: int) -> Order:
        for array in self.arrays.values():
            array.setflags(write=False)
        phase = phase_of(experience, self.stream, params=self.params, **self.settings)
        chosen = [block for block in self.task.blocks if block.name in phase.train]
        returns = [n for n in self.arrays if not chosen or any(b.matches(n) for b in chosen)]
        return Order("run", self.round, phase, self.arrays, tuple(returns), mode=self.mode)

    def site(self, state: dict[str, np.ndarray] | None = None) -> SiteContext:
        seeds = Seeds(1).at("round", self.round, "client", 0)
        return SiteContext(self.task, 0, self.state if state is None else state, seeds)

    def go(self, experience: int) -> Work:
        """Train one round of an experience, and take over what came out."""
        self.round += 1
        (work,) = self.kernel.cohort(self.order(experience), [self.site()])
        if isinstance(work, Exception):
            raise work
        self.arrays = {**self.arrays, **work.arrays}
        return work

    def client(self, experience: int) -> tuple[ReusedModel, Client]:
        """Return the next round's client, its model loaded, before any step."""
        order, site = self.order(experience), self.site()
        model = ReusedModel(self.task, "cpu")
        client = prepare(model, order, site, check_order(model, order, site))
        model.load(order, site)
        return model, client

    def scene(self, experience: int, former: Former | None = None, fresh: bool = True) -> Scene:
        model, client = self.client(experience)
        stage = client.stages[0]
        assert client.streamed is not None and stage.settings.methods is not None
        return Scene(
            model,
            client,
            stage,
            client.streamed,
            stage.settings.methods,
            model.choose(stage.arrays),
            former,
            fresh,
        )


def kept(state: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Return the entries below a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def same(a: Arrays, b: Arrays) -> bool:
    """Say whether two sets of arrays are equal to the bit."""
    return set(a) == set(b) and all(a[n].tobytes() == b[n].tobytes() for n in a)
