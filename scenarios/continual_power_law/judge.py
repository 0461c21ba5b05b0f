"""Accuracy and loss of a model by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Batch = tuple[torch.Tensor, ...]
Scores = Callable[[nn.Module, Batch], torch.Tensor]
_BATCH = 2000


class Scored(Protocol):
    """A task that can be judged: a model, and its scores of a batch."""

    def model(self) -> nn.Module:
        """Build the model."""

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, outputs)."""


def cross_entropy(
    scores: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
    """Return the mean cross-entropy of scores (n, outputs) in nats, and the accuracy."""
    correct = (scores.detach().argmax(1) == labels).float().mean()
    return functional.cross_entropy(scores, labels), {"accuracy": correct}


def server_scores(
    task: Scored,
    arrays: Mapping[str, np.ndarray],
    batches: Iterable[tuple[int, Batch]],
    losses: bool = False,
) -> dict[str, float]:
    """Judge a model: means over tasks, and each task's own accuracy (and loss, if asked for)."""
    found = judge(loaded(task.model(), arrays), task.scores, batches)
    accuracy, loss = np.mean(list(found.values()), axis=0).tolist()
    own = by_task(found, "accuracy", 0) | (by_task(found, "loss", 1) if losses else {})
    return {"accuracy": accuracy, "loss": loss, **own}


def site_scores(
    task: Scored, arrays: Mapping[str, np.ndarray], batches: Iterable[tuple[int, Batch]]
) -> dict[str, float]:
    """Judge a model on a site's held-out rows: ``accuracy/<task>`` where it has any."""
    return by_task(judge(loaded(task.model(), arrays), task.scores, batches), "accuracy", 0)


@torch.no_grad()
def judge(
    model: nn.Module, scores: Scores, batches: Iterable[tuple[int, Batch]]
) -> dict[int, tuple[float, float]]:
    """Return task to (accuracy, mean loss); a batch's second tensor holds the labels.

    Tasks without rows are left out. ``model`` is put into evaluation mode.
    """
    model.eval()
    found = {}
    for task, batch in batches:
        count = len(batch[1])
        if not count:
            continue
        correct, total = 0, 0.0
        for part in zip(*(torch.split(tensor, _BATCH) for tensor in batch), strict=True):
            given = scores(model, part)
            correct += int((given.argmax(1) == part[1]).sum())
            total += float(functional.cross_entropy(given, part[1], reduction="sum"))
        found[task] = (correct / count, total / count)
    return found


def by_task(found: Mapping[int, tuple[float, float]], key: str, place: int) -> dict[str, float]:
    """Return ``key/<task>`` for each task, by one of the two measures."""
    return {f"{key}/{task}": values[place] for task, values in found.items()}


def loaded(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """Return the model with the arrays as its state."""
    model.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
    return model


def sliced(counts: Iterable[int]) -> dict[str, np.ndarray]:
    """Return the places of each task's rows where they lie task after task; none: left out."""
    found, first = {}, 0
    for task, count in enumerate(counts):
        if count:
            found[str(task)] = np.arange(first, first + count)
        first += count
    return found


def joined(batches: Iterable[Batch]) -> Batch:
    """Return batches as one, row after row."""
    return tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))
