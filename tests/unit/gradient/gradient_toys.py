"""Tiny tasks for the gradient kernel: an MLP in two blocks and a network with batch norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.seeds import Seeds

FEATURES, CLASSES = 6, 3


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, CLASSES))


def dropout_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))


def bn_net() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, FEATURES)),
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * (FEATURES - 2), CLASSES),
    )


MLP_BLOCKS = (Block("body", ("0/*",)), Block("head", ("2/*",)))
BN_BLOCKS = (Block("conv", ("1/*",)), Block("norm", ("2/*",)), Block("head", ("5/*",)))


@dataclass(frozen=True, eq=False)
class ToyTask:
    """Sites of random rows; ``sizes`` rows each, ``scale`` multiplies the features."""

    build: Any = mlp
    sizes: tuple[int, ...] = (23, 17, 0)
    blocks: Sequence[Block] = MLP_BLOCKS
    scale: float = 1.0
    calls: list[str] = field(default_factory=list)

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"ward-{i}", n) for i, n in enumerate(self.sizes)]

    def model(self) -> nn.Module:
        self.calls.append("model")
        return self.build()

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        logits = model(batch[0])
        right = (logits.argmax(1) == batch[1]).float().mean().item()
        return nn.functional.cross_entropy(logits, batch[1]), {"accuracy": right}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        arrays = {}
        for name, tensor in self.build().state_dict().items():
            if tensor.is_floating_point():
                arrays[name] = rng.normal(0.3, 0.2, tensor.shape).astype(np.float32) ** 2 + 0.1
            else:
                arrays[name] = tensor.numpy().copy()
        return arrays

    def site_data(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(site)
        x = rng.normal(size=(self.sizes[site], FEATURES)).astype(np.float32) * self.scale
        y = rng.integers(0, CLASSES, self.sizes[site])
        return torch.from_numpy(x), torch.from_numpy(y)

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def start_of(task: ToyTask) -> dict[str, np.ndarray]:
    """Return the model a round starts from, read-only as the wire hands it out."""
    arrays = task.initial_arrays(Seeds(5).at("test"))
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def order_of(
    task: ToyTask,
    phase: Phase,
    arrays: Mapping[str, np.ndarray] | None = None,
    returns: Sequence[str] | None = None,
    **extras: Any,
) -> Order:
    """Make an order that sends everything and trains what the phase's blocks hold."""
    arrays = start_of(task) if arrays is None else arrays
    if returns is None:
        chosen = [block for block in task.blocks if block.name in phase.train]
        returns = [n for n in arrays if not chosen or any(b.matches(n) for b in chosen)]
    return Order("run", 3, phase, arrays, tuple(returns), extras)


def context_of(
    task: ToyTask, site: int = 0, state: dict[str, np.ndarray] | None = None, seed: int = 1
) -> SiteContext:
    """Make a site's context, its seeds at a client's place."""
    seeds = Seeds(seed).at("round", 3, "phase", "fit", "client", site)
    return SiteContext(task, site, {} if state is None else state, seeds)


def phase_of(name: str = "fit", **settings: Any) -> Phase:
    """Make a phase of two epochs in batches of five at rate 0.1."""
    params = {"lr": 0.1, **settings.pop("params", {})}
    return Phase(name, **{"epochs": 2, "batch_size": 5, **settings}, params=params)


def plain_loop(
    task: ToyTask,
    arrays: Mapping[str, np.ndarray],
    make_optimizer: Any,
    seeds: Seeds,
    *,
    site: int = 0,
    epochs: int = 2,
    batch: int = 5,
    mu: float = 0.0,
    clip: float = 0.0,
    optimizer: Any = None,
    model: nn.Module | None = None,
) -> tuple[dict[str, np.ndarray], float]:
    """Train as a plain torch script would; return the arrays and the mean loss over rows."""
    model = task.build() if model is None else model
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    model.train()
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer or make_optimizer(model.parameters())
    data, rng, total, rows = task.site_data(site), seeds.at("batches").numpy(), 0.0, 0
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(data[0])))
        for part in torch.split(order, batch):
            loss, _ = task.loss(model, (data[0][part], data[1][part]))
            total, rows = total + loss.item() * len(part), rows + len(part)
            if mu:
                pull = sum(((p - s) ** 2).sum() for p, s in zip(model.parameters(), start))  # noqa: B905
                loss = loss + mu / 2 * pull
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}, total / rows


def assert_close(found: Mapping[str, Any], wanted: Mapping[str, Any], atol: float = 1e-6) -> None:
    """Compare arrays by name, shape, kind and value."""
    assert set(found) == set(wanted)
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype and array.shape == wanted[name].shape, name
        np.testing.assert_allclose(array, wanted[name], rtol=0, atol=atol, err_msg=name)


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    """Say whether two sets of arrays are equal to the bit."""
    return set(a) == set(b) and all(a[n].tobytes() == b[n].tobytes() for n in a)
