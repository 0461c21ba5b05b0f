"""Synaptic intelligence: what a parameter did for the loss along its path is its importance.

Zenke et al. 2017 ("Continual learning through synaptic intelligence", eqs. 3 to 5). With the
gradient g of the task's loss alone and the step Δθ that was taken,

    ω = −Σ_steps g·Δθ,     Ω ← Ω + max(ω, 0) / (Δ² + ξ),     L(θ) + c · Ω·(θ − θ̃)²

at the end of a task, with θ̃ the model received then. ω and the way Δ gone in the task are
those of a client's own steps: where aggregation moves the model, no loss was seen. A negative
ω would make a penalty without a minimum, and counts as none.
"""

from __future__ import annotations

import torch

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.methods.anchors import Anchors, add_moved, begun
from fedalt.clients.kernels.methods.base import Entries, Hooks, Named, Scene
from fedalt.clients.kernels.steps import Gradient, Grads, Metrics, Update


def si(scene: Scene) -> Hooks:
    """Pull towards what earlier tasks need, and follow the path of the present one."""
    anchors, consolidated = Anchors.read(scene, "si"), scene.former is not None
    path, walk = scene.read("si", "path"), scene.read("si", "walk")
    if consolidated and path is not None and walk is not None:
        anchors = add_moved(
            anchors or begun(scene.trained),
            {n: path[n].clamp(min=0.0) / (walk[n] ** 2 + scene.settings.si_damping) for n in path},
            scene.values(),
        )
    if scene.fresh or path is None or walk is None:
        path, walk = begun(scene.trained).strength, begun(scene.trained).strength
    follow = _Path(scene, path)

    def leave() -> Entries:
        moved = {n: walk[n] + scene.trained[n].detach() - follow.start[n] for n in walk}
        kept = dict(anchors.entries(scene, "si")) if anchors and consolidated else {}
        kept.update(scene.entries("si", "path", follow.path))
        kept.update(scene.entries("si", "walk", moved))
        return kept

    # The gradient of c·Ω·(θ − θ̃)².
    pull = anchors.pull(scene.trained, 2.0 * scene.settings.si_c) if anchors else None
    return Hooks(follow.watch, pull, follow.measure, leave)


class _Path:
    """The sum of −g·Δθ over the steps of a stage."""

    def __init__(self, scene: Scene, path: Named) -> None:
        self.path = {name: value.clone() for name, value in path.items()}
        self.start = scene.values()
        self._params = list(scene.trained.values())
        self._grads: Grads = ()

    def watch(self, inner: Gradient) -> Gradient:
        """Note the gradient of the task's loss before anything is added to it."""

        def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
            loss, metrics, self._grads = inner(batch)
            return loss, metrics, self._grads

        return gradient

    def measure(self, update: Update) -> Update:
        """Note how far the parameters go in a step."""

        def measured(grads: Grads) -> None:
            before = [param.detach().clone() for param in self._params]
            update(grads)
            moved = torch._foreach_sub(self._params, before)
            noted = zip(self.path.values(), self._grads, moved, strict=True)
            for total, grad, step in noted:
                if grad is not None:
                    total.addcmul_(grad, step, value=-1.0)

        return measured
