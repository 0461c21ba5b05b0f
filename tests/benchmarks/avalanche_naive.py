"""Avalanche as a peer: its Naive and Cumulative strategies on experiences given as arrays.

Runs in the peer's environment. Adam begins anew in each experience, and an experience ends
after so many steps, as fedalt's streams have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# First, before all that imports torchvision.
import torchvision_no_ops  # noqa: F401

# isort: split
import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_tensor_classification_dataset as make_dataset,
)
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin
from avalanche.training.supervised import Cumulative, Naive
from torch import nn
from torch.utils.data import DataLoader

MANY_EPOCHS = 10_000
"""The number of steps ends an experience, whatever an epoch holds."""
Rows = tuple[np.ndarray, np.ndarray]
"""Inputs (n, features) float32 and classes (n,) int64."""


class Limit(SupervisedPlugin):
    """Ends an experience after ``most`` steps; ``steps`` holds how many each one took."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.steps = most, []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Begin to count."""
        self.steps.append(0)

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Count a step."""
        self.steps[-1] += 1
        if self.steps[-1] >= self.most:
            strategy.stop_training()


class GivenBatches(Naive):
    """Naive on batches that were drawn elsewhere: ``batches`` of each experience, row numbers."""

    batches: Sequence[Sequence[list[int]]] = ()

    def make_train_dataloader(self, **_: Any) -> None:
        """Read the experience's batches in their order."""
        chosen = self.batches[self.experience.current_experience]
        self.dataloader = DataLoader(self.adapted_dataset, batch_sampler=chosen)


def benchmark(train: Sequence[Rows], test: Sequence[Rows]) -> Any:
    """Return Avalanche's benchmark; one head, and no task is named to the model."""
    made = (
        [make_dataset(torch.tensor(x), torch.tensor(y), task_labels=0) for x, y in part]
        for part in (train, test)
    )
    return benchmark_from_datasets(**dict(zip(("train", "test"), made, strict=True)))


def strategy(kind: str, model: nn.Module, limit: Limit, lr: float, batch: int) -> Any:
    """Return Avalanche's strategy: ``naive``, ``cumulative``, or ``given`` batches."""
    judge = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[], strict_checks=False)
    kinds = {"naive": Naive, "cumulative": Cumulative, "given": GivenBatches}
    return kinds[kind](
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=1 if kind == "given" else MANY_EPOCHS,
        eval_mb_size=1024,
        device="cpu",
        plugins=[limit],
        evaluator=judge,
    )


def accuracies(learner: Any, stream: Any, tasks: int) -> list[float]:
    """Return the accuracy on each task, by Avalanche's own evaluation."""
    found = learner.eval(stream)
    return [found[f"Top1_Acc_Exp/eval_phase/test_stream/Exp{j:03d}"] for j in range(tasks)]
