"""The optimisers of ``optim.py`` as functions without side effects, elementwise throughout.

The same equations; hyper-parameters that a ramp may change come as tensors. Elementwise means
that a stack of clients can be updated as one tensor, and that a compiler may fuse it all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fedalt.clients.kernels.optim import Optimizer

Named = dict[str, torch.Tensor]
Slots = dict[str, Named]


def updated(
    rule: Optimizer, hyper: Mapping[str, torch.Tensor], params: Named, grads: Named, state: Slots
) -> tuple[Named, Slots]:
    """Return parameters and state after a step with these gradients."""
    update = _sgd if rule.name == "sgd" else _adam
    found = {n: update(rule, hyper, w, grads[n], _of(state, n)) for n, w in params.items()}
    slots = {slot: {name: found[name][1][slot] for name in params} for slot in rule.slots}
    return {name: new for name, (new, _) in found.items()}, slots


def _of(state: Slots, name: str) -> Named:
    return {slot: values[name] for slot, values in state.items()}


def _sgd(
    rule: Optimizer,
    hyper: Mapping[str, torch.Tensor],
    weight: torch.Tensor,
    grad: torch.Tensor,
    slots: Named,
) -> tuple[torch.Tensor, Named]:
    if "weight_decay" in hyper:
        grad = grad + hyper["weight_decay"] * weight
    if not rule.momentum:
        return weight - hyper["lr"] * grad, {}
    velocity = rule.momentum * slots["momentum_buffer"] + grad
    step = grad + rule.momentum * velocity if rule.nesterov else velocity
    return weight - hyper["lr"] * step, {"momentum_buffer": velocity}


def _adam(
    rule: Optimizer,
    hyper: Mapping[str, torch.Tensor],
    weight: torch.Tensor,
    grad: torch.Tensor,
    slots: Named,
) -> tuple[torch.Tensor, Named]:
    if "weight_decay" in hyper and rule.name == "adamw":
        weight = weight * (1.0 - hyper["lr"] * hyper["weight_decay"])
    elif "weight_decay" in hyper:
        grad = grad + hyper["weight_decay"] * weight
    step = slots["step"] + 1
    mean = torch.lerp(slots["exp_avg"], grad, 1.0 - rule.beta1)
    square = rule.beta2 * slots["exp_avg_sq"] + (1.0 - rule.beta2) * grad * grad
    # Whole numbers promote to torch's default type, which the weight's may not be.
    age = step.to(weight.dtype)
    root = square.sqrt() / _unbiased(rule.beta2, age).sqrt() + rule.eps
    moved = weight - hyper["lr"] / _unbiased(rule.beta1, age) * mean / root
    return moved, {"exp_avg": mean, "exp_avg_sq": square, "step": step}


def _unbiased(beta: float, age: torch.Tensor) -> torch.Tensor:
    """Return 1 − βᵗ without cancellation: in float32 the first steps would lose 1e-5 of it."""
    return -torch.expm1(age * (math.log(beta) if beta else -math.inf))
