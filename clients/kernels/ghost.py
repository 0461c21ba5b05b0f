"""Clipped sums without the gradients of single rows: ghost clipping in one backward pass.

For a linear layer with inputs a (n, i) and gradients b (n, o) at its outputs, row by row,

    gᵢ = bᵢ aᵢᵀ,      ‖gᵢ‖ = ‖bᵢ‖ · ‖aᵢ‖,      Σᵢ cᵢ gᵢ = (c ∘ b)ᵀ a

(Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679). Opacus's own ghost clipping
takes a second backward pass over the losses of single rows, which a task does not give. Here a
and b are kept, so that the second product is all that is left to do (Bu et al. 2023,
"Differentially private optimization on large model at small cost", arXiv:2210.00038); the first
pass computes no gradient of a weight at all. Opacus's samplers say norms where a layer has one
that pays, and else the gradients of rows, which are small for convolutions and norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.row_gradients import (
    Clipped,
    ClippedSum,
    UnfitError,
    factors,
    in_rows,
    opacus_hooks,
    weighted_sum,
    wide,
)


@dataclass
class _Call:
    """One pass through a layer: what went in, and where the gradient of what came out is."""

    layer: Any
    inputs: list[torch.Tensor]
    versions: list[int]
    edge: Any
    backprop: torch.Tensor | None = None


@dataclass
class _Tape:
    """The calls of one forward pass."""

    calls: list[_Call] = field(default_factory=list)

    def note(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Be a forward hook."""
        if not torch.is_grad_enabled():
            return
        if not torch.is_tensor(output) or not all(map(torch.is_tensor, inputs)):
            raise UnfitError(f"{type(layer).__name__} does not map tensors to one tensor")
        # The edge, since an activation in place may change the tensor itself.
        self.calls.append(
            _Call(
                layer,
                [t.detach() for t in inputs],
                [t._version for t in inputs],
                get_gradient_edge(output),
            )
        )

    def take(self, loss: torch.Tensor, rows: int) -> list[_Call]:
        """Return the calls that the loss depends on, with their gradients, and forget all."""
        calls, self.calls = self.calls, []
        if not calls or not loss.requires_grad:
            return []
        edges = [call.edge for call in calls]
        found: Any = torch.autograd.grad(loss, edges, allow_unused=True)
        used = []
        for call, backprop in zip(calls, found, strict=True):
            if backprop is None:
                continue
            name = type(call.layer).__name__
            if any(len(t) != rows for t in (*call.inputs, backprop) if t.ndim) or not backprop.ndim:
                raise UnfitError(f"the first dimension of a {name} is not that of the batch's rows")
            if [t._version for t in call.inputs] != call.versions:
                raise UnfitError(f"the input of a {name} was changed in place")
            # The loss is a mean over the rows; each row's own is wanted.
            call.backprop = backprop.detach().to(wide(backprop.dtype)) * rows
            used.append(call)
        return used


@contextmanager
def ghost(model: ReusedModel, params: Sequence[nn.Parameter]) -> Iterator[Clipped]:
    """Lend the clipped sum; raises :class:`UnfitError` for layers that Opacus does not know."""
    layers = _layers(model.module, params)
    tape = _Tape()
    handles = [layer.register_forward_hook(tape.note) for layer in layers]

    def clipped(batch: Batch, bound: float) -> ClippedSum:
        rows, tape.calls = len(batch[0]), []
        with model.autocast():
            loss, metrics = model.task.loss(model.module, batch)
        calls = tape.take(loss, rows)
        with torch.no_grad():
            return ClippedSum(loss.item(), metrics, _sums(calls, params, rows, bound))

    try:
        yield clipped
    finally:
        for handle in handles:
            handle.remove()


def _layers(module: nn.Module, params: Sequence[nn.Parameter]) -> list[nn.Module]:
    samplers, wanted = opacus_hooks().GRAD_SAMPLERS, {id(p) for p in params}
    found: list[nn.Module] = []
    for name, layer in module.named_modules():
        if not any(id(p) in wanted for p in layer.parameters(recurse=False)):
            continue
        if type(layer) not in samplers or isinstance(layer, nn.EmbeddingBag):
            raise UnfitError(f"'{name}' is a {type(layer).__name__}, which has no sampler")
        if isinstance(layer, nn.Embedding) and (layer.scale_grad_by_freq or layer.max_norm):
            raise UnfitError(f"embedding '{name}' scales by what other rows hold")
        found.append(layer)
    return found


def _sums(
    calls: Sequence[_Call], params: Sequence[nn.Parameter], rows: int, bound: float
) -> list[torch.Tensor]:
    place = {id(p): i for i, p in enumerate(params)}
    kind = torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32
    squares = torch.zeros(rows, dtype=kind, device=params[0].device)
    shared = _met_twice(calls)
    held: dict[int, torch.Tensor] = {}
    ghosts: list[_Call] = []
    for call in calls:
        _mask_padding(call)
        if not shared & {id(p) for p in call.layer.parameters(recurse=False)} and _pays(call):
            for norm in _norms(call):
                squares += norm.square()
            ghosts.append(call)
            continue
        for param, grads in _samples(call).items():
            if id(param) in place:
                key = id(param)
                held[key] = held[key] + grads if key in held else grads
    for grads in held.values():
        flat = grads.reshape(rows, -1)
        squares += torch.linalg.vector_norm(flat, dim=1).square()
    scale = factors(squares.sqrt(), bound)
    sums: list[torch.Tensor | None] = [None] * len(params)
    for key, grads in held.items():
        sums[place[key]] = weighted_sum(grads, scale)
    for call in ghosts:
        for weight, total in _weighted(call, scale):
            if id(weight) in place:
                sums[place[id(weight)]] = total
    return [
        torch.zeros_like(p, dtype=wide(p.dtype)) if total is None else total
        for p, total in zip(params, sums, strict=True)
    ]


def _met_twice(calls: Sequence[_Call]) -> set[int]:
    """Return the parameters of several calls: their rows' gradients add up before their norms."""
    met: set[int] = set()
    twice: set[int] = set()
    for call in calls:
        for param in call.layer.parameters(recurse=False):
            (twice if id(param) in met else met).add(id(param))
    return twice


def _pays(call: _Call) -> bool:
    """Say whether a layer's norms are cheaper than its rows' gradients."""
    layer = call.layer
    if type(layer) is nn.Embedding:
        return True
    if type(layer) is not nn.Linear:
        return False
    # b bᵀ and a aᵀ of T places cost 2T² numbers, a gradient as many as the weight.
    positions = call.inputs[0][0].numel() // max(1, layer.in_features)
    backprop = call.backprop
    assert backprop is not None
    return backprop.ndim <= 3 and 2 * positions**2 <= layer.in_features * layer.out_features


def _mask_padding(call: _Call) -> None:
    """Let the entry for padding learn nothing, as torch has it and Opacus has not."""
    layer = call.layer
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        assert call.backprop is not None
        call.backprop = call.backprop.masked_fill(
            (call.inputs[0] == layer.padding_idx).unsqueeze(-1), 0.0
        )


def _norms(call: _Call) -> list[torch.Tensor]:
    """Return the norms (n,) of each of a layer's trained parameters."""
    layer, backprop = call.layer, call.backprop
    assert backprop is not None
    if type(layer) is nn.Linear and backprop.ndim == 2:
        outer = torch.linalg.vector_norm(backprop, dim=1)
        found = []
        if layer.weight.requires_grad:
            inner = torch.linalg.vector_norm(call.inputs[0].to(backprop.dtype), dim=1)
            found.append(outer * inner)
        if layer.bias is not None and layer.bias.requires_grad:
            found.append(outer)
        return found
    from opacus.grad_sample import GradSampleHooksFastGradientClipping

    sampler = GradSampleHooksFastGradientClipping.NORM_SAMPLERS[type(layer)]
    norms = sampler(layer, call.inputs, backprop)
    return [norm for param, norm in norms.items() if param.requires_grad]


def _samples(call: _Call) -> dict[nn.Parameter, torch.Tensor]:
    """Return the gradients of rows (n, ...) of each of a layer's trained parameters."""
    sampler = opacus_hooks().GRAD_SAMPLERS[type(call.layer)]
    inputs = [in_rows(t) for t in call.inputs]
    found: dict[nn.Parameter, torch.Tensor] = sampler(call.layer, inputs, call.backprop)
    return {param: grads for param, grads in found.items() if param.requires_grad}


def _weighted(call: _Call, scale: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield Σᵢ cᵢ gᵢ for the parameters of a linear or embedding layer."""
    layer, backprop = call.layer, call.backprop
    assert backprop is not None
    given = call.inputs[0]
    if not bool((scale > 0).all()):
        # A row that is left out may hold NaN, which no factor makes a zero of.
        left = scale > 0
        given, backprop, scale = given[left], backprop[left], scale[left]
    shape = (len(scale), *[1] * (backprop.ndim - 1))
    scaled = backprop * scale.to(backprop.dtype).view(shape)
    flat = scaled.reshape(-1, scaled.shape[-1])
    if type(layer) is nn.Embedding:
        total = torch.zeros_like(layer.weight, dtype=flat.dtype)
        yield layer.weight, total.index_add_(0, given.reshape(-1), flat)
        return
    if layer.weight.requires_grad:
        yield layer.weight, flat.T @ given.reshape(-1, given.shape[-1]).to(flat.dtype)
    if layer.bias is not None and layer.bias.requires_grad:
        yield layer.bias, flat.sum(0)
