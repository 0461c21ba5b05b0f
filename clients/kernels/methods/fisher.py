"""The diagonal of the Fisher information of a task's rows, as a mean over rows.

    empirical    F = 1/n · Σ_x (∇ℓ(θ; x))²                      at the rows' own labels
    exact        F = 1/n · Σ_x Σ_y p(y|x) · (∇log p(y|x))²      over all classes, as the model rates
    sampled      F = 1/n · Σ_x (∇log p(y_x|x))²,  y_x ~ p(·|x)  one class a row, drawn

The first needs the task's loss alone; the others need ``scores(model, batch)``, logits
(rows, classes). Squares are of each row's own gradient, never of a batch's mean; in evaluation
mode. On what the kinds differ in: van de Ven 2025 (arXiv:2502.11756).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.func import functional_call, jacrev, vmap

from fedalt.clients.kernels.evaluate import EVALUATION_BATCH, Batch
from fedalt.clients.kernels.lent import Lent
from fedalt.clients.kernels.methods.base import Named
from fedalt.clients.kernels.model import ReusedModel
from fedalt.errors import ConfigError, FedaltError
from fedalt.seeds import Seeds

_CHUNK_BYTES = 2**23
"""About how much the gradients of rows may take at once."""
Function = Callable[[torch.nn.Module, Batch], torch.Tensor]


def diagonal(
    model: ReusedModel, trained: Mapping[str, torch.Tensor], data: Batch, kind: str, seeds: Seeds
) -> Named:
    """Return F for each trained parameter, at the model's present values.

    Rows are taken together where torch can differentiate the loss so, else one by one. Raises
    :class:`ConfigError` where the kind needs scores that the task has not, and
    :class:`FedaltError` where F is not finite.
    """
    model.module.eval()
    function, outputs = _loss_of(model), 1
    if kind == "exact":
        function, outputs = _log_likelihoods(model), _scores(model, data).shape[1]
    elif kind == "sampled":
        chances = _scores(model, data).softmax(1).cpu()
        drawn = torch.multinomial(chances, 1, generator=seeds.torch()).to(model.device)
        function, data = _log_likelihood(model), (*data, drawn)
    lent = Lent(model, function)
    sums = {name: torch.zeros_like(param) for name, param in trained.items()}
    size = 4 * outputs * sum(param.numel() for param in trained.values())
    rows = min(EVALUATION_BATCH, max(1, _CHUNK_BYTES // max(1, size)))
    together = True
    for chunk in _chunks(data, rows):
        if together:
            try:
                _add_together(sums, lent, trained, chunk)
                continue
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                logging.getLogger(__name__).info("Fisher information, row by row: %s", reason)
                together = False
        _add_one_by_one(sums, lent, trained, chunk)
    found = {name: total / len(data[0]) for name, total in sums.items()}
    if not all(value.isfinite().all() for value in found.values()):
        raise FedaltError("the Fisher information of the former task is not finite")
    return found


@torch.no_grad()
def _scores(model: ReusedModel, data: Batch) -> torch.Tensor:
    """Return the model's logits for rows; raises :class:`ConfigError` if the task has none."""
    score = scoring(model, "params.fisher", "choose fisher 'empirical'")
    with model.autocast():
        found = torch.cat(
            [score(model.module, part).float() for part in _chunks(data, EVALUATION_BATCH)]
        )
    if found.ndim != 2:
        raise ConfigError(
            f"params.fisher needs scores of shape (rows, classes), but the task's have shape "
            f"{tuple(found.shape)}; choose fisher 'empirical'"
        )
    return found


def _chunks(data: Batch, rows: int) -> Iterator[Batch]:
    return zip(*(torch.split(part, rows) for part in data), strict=True)


def scoring(model: ReusedModel, key: str, advice: str) -> Function:
    """Return the task's ``scores``; raises :class:`ConfigError` naming who needs them."""
    score: Function | None = getattr(model.task, "scores", None)
    if score is None:
        raise ConfigError(
            f"{key} needs a task with scores(model, batch), logits for each row, which "
            f"{type(model.task).__name__} has not; add it, or {advice}"
        )
    return score


def _loss_of(model: ReusedModel) -> Function:
    return lambda module, batch: model.task.loss(module, batch)[0].float().reshape(1)


def _log_likelihoods(model: ReusedModel) -> Function:
    """Return √p·log p of each class, p held fixed: its square's mean is the exact Fisher."""
    score = scoring(model, "params.fisher", "choose fisher 'empirical'")

    def function(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logs = score(module, batch).float().log_softmax(-1)[0]
        return logs.detach().exp().sqrt() * logs

    return function


def _log_likelihood(model: ReusedModel) -> Function:
    score = scoring(model, "params.fisher", "choose fisher 'empirical'")

    def function(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        *parts, drawn = batch
        return score(module, tuple(parts)).float().log_softmax(-1).gather(1, drawn)[0]

    return function


def _add_together(
    sums: Named, lent: Lent[torch.Tensor], trained: Mapping[str, torch.Tensor], chunk: Batch
) -> None:
    def of_row(params: dict[str, torch.Tensor], *row: torch.Tensor) -> Any:
        arrays = {f"model.{name}": value for name, value in params.items()}
        return functional_call(lent, arrays, (tuple(part.unsqueeze(0) for part in row),))

    params = {name: param.detach() for name, param in trained.items()}
    found = vmap(jacrev(of_row), in_dims=(None, *[0] * len(chunk)))(params, *chunk)
    # All of a chunk first, so that one that fails half way adds nothing.
    squares = {name: jacobian.square().sum((0, 1)) for name, jacobian in found.items()}
    for name, square in squares.items():
        sums[name] += square


def _add_one_by_one(
    sums: Named, lent: Lent[torch.Tensor], trained: Mapping[str, torch.Tensor], chunk: Batch
) -> None:
    params = list(trained.values())
    for row in _chunks(chunk, 1):
        for value in lent(row):
            grads = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
            for total, grad in zip(sums.values(), grads, strict=True):
                if grad is not None:
                    total += grad.square()
