"""Elastic weight consolidation: parameters that mattered to earlier tasks are held.

Kirkpatrick et al. 2017 ("Overcoming catastrophic forgetting in neural networks", eq. 3), where
every task has a penalty of its own:

    L(θ) + λ/2 · Σ_t F_t·(θ − θ*_t)²

Online (Schwarz et al. 2018, "Progress & Compress", section 4), where one penalty decays and
moves along; their further γ in front of it is left to λ:

    L(θ) + λ/2 · F̃_t·(θ − θ*_t)²,     F̃_t = γ·F̃_{t−1} + F_t

A task ends where a client first meets the next experience. θ*_t is the model received then,
after aggregation, and F_t the diagonal Fisher information there (``fisher.py``). A task met in
several experiences has a penalty for each.
"""

from __future__ import annotations

import numpy as np

from fedalt.clients.kernels.methods.anchors import Anchors, add_apart, add_moved, begun
from fedalt.clients.kernels.methods.base import Former, Hooks, Named, Scene
from fedalt.clients.kernels.methods.fisher import diagonal


def ewc(scene: Scene) -> Hooks:
    """Pull towards what earlier tasks need; consolidate the task that has just ended."""
    anchors, decay = Anchors.read(scene, "ewc"), scene.settings.ewc_decay
    # A block of buffers alone has nothing to hold.
    if scene.former is None or not scene.trained:
        return Hooks() if anchors is None else _pull(scene, anchors)
    importance, at = _importance(scene, scene.former), scene.values()
    anchors = anchors or begun(scene.trained)
    if decay is None:
        anchors = add_apart(anchors, importance, at)
    else:
        anchors = add_moved(anchors, importance, at, decay)
    return _pull(scene, anchors, leave=True)


def _pull(scene: Scene, anchors: Anchors, leave: bool = False) -> Hooks:
    pull = anchors.pull(scene.trained, scene.settings.ewc_lambda)
    if not leave:
        return Hooks(transform=pull)
    return Hooks(transform=pull, leave=lambda: anchors.entries(scene, "ewc"))


def _importance(scene: Scene, former: Former) -> Named:
    rows, wanted = former.rows, scene.settings.fisher_rows
    seeds = scene.seeds("fisher")
    if 0 < wanted < len(rows):
        rows = np.sort(seeds.numpy().choice(rows, wanted, replace=False))
    data = scene.batch({former.task: rows})
    return diagonal(scene.model, scene.trained, data, scene.settings.fisher, seeds)
