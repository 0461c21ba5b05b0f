"""A training step as a pure function of tensors: what can be traced, batched and compiled.

    carry, fixed, batch → carry′, loss, metrics

``carry`` is what a step changes (trained parameters, optimiser slots, buffers), ``fixed`` what
it only reads (hyper-parameters, frozen arrays, the received model). Both are flat tuples of
tensors, in the order that :class:`PureStep` names. It computes what the reference computes
(``sequential.py``), with two differences in rounding only: plain SGD folds its step size into
the loss, so that the product that makes a gradient can add onto the weight at once; and a
batch of rows may be weighted, so that clients of different sizes take the same steps together:

    ℓ̂(w) = Σᵢ aᵢ · ℓ(w; xᵢ),   aᵢ = 1/n for the n rows that count, 0 for those that fill up

A private step (``dpsgd.py``) clips each row's gradient, and is handed its noise with the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.func import functional_call, grad_and_value, vmap

from fedalt.clients.kernels import optim_pure
from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.lent import Lent
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.settings import LocalSettings

Tensors = tuple[torch.Tensor, ...]


def _judged(model: ReusedModel) -> Lent[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Return the task's loss and its metrics, as a module that holds the model."""

    def judge(
        module: torch.nn.Module, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, metrics = model.task.loss(module, batch)
        return loss, {name: torch.as_tensor(value) for name, value in metrics.items()}

    return Lent(model, judge)


def hypers_of(settings: LocalSettings) -> dict[str, float]:
    """Return the hyper-parameters a step reads as tensors: those a ramp may change."""
    values = {
        "lr": settings.optimizer.lr,
        "weight_decay": settings.optimizer.weight_decay,
        "clip_norm": settings.clip_norm,
        "proximal_mu": settings.proximal_mu,
    }
    return {name: value for name, value in values.items() if value or name == "lr"}


@dataclass(frozen=True)
class PureStep:
    """What a step is made of, and in which order its tensors come.

    ``carry`` is: trained parameters, then each optimiser slot for each of them, then buffers.
    ``fixed`` is: hyper-parameters, frozen arrays, and the received values of the trained ones
    where a proximal term needs them. With ``weighted``, a batch ends in its rows' weights and
    buffers must not change. With ``private`` as well, weights are 1 or 0, and after them come
    the step's noise (D,) over the trained parameters, C and 1/(q·n) as (2,), and whether the step
    is taken at all.
    """

    model: ReusedModel
    settings: LocalSettings
    trained: tuple[str, ...]
    buffers: tuple[str, ...]
    frozen: tuple[str, ...]
    weighted: bool
    private: bool = False

    def key(self) -> tuple[object, ...]:
        """Return all of it that a program depends on; hyper-parameters that may ramp do not."""
        rule = replace(self.settings.optimizer, lr=0.0, weight_decay=0.0)
        return (id(self.model), rule, *self._names(), self.weighted, self.private)

    def _names(self) -> tuple[tuple[str, ...], ...]:
        return self.hypers, self.trained, self.buffers, self.frozen

    @property
    def hypers(self) -> tuple[str, ...]:
        """The names of the hyper-parameters among ``fixed``."""
        return tuple(hypers_of(self.settings))

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the optimiser's slots."""
        return self.settings.optimizer.slots

    @property
    def proximal(self) -> bool:
        """Whether ``fixed`` ends in the received values."""
        return bool(self.settings.proximal_mu)

    @property
    def carried(self) -> int:
        """The number of tensors in ``carry``."""
        return len(self.trained) * (1 + len(self.slots)) + len(self.buffers)

    def slots_in(self, carry: Tensors) -> dict[str, list[torch.Tensor]]:
        """Return the optimiser's slots among ``carry``: slot to one tensor a parameter."""
        count = len(self.trained)
        return {
            slot: list(carry[count * i : count * (i + 1)])
            for i, slot in enumerate(self.slots, start=1)
        }

    def __call__(self, carry: Tensors, fixed: Tensors, batch: Batch) -> tuple[Any, ...]:
        """Take one step; return the new carry, the loss and the metrics by name."""
        params, state, buffers = self._unpack(carry)
        hyper, frozen, received = self._unpack_fixed(fixed)
        rule = self.settings.optimizer
        if self.private:
            grads, loss, metrics = self._released(params, frozen, batch)
            grads = self._transform(grads, params, received, hyper)
            new, slots = optim_pure.updated(rule, hyper, params, grads, state)
            active = batch[-1] > 0
            kept = {slot: _where(active, slots[slot], old) for slot, old in state.items()}
            return self._pack(_where(active, new, params), kept, buffers), loss, metrics
        folded = rule.name == "sgd" and not rule.slots and set(hyper) == {"lr"}
        judged = _judged(self.model)

        def objective(weights: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
            # Clones, since a forward pass may change buffers in place; lent arrays that the
            # module replaces come back in the same mapping.
            lent = {f"model.{n}": t for n, t in {**frozen, **weights}.items()}
            lent |= {f"model.{n}": t.clone() for n, t in buffers.items()}
            loss, metrics = self._loss(judged, lent, batch)
            changed = {n: lent[f"model.{n}"] for n in buffers}
            scaled = loss * -hyper["lr"] if folded else loss
            return scaled, (loss.detach(), metrics, changed)

        grads, (_, (loss, metrics, changed)) = grad_and_value(objective, has_aux=True)(params)
        if folded:
            new = {name: value + grads[name] for name, value in params.items()}
        else:
            grads = self._transform(grads, params, received, hyper)
            new, state = optim_pure.updated(rule, hyper, params, grads, state)
        if self.weighted:
            # A client that has no more batches waits for the others as it is.
            active = batch[-1].sum() > 0
            new = _where(active, new, params)
            state = {s: _where(active, state[s], old) for s, old in self._unpack(carry)[1].items()}
        return self._pack(new, state, changed), loss, metrics

    def _released(
        self, params: dict[str, torch.Tensor], frozen: Mapping[str, torch.Tensor], batch: Batch
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
        """Return the noised mean of clipped gradients, and the loss and metrics of the rows."""
        *parts, weights, noise, public, _ = batch
        judged = _judged(self.model)

        def of_row(own: dict[str, torch.Tensor], *row: torch.Tensor) -> Any:
            lent = {f"model.{n}": t for n, t in {**frozen, **own}.items()}
            loss, metrics = functional_call(
                judged, lent, (tuple(part.unsqueeze(0) for part in row),)
            )
            return loss, metrics

        rows = vmap(grad_and_value(of_row, has_aux=True), (None, *[0] * len(parts)))
        grads, (losses, metrics) = rows(params, *parts)
        total = torch.stack([g.flatten(1).square().sum(1) for g in grads.values()]).sum(0)
        norms = total.sqrt()
        # Rows that fill up a batch, and such as are not finite, are left out.
        counts = norms.isfinite() & (weights > 0)
        scale = torch.where(counts, public[0] / norms.clamp(min=public[0]), 0.0)
        found, begin = {}, 0
        for name, g in grads.items():
            flat = torch.where(counts.unsqueeze(1), g.flatten(1), 0.0)
            end = begin + flat.shape[1]
            summed = (scale.unsqueeze(1) * flat).sum(0) + noise[begin:end]
            found[name], begin = (summed * public[1]).view(params[name].shape), end
        share = weights / weights.sum().clamp(min=1)

        def mean(values: torch.Tensor) -> torch.Tensor:
            return torch.where(weights > 0, values.detach() * share, 0.0).sum()

        return found, mean(losses), {name: mean(values) for name, values in metrics.items()}

    def _loss(
        self, judged: torch.nn.Module, lent: dict[str, torch.Tensor], batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if not self.weighted:
            result: tuple[torch.Tensor, dict[str, torch.Tensor]] = functional_call(
                judged, lent, (batch,)
            )
            return result
        *parts, weights = batch

        def of_row(*row: torch.Tensor) -> Any:
            return functional_call(judged, lent, (tuple(part.unsqueeze(0) for part in row),))

        losses, metrics = vmap(of_row)(*parts)
        return (losses * weights).sum(), {
            name: (values.detach() * weights).sum() for name, values in metrics.items()
        }

    def _transform(
        self,
        grads: dict[str, torch.Tensor],
        params: Mapping[str, torch.Tensor],
        received: Mapping[str, torch.Tensor],
        hyper: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        if "proximal_mu" in hyper:
            mu = hyper["proximal_mu"]
            grads = {n: g + mu * (params[n] - received[n]) for n, g in grads.items()}
        if "clip_norm" in hyper:
            norm = torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt()
            scale = torch.clamp(hyper["clip_norm"] / (norm + 1e-6), max=1.0)
            grads = {n: g * scale for n, g in grads.items()}
        return grads

    def _unpack(self, carry: Tensors) -> tuple[Any, Any, Any]:
        count = len(self.trained)
        params = dict(zip(self.trained, carry[:count], strict=True))
        state = {
            slot: dict(zip(self.trained, tensors, strict=True))
            for slot, tensors in self.slots_in(carry).items()
        }
        rest = carry[count * (1 + len(self.slots)) :]
        return params, state, dict(zip(self.buffers, rest, strict=True))

    def _unpack_fixed(self, fixed: Tensors) -> tuple[Any, Any, Any]:
        first = len(self.hypers)
        second = first + len(self.frozen)
        received = fixed[second:]
        return (
            dict(zip(self.hypers, fixed[:first], strict=True)),
            dict(zip(self.frozen, fixed[first:second], strict=True)),
            dict(zip(self.trained, received, strict=True)) if self.proximal else {},
        )

    def _pack(
        self,
        params: Mapping[str, torch.Tensor],
        state: Mapping[str, Mapping[str, torch.Tensor]],
        buffers: Mapping[str, torch.Tensor],
    ) -> Tensors:
        slots = [state[slot][name] for slot in self.slots for name in self.trained]
        return (*(params[n] for n in self.trained), *slots, *(buffers[n] for n in self.buffers))


def _where(
    active: torch.Tensor, new: Mapping[str, torch.Tensor], old: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {name: torch.where(active, value, old[name]) for name, value in new.items()}


def weights_of(counts: Sequence[int] | Any, size: int) -> torch.Tensor:
    """Return the weights (..., size) of batches of which so many rows count: 1/n each, or 0."""
    count = torch.as_tensor(counts).unsqueeze(-1)
    inside = torch.arange(size) < count
    return inside / count.clamp(min=1)


def ones_of(counts: Sequence[int] | Any, size: int) -> torch.Tensor:
    """Return 1 for each row of such batches that counts, else 0: (..., size)."""
    return (torch.arange(size) < torch.as_tensor(counts).unsqueeze(-1)).to(torch.float32)
