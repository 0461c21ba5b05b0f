"""Local optimisers as functions over lists of tensors, and the settings of local training.

SGD with momentum (Sutskever et al. 2013, as torch writes it), for gradient g with weight
decay λ folded in:

    v ← m·v + g,    w ← w − η·v          (Nesterov: w ← w − η·(g + m·v))

Adam (Kingma & Ba 2015), and AdamW (Loshchilov & Hutter 2019), whose decay w ← w − η·λ·w
stands apart from the gradient:

    p ← β₁p + (1−β₁)g,  q ← β₂q + (1−β₂)g²,  w ← w − η/(1−β₁ᵗ) · p / (√q/√(1−β₂ᵗ) + ε)

There is no optimiser object: a client starts thousands of times, and ``torch._foreach_*``
on the parameters in place costs about half of what making and stepping one does. The
order of the operations is torch.optim's, so that results agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedalt.alternation.phase import Scalar
from fedalt.errors import ConfigError, nearest

State = dict[str, list[torch.Tensor]]
"""Slot name to one tensor for each parameter, in the parameters' order."""

_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0},
    "adam": {"lr": 0.001, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "adamw": {"lr": 0.001, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}

KEYS = ("optimizer", "lr", "momentum", "nesterov", "weight_decay", "beta1", "beta2", "eps")
"""The hyper-parameters that belong to the optimiser."""


@dataclass(frozen=True)
class Optimizer:
    """Which update and its settings; defaults are torch.optim's but for SGD's ``lr`` of 0.01."""

    name: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for key in ("lr", "momentum", "weight_decay", "eps"):
            if getattr(self, key) < 0.0:
                raise ConfigError(f"params.{key} is {getattr(self, key)}, but must be at least 0")
        for key in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, key) < 1.0:
                raise ConfigError(f"params.{key} is {getattr(self, key)}, but must lie in [0, 1)")
        if self.nesterov and self.momentum == 0.0:
            raise ConfigError("params.nesterov needs params.momentum above 0")

    @classmethod
    def read(cls, params: Mapping[str, Scalar]) -> Optimizer:
        """Read the optimiser's own keys and leave all others alone.

        Raises :class:`ConfigError` for an unknown optimiser, for a value that does not fit
        and for a key that the chosen optimiser would ignore.
        """
        name = str(params.get("optimizer", "sgd"))
        if name not in _DEFAULTS:
            raise ConfigError(f"params.optimizer: no '{name}'{nearest(name, _DEFAULTS)}")
        values = {key: number(params, key, default) for key, default in _DEFAULTS[name].items()}
        nesterov = flag(params, "nesterov") if name == "sgd" else False
        for key in KEYS[1:]:
            used = key in values or (key == "nesterov" and name == "sgd")
            if not used and params.get(key):
                raise ConfigError(f"params.{key} means nothing to params.optimizer '{name}'")
        return cls(name=name, nesterov=nesterov, **values)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the tensors kept for each parameter."""
        if self.name == "sgd":
            return ("momentum_buffer",) if self.momentum else ()
        return ("exp_avg", "exp_avg_sq", "step")


def number(params: Mapping[str, Scalar], key: str, default: float) -> float:
    """Read a finite number; YAML reads ``1e-3`` as text, so a text of one will do."""
    value = params.get(key, default)
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"params.{key} is {value!r}, but must be a finite number")
    return found


def flag(params: Mapping[str, Scalar], key: str) -> bool:
    """Read true or false; absent is false."""
    value = params.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"params.{key} is {value!r}, but must be true or false")
    return value


def start(rule: Optimizer, params: Sequence[torch.Tensor]) -> State:
    """Return the state before the first step: zeros, one tensor a parameter and slot."""
    return {slot: [_zeros(slot, param) for param in params] for slot in rule.slots}


def _zeros(slot: str, param: torch.Tensor) -> torch.Tensor:
    # Steps are counted for each parameter, as torch does: a parameter that was frozen for
    # some rounds, or had no gradient, has a younger bias correction than its neighbours.
    if slot == "step":
        return torch.zeros((), dtype=torch.int64)
    return torch.zeros_like(param, requires_grad=False)


@torch.no_grad()
def update(
    rule: Optimizer,
    params: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor | None],
    state: State,
) -> None:
    """Take one step: change ``params`` and ``state`` in place, never ``grads``.

    A parameter whose gradient is None did not take part in the loss: it neither moves nor
    decays, as in torch.optim.
    """
    used = [i for i, grad in enumerate(grads) if grad is not None]
    if not used:
        return
    present = [grad for grad in grads if grad is not None]
    if len(used) < len(params):
        params = [params[i] for i in used]
        state = {slot: [tensors[i] for i in used] for slot, tensors in state.items()}
    if rule.name == "sgd":
        _sgd(rule, list(params), present, state)
    else:
        _adam(rule, list(params), present, state)


def _sgd(
    rule: Optimizer, params: list[torch.Tensor], grads: list[torch.Tensor], state: State
) -> None:
    if rule.weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=rule.weight_decay))
    if rule.momentum:
        velocity = state["momentum_buffer"]
        torch._foreach_mul_(velocity, rule.momentum)
        torch._foreach_add_(velocity, grads)
        if rule.nesterov:
            grads = list(torch._foreach_add(grads, velocity, alpha=rule.momentum))
        else:
            grads = velocity
    torch._foreach_add_(params, grads, alpha=-rule.lr)


def _adam(
    rule: Optimizer, params: list[torch.Tensor], grads: list[torch.Tensor], state: State
) -> None:
    mean, square, steps = state["exp_avg"], state["exp_avg_sq"], state["step"]
    torch._foreach_add_(steps, 1)
    if rule.weight_decay and rule.name == "adamw":
        torch._foreach_mul_(params, 1.0 - rule.lr * rule.weight_decay)
    elif rule.weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=rule.weight_decay))
    torch._foreach_lerp_(mean, grads, 1.0 - rule.beta1)
    torch._foreach_mul_(square, rule.beta2)
    torch._foreach_addcmul_(square, grads, grads, 1.0 - rule.beta2)
    counts = [int(step) for step in steps]
    root = torch._foreach_sqrt(square)
    torch._foreach_div_(root, [math.sqrt(1.0 - rule.beta2**t) for t in counts])
    torch._foreach_add_(root, rule.eps)
    sizes = [-rule.lr / (1.0 - rule.beta1**t) for t in counts]
    torch._foreach_addcdiv_(params, mean, root, sizes)


def restore(
    rule: Optimizer,
    names: Sequence[str],
    params: Sequence[torch.Tensor],
    kept: Mapping[str, np.ndarray],
    scope: str,
) -> State:
    """Read the state that :func:`keep` wrote; a parameter not met before starts from zeros."""
    state = start(rule, params)
    for slot, tensors in state.items():
        for name, tensor in zip(names, tensors, strict=True):
            key = _key(scope, slot, name)
            if key in kept:
                tensor.copy_(read_kept(key, kept[key], tensor))
    return state


def read_kept(key: str, value: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return an entry of a client's state as a tensor on the CPU.

    Raises :class:`ConfigError` naming the entry unless it has the shape of ``like``.
    """
    if value.shape != tuple(like.shape):
        raise ConfigError(
            f"state '{key}' has shape {value.shape}, the model expects {tuple(like.shape)}: it "
            "belongs to another model"
        )
    return torch.from_numpy(np.array(value))


def keep(
    names: Sequence[str], state: State, kept: MutableMapping[str, np.ndarray], scope: str
) -> None:
    """Write the state as ``optim/<scope>/<slot>/<array>``; a state is not used afterwards."""
    for slot, tensors in state.items():
        for name, tensor in zip(names, tensors, strict=True):
            kept[_key(scope, slot, name)] = np.array(tensor.cpu().numpy())


def _key(scope: str, slot: str, name: str) -> str:
    return f"optim/{scope}/{slot}/{name}"
