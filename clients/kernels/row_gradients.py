"""Sums of single rows' clipped gradients, had in one of three ways.

    Σᵢ gᵢ · min(1, C/‖gᵢ‖),      gᵢ = ∇ℓ(w; xᵢ) over all trained parameters

``hooks``: Opacus's hooks hold every gᵢ of a batch (Yousefpour et al. 2021, arXiv:2109.12298).
``functorch``: one row's loss, mapped over the rows, whatever the model's layers are.
``ghost``: the norms without the gradients, then one weighted sum (``ghost.py``).

Clipping is in float32, or float64 for parameters of that type, whatever the model's precision.
The first and the last take a batch's loss apart, and so need a loss that is a mean over rows that
do not depend on each other; that is looked into before one is used (``row_ways.py``).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.func import functional_call, grad, vmap

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.lent import Lent
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.steps import Metrics
from fedalt.errors import FedaltError

_HELD = 2**26
"""How many numbers the gradients of rows held at once may take, about."""


class UnfitError(FedaltError):
    """A way that cannot have the gradients of single rows of this model; says why."""


@dataclass(frozen=True)
class ClippedSum:
    """A batch's mean loss and metrics, and the sum of its rows' clipped gradients."""

    loss: float
    metrics: Metrics
    sums: list[torch.Tensor]


Clipped = Callable[[Batch, float], ClippedSum]
"""A batch of at least one row and a bound C to the clipped sum over its rows."""


def wide(kind: torch.dtype) -> torch.dtype:
    """Return the type in which gradients of a parameter are clipped and noised."""
    return kind if kind == torch.float64 else torch.float32


def factors(norms: torch.Tensor, bound: float) -> torch.Tensor:
    """Return min(1, C/‖gᵢ‖) for norms (n,); 0 for a norm that is not finite."""
    scale: torch.Tensor = bound / norms.clamp(min=bound)
    return torch.where(norms.isfinite(), scale, torch.zeros_like(scale))


def weighted_sum(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return Σᵢ scaleᵢ · rowsᵢ for rows (n, ...); one of scale 0 counts nothing, even NaN."""
    flat = rows.reshape(len(rows), -1)
    if not bool((scale > 0).all()):
        flat = torch.where((scale > 0).unsqueeze(1), flat, torch.zeros_like(flat))
    return torch.mv(flat.T, scale.to(flat.dtype)).view(rows.shape[1:])


def norms_of(grads: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norms (n,) over all parameters of gradients (n, ...)."""
    each = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in grads]
    norms: torch.Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return norms


def sum_held(grads: Sequence[torch.Tensor], bound: float) -> list[torch.Tensor]:
    """Clip gradients of rows (n, ...), one tensor a parameter, and sum them."""
    held = [g.to(wide(g.dtype)) for g in grads]
    scale = factors(norms_of(held), bound)
    return [weighted_sum(g, scale) for g in held]


def opened(
    way: str, model: ReusedModel, params: Sequence[torch.nn.Parameter]
) -> AbstractContextManager[Clipped]:
    """Make a way ready for one stage's parameters, and take it off the model in the end.

    Raises :class:`UnfitError` where the way does not fit the model, at once or in use.
    """
    if way == "functorch":
        return _functorch(model, params)
    if way == "hooks":
        return _hooks(model, params)
    if way == "alone":
        return _alone(model, params)
    from fedalt.clients.kernels.ghost import ghost

    return ghost(model, params)


def opacus_hooks() -> Any:
    """Return Opacus's class of hooks."""
    with _logging_as_it_was():
        from opacus.grad_sample import GradSampleHooks
    return GradSampleHooks


def in_rows(part: torch.Tensor) -> torch.Tensor:
    """Return a tensor laid out row by row: Opacus unfolds others into wrong windows."""
    if part.ndim != 4:
        return part
    # Not .contiguous, which takes one channel for either layout.
    return torch.empty_like(part, memory_format=torch.contiguous_format).copy_(part)


def opacus_validators() -> Any:
    """Return Opacus's validators, by the type of layer."""
    with _logging_as_it_was():
        from opacus.validators import ModuleValidator
    return ModuleValidator.VALIDATORS


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Take away the handler that Opacus's import gives to the whole program's logging."""
    root, former = logging.getLogger(), list(logging.getLogger().handlers)
    yield
    for handler in [h for h in root.handlers if h not in former]:
        root.removeHandler(handler)


def in_parts(clipped: Clipped, params: Sequence[torch.Tensor]) -> Clipped:
    """Take a large batch in parts, so that the gradients of its rows fit into memory."""
    size = max(1, _HELD // max(1, sum(p.numel() for p in params)))

    def all_parts(batch: Batch, bound: float) -> ClippedSum:
        rows = len(batch[0])
        if rows <= size:
            return clipped(batch, bound)
        parts = list(zip(*(torch.split(t, size) for t in batch), strict=True))
        found = [clipped(part, bound) for part in parts]
        shares = [len(part[0]) / rows for part in parts]
        sums = [torch.stack(s).sum(0) for s in zip(*(f.sums for f in found), strict=True)]
        names = found[0].metrics
        return ClippedSum(
            math.fsum(f.loss * s for f, s in zip(found, shares, strict=True)),
            {n: sum(float(f.metrics[n]) * s for f, s in zip(found, shares, strict=True))
             for n in names},
            sums,
        )  # fmt: skip

    return all_parts


@contextmanager
def _alone(model: ReusedModel, params: Sequence[torch.nn.Parameter]) -> Iterator[Clipped]:
    """One row after the other: what the other ways are compared with."""

    def clipped(batch: Batch, bound: float) -> ClippedSum:
        losses, grads = [], []
        for place in range(len(batch[0])):
            with model.autocast():
                row = tuple(part[place : place + 1] for part in batch)
                loss, _ = model.task.loss(model.module, row)
            found = [None] * len(params)
            if loss.requires_grad:
                found = torch.autograd.grad(loss, list(params), allow_unused=True)  # type: ignore[assignment]
            grads.append([_present(g, p) for g, p in zip(found, params, strict=True)])
            losses.append(loss.detach())
        stacked = [torch.stack(rows) for rows in zip(*grads, strict=True)]
        return ClippedSum(float(torch.stack(losses).mean()), {}, sum_held(stacked, bound))

    yield clipped


def _present(found: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if found is None else found


@contextmanager
def _functorch(model: ReusedModel, params: Sequence[torch.nn.Parameter]) -> Iterator[Clipped]:
    def judge(module: torch.nn.Module, batch: Batch) -> Any:
        loss, metrics = model.task.loss(module, batch)
        return loss, {name: torch.as_tensor(value) for name, value in metrics.items()}

    judged: torch.nn.Module = Lent(model, judge)
    names = [name for name, p in judged.named_parameters() if any(p is q for q in params)]
    by_name = dict(judged.named_parameters())
    order = {id(p): i for i, p in enumerate(params)}
    names.sort(key=lambda name: order[id(by_name[name])])

    def of_row(weights: dict[str, torch.Tensor], row: Batch) -> Any:
        single = tuple(part.unsqueeze(0) for part in row)
        loss, metrics = functional_call(judged, weights, (single,))
        return loss, (loss.detach(), {n: value.detach() for n, value in metrics.items()})

    mapped = vmap(grad(of_row, has_aux=True), in_dims=(None, 0), randomness="different")

    def clipped(batch: Batch, bound: float) -> ClippedSum:
        weights = {name: by_name[name].detach() for name in names}
        try:
            grads, (losses, metrics) = mapped(weights, batch)
        except (RuntimeError, ValueError) as error:
            raise UnfitError(_first_line(error)) from error
        means = {n: values.to(torch.float32).mean() for n, values in metrics.items()}
        sums = sum_held([grads[name] for name in names], bound)
        return ClippedSum(float(losses.mean()), means, sums)

    yield in_parts(clipped, params)


@contextmanager
def _hooks(model: ReusedModel, params: Sequence[torch.nn.Parameter]) -> Iterator[Clipped]:
    base = opacus_hooks()

    class RowHooks(base):  # type: ignore[misc,valid-type]
        """Opacus's hooks, for activations in any memory layout."""

        def capture_activations_hook(self, module: Any, forward_input: Any, output: Any) -> None:
            super().capture_activations_hook(module, [in_rows(t) for t in forward_input], output)

    try:
        hooks = RowHooks(model.module, loss_reduction="mean", strict=False)
    except NotImplementedError as error:
        _cleaned(model.module)
        raise UnfitError(_first_line(error)) from error
    padding = {
        id(m.weight): m.padding_idx
        for m in model.module.modules()
        if isinstance(m, torch.nn.Embedding) and m.padding_idx is not None
    }

    def clipped(batch: Batch, bound: float) -> ClippedSum:
        with model.autocast():
            loss, metrics = model.task.loss(model.module, batch)
        try:
            with warnings.catch_warnings():
                # torch says of a first layer's hook that its inputs need no gradient.
                warnings.simplefilter("ignore", UserWarning)
                if loss.requires_grad:
                    torch.autograd.grad(loss, list(params), allow_unused=True)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise UnfitError(_first_line(error)) from error
        return ClippedSum(loss.item(), metrics, sum_held([read(p, batch) for p in params], bound))

    def read(param: Any, batch: Batch) -> torch.Tensor:
        found: Any = param.grad_sample
        param.grad_sample, param._forward_counter = None, 0
        rows = len(batch[0])
        if found is None:
            found = param.new_zeros((rows, *param.shape))
        if not torch.is_tensor(found) or len(found) != rows:
            raise UnfitError("a layer's first dimension is not that of the batch's rows")
        if id(param) in padding:
            # Opacus forgets that the entry for padding does not learn.
            found[:, padding[id(param)]] = 0
        grads: torch.Tensor = found
        return grads

    try:
        yield in_parts(clipped, params)
    finally:
        hooks.cleanup()
        _cleaned(model.module)


def _cleaned(module: torch.nn.Module) -> None:
    """Take off what a failed pass of Opacus may have left on the layers."""
    for layer in module.modules():
        for name in ("activations", "max_batch_len", "autograd_grad_sample_hooks"):
            layer.__dict__.pop(name, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
