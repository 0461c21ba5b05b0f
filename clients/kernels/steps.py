"""The parts of a training step, and how they make one.

A step is put together from three parts, each of which may be another: the gradient of a
batch, transforms of that gradient (proximal pull, clipping), and the optimiser's update.
There is no optimiser object and no ``backward``: ``torch.autograd.grad`` and foreach updates
of the parameters in place cost about half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from fedalt.clients.kernels.evaluate import Batch, Measure
from fedalt.clients.kernels.model import ReusedModel
from fedalt.errors import ConfigError

Grads = Sequence[torch.Tensor | None]
Metrics = dict[str, Measure]
Gradient = Callable[[Batch], tuple[float, Metrics, Grads]]
"""A batch to its mean loss, the task's metrics and one gradient a trained parameter."""
Transform = Callable[[Grads], Grads]
Update = Callable[[Grads], None]
"""Change the trained parameters in place."""
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


def make_step(gradient: Gradient, transforms: Sequence[Transform], update: Update) -> Step:
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
