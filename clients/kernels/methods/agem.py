"""A-GEM: a step may not raise the loss on a memory of past tasks, to first order.

Chaudhry et al. 2019 ("Efficient lifelong learning with A-GEM", eq. 11). With the gradient g of
the batch and g_ref of rows drawn from the memory, over all trained parameters together,

    g ← g − (gᵀg_ref / g_refᵀg_ref)·g_ref     where gᵀg_ref < 0,     else g

The memory is a uniform sample of past tasks' rows (``memory.py``) where the paper keeps as many
of each. Penalties, clipping and the optimiser come after, and may turn the step again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.methods.base import Hooks, Scene
from fedalt.clients.kernels.methods.memory import remember
from fedalt.clients.kernels.steps import Gradient, Grads, Metrics, mean_gradient


def agem(scene: Scene) -> Hooks:
    """Project each batch's gradient, once there are remembered rows."""
    settings = scene.settings
    memory, kept = remember(scene, "agem", settings.agem_memory, settings.agem_batch)
    if memory is None:
        return Hooks(leave=lambda: kept)
    model = scene.model
    plain = mean_gradient(model, list(scene.trained.values()))

    def wrap(inner: Gradient) -> Gradient:
        def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
            loss, metrics, grads = inner(batch)
            if grads:
                with model.still():
                    reference = plain(model.laid_out(memory.draw()))[2]
                grads = projected(grads, reference)
            return loss, metrics, grads

        return gradient

    return Hooks(wrap=wrap, leave=lambda: kept)


def projected(grads: Grads, reference: Grads) -> Sequence[torch.Tensor | None]:
    """Take away from a gradient what points against the reference; a None counts as zeros."""
    pairs = list(zip(grads, reference, strict=True)) if reference else []
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return grads
    dot = torch.stack([(a * b).sum() for a, b in both]).sum()
    if dot >= 0:
        return grads
    norm = torch.stack([b.square().sum() for b in reference if b is not None]).sum()
    scale = dot / norm
    return [a if b is None else b * -scale if a is None else a - scale * b for a, b in pairs]
