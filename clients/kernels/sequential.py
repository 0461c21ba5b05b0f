"""One client after the other, in place: the reference that every other mode must agree with.

A step is put together from three parts, each of which may be another: the gradient of a
batch, transforms of that gradient (proximal pull, clipping), and the optimiser's update.
There is no optimiser object and no ``backward``: ``torch.autograd.grad`` and foreach updates
of the parameters in place cost about half.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, Work
from fedalt.clients.kernels.client import (
    ADVICE,
    Client,
    no_rows_for_batch_norm,
    received_loss,
)
from fedalt.clients.kernels.evaluate import (
    Averages,
    Batch,
    Measure,
    lent_randomness,
    take,
)
from fedalt.clients.kernels.model import Place, ReusedModel
from fedalt.clients.kernels.stages import Stage, minibatches
from fedalt.errors import ConfigError, FedaltError

Grads = Sequence[torch.Tensor | None]
Metrics = dict[str, Measure]
Gradient = Callable[[Batch], tuple[float, Metrics, Grads]]
"""A batch to its mean loss, the task's metrics and one gradient a trained parameter."""
Transform = Callable[[Grads], Grads]
Step = Callable[[Batch], tuple[float, Metrics]]
"""Train on one batch in place; return its mean loss (without proximal term) and metrics."""


def proximal(
    params: Sequence[torch.Tensor], received: Sequence[torch.Tensor], mu: float
) -> Transform:
    """Add the gradient of μ/2·‖w − w⁰‖², which is μ·(w − w⁰)."""

    def add(grads: Grads) -> Grads:
        drift = torch._foreach_sub(list(params), list(received))
        # A parameter outside of the loss is still pulled back to w⁰.
        pairs = zip(grads, drift, strict=True)
        present = [torch.zeros_like(d) if g is None else g for g, d in pairs]
        return torch._foreach_add(present, drift, alpha=mu)

    return add


def clipping(max_norm: float) -> Transform:
    """Scale the gradient so that its global norm is at most ``max_norm``."""

    def clip(grads: Grads) -> Grads:
        present = [grad for grad in grads if grad is not None]
        norm = torch.nn.utils.get_total_norm(present)
        scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        # Not in place: autograd may hand out one tensor as the gradient of two parameters.
        scaled = iter(torch._foreach_mul(present, scale))
        return [None if grad is None else next(scaled) for grad in grads]

    return clip


def mean_gradient(model: ReusedModel, params: Sequence[torch.Tensor]) -> Gradient:
    """Return the gradient of the batch's mean loss; none where there is nothing to follow."""

    def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
        with model.autocast():
            loss, metrics = model.task.loss(model.module, batch)
        value = loss.item()
        # A block of buffers alone learns by the forward pass.
        if not params or not math.isfinite(value):
            return value, metrics, ()
        if not loss.requires_grad:
            raise ConfigError("the task's loss depends on none of the trained arrays")
        return value, metrics, torch.autograd.grad(loss, params, allow_unused=True)

    return gradient


def make_step(
    gradient: Gradient, transforms: Sequence[Transform], update: Callable[[Grads], None]
) -> Step:
    """Compose a step: the batch's gradient, its transforms in order, the update in place."""

    def step(batch: Batch) -> tuple[float, Metrics]:
        loss, metrics, grads = gradient(batch)
        if grads:
            with torch.no_grad():
                for transform in transforms:
                    grads = transform(grads)
                update(grads)
        return loss, metrics

    return step


@dataclass
class _Run:
    """One client's work in progress: what all of its stages share."""

    model: ReusedModel
    data: Batch
    where: Place
    received: dict[str, torch.Tensor]
    kept: MutableMapping[str, np.ndarray]
    averages: Averages = field(default_factory=Averages)
    steps: int = 0

    def run(self, stage: Stage) -> None:
        """Train one stage's arrays and leave all others as they were."""
        model, settings = self.model, stage.settings
        trained = model.choose(stage.arrays)
        params = list(trained.values())
        rule, names = settings.optimizer, list(trained)
        kept = self.kept if settings.persist else {}
        state = optim.restore(rule, names, params, kept, stage.scope)
        transforms: list[Transform] = []
        if settings.proximal_mu:
            received = [self.received[name] for name in names]
            transforms.append(proximal(params, received, settings.proximal_mu))
        if settings.clip_norm:
            transforms.append(clipping(settings.clip_norm))
        step = make_step(
            mean_gradient(model, params),
            transforms,
            lambda grads: optim.update(rule, params, grads, state),
        )
        still = [name for name in model.buffers if name not in stage.arrays]
        former = {name: model.tensor(name).clone() for name in still}
        model.module.train()
        with lent_randomness(stage.seeds, model.device):
            for rows in minibatches(stage):
                self._take(step, torch.from_numpy(rows).to(model.device))
        self._check(params)
        for name, value in former.items():
            model.tensor(name).copy_(value)
        if settings.persist:
            optim.keep(names, state, self.kept, stage.scope)

    def _take(self, step: Step, rows: torch.Tensor) -> None:
        self.steps += 1
        try:
            loss, metrics = step(self.model.laid_out(take(self.data, rows)))
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from error
        except ValueError as error:
            raise no_rows_for_batch_norm(error, self.where, self.steps, len(rows)) from error
        if not math.isfinite(loss):
            raise FedaltError(f"{self.where}, step {self.steps}: the loss is {loss}; {ADVICE}")
        self.averages.add({**metrics, "loss": loss}, len(rows))

    def _check(self, params: Sequence[torch.Tensor]) -> None:
        # The last step's gradient has no later loss that would show it.
        ends = [end for p in params if p.numel() for end in torch.aminmax(p.detach())]
        if ends and not torch.stack(ends).isfinite().all():
            raise FedaltError(
                f"{self.where}, step {self.steps}: a parameter is not finite; {ADVICE}"
            )


def run_sequential(model: ReusedModel, order: Order, client: Client) -> Work:
    """Train one client on the model in place; ``client.site.state`` changes only at the end."""
    model.load(order, client.site)
    extra = received_loss(model, client)
    received: dict[str, torch.Tensor] = {}
    if any(stage.settings.proximal_mu for stage in client.stages):
        received = {name: model.tensor(name).clone() for name in order.returns}
    pending: dict[str, np.ndarray] = {}
    kept = ChainMap(pending, client.site.state)
    run = _Run(model, client.data, client.where, received, kept)
    for stage in client.stages:
        run.run(stage)
    arrays = {
        name: model.read(name, order.arrays[name].dtype if name in order.arrays else None)
        for name in order.returns
    }
    client.keep(pending)
    return Work(arrays, len(client.rows), {**run.averages.means(), **extra}, run.steps)
