"""Quadratic penalties that hold parameters where they mattered, as two arrays for each.

A penalty of several terms is, up to a constant, one around their weighted mean:

    Σ_t F_t·(θ − θ*_t)²  =  A·(θ − m)² + const,     A = Σ F_t,   m = Σ F_t·θ*_t / A

so that memory does not grow with the tasks, and the gradient 2·A·(θ − m) is exact. EWC with a
penalty per task, online EWC and SI differ in what they add to A and where they put m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fedalt.clients.kernels.methods.base import Entries, Named, Scene
from fedalt.clients.kernels.steps import Grads, Transform


@dataclass(frozen=True)
class Anchors:
    """How strongly each parameter is held (A), and where (m); same shapes as the parameters."""

    strength: Named
    centre: Named

    @classmethod
    def read(cls, scene: Scene, method: str) -> Anchors | None:
        """Read what :meth:`entries` wrote; None before the first task has ended."""
        strength, centre = scene.read(method, "strength"), scene.read(method, "centre")
        return cls(strength, centre) if strength is not None and centre is not None else None

    def entries(self, scene: Scene, method: str) -> Entries:
        """Return entries for the client's state."""
        strength = scene.entries(method, "strength", self.strength)
        return {**strength, **scene.entries(method, "centre", self.centre)}

    def pull(self, trained: Mapping[str, torch.Tensor], factor: float) -> Transform:
        """Add ``factor``·A·(θ − m) to the gradient."""
        params = list(trained.values())
        centre = [self.centre[name] for name in trained]
        weights = torch._foreach_mul([self.strength[name] for name in trained], factor)

        def add(grads: Grads) -> Grads:
            drift = torch._foreach_sub(params, centre)
            torch._foreach_mul_(drift, weights)
            # A parameter outside of the loss is still held: an old task's head, for one.
            return [d if g is None else d.add_(g) for g, d in zip(grads, drift, strict=True)]

        return add


def begun(trained: Mapping[str, torch.Tensor]) -> Anchors:
    """Return anchors that hold nothing yet."""
    zeros = {name: torch.zeros_like(param) for name, param in trained.items()}
    return Anchors(zeros, zeros)


def add_apart(former: Anchors, importance: Named, at: Named) -> Anchors:
    """Add a task's own penalty F·(θ − θ*)²; those of earlier tasks stay where they were."""
    strength = {name: former.strength[name] + value for name, value in importance.items()}
    # Where nothing is held, 0/0, the centre is of no account.
    centre = {
        name: former.centre[name]
        + (value / strength[name]).nan_to_num_(0.0, 0.0, 0.0) * (at[name] - former.centre[name])
        for name, value in importance.items()
    }
    return Anchors(strength, centre)


def add_moved(former: Anchors, importance: Named, at: Named, decay: float = 1.0) -> Anchors:
    """Keep ``decay`` of the former strength, and hold all of it at the present values."""
    strength = {name: decay * former.strength[name] + v for name, v in importance.items()}
    return Anchors(strength, at)
