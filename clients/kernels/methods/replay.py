"""Experience replay: every batch is joined by rows from a memory of past tasks.

Rolnick et al. 2019 ("Experience replay for continual learning"), in the supervised form of
Chaudhry et al. 2019 ("On tiny episodic memories in continual learning", algorithm 1): the loss
is the mean over the batch B and as many remembered rows as ``replay_batch`` says,

    1/|B ∪ M_b| · Σ_{x ∈ B ∪ M_b} ℓ(w; x),     M_b drawn from the memory without replacement
"""

from __future__ import annotations

import torch

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.methods.base import Hooks, Scene
from fedalt.clients.kernels.methods.memory import remember
from fedalt.clients.kernels.steps import Gradient, Grads, Metrics


def replay(scene: Scene) -> Hooks:
    """Join each batch with remembered rows, once there are any."""
    settings = scene.settings
    memory, kept = remember(scene, "replay", settings.replay_memory, settings.replay_batch)
    if memory is None:
        return Hooks(leave=lambda: kept)

    def wrap(inner: Gradient) -> Gradient:
        def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
            pairs = zip(batch, memory.draw(), strict=True)
            return inner(scene.model.laid_out(tuple(torch.cat(pair) for pair in pairs)))

        return gradient

    return Hooks(wrap=wrap, leave=lambda: kept)
