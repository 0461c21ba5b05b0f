"""Protocols of continual learning: which classes a task has, and which output stands for each.

van de Ven and Tolias, "Three scenarios for continual learning", arXiv:1904.07734, with T
tasks of C classes each:

    domain-incremental   C outputs; a class is its place within its task, the task is not known
    task-incremental     T·C outputs, a head of C for each task; the task is known at test time
    class-incremental    T·C outputs in one head; task and class have to be told

Where all tasks share their classes, as permuted images do, class k of task t is output
t·C + k of the latter two, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch

from fedalt.errors import ConfigError, nearest
from fedalt.seeds import Seeds

PROTOCOLS = ("domain-incremental", "task-incremental", "class-incremental")
EXCLUDED = -1e4
"""The score of another task's outputs: its exponential is 0, and unlike −∞ it is finite times 0."""


@dataclass(frozen=True)
class Protocol:
    """The classes of every task, by number, and the outputs that a model has for them.

    ``classes`` holds one tuple for each task, of one length under domain-incremental; ``count``
    is the number of classes that the data have.
    """

    name: str
    classes: tuple[tuple[int, ...], ...]
    count: int

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ConfigError(
                f"task.protocol: unknown protocol '{self.name}'{nearest(self.name, PROTOCOLS)}"
            )
        if min(map(len, self.classes)) < 2 and self.name != "class-incremental":
            raise ConfigError(
                f"task.protocol '{self.name}': a task of one class has nothing to tell apart; "
                "take fewer tasks, or class-incremental"
            )

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The first output of each task, and behind them the number of outputs."""
        if self.name == "domain-incremental":
            return (*(0 for _ in self.classes), len(self.classes[0]))
        return tuple(accumulate(map(len, self.classes), initial=0))

    @property
    def outputs(self) -> int:
        """The number of the model's outputs."""
        return self.firsts[-1]

    @property
    def task_known(self) -> bool:
        """Whether a row's task is known at test time, and so is part of a batch."""
        return self.name == "task-incremental"

    @cached_property
    def table(self) -> np.ndarray:
        """The output (tasks, classes of the data) int64 of each class; −1: not in the task."""
        found = np.full((len(self.classes), self.count), -1, np.int64)
        for task, members in enumerate(self.classes):
            found[task, list(members)] = self.firsts[task] + np.arange(len(members))
        return found

    def mask(self, scores: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """Return scores (n, outputs) with those of heads of other tasks (n,) at ``EXCLUDED``."""
        output = torch.arange(self.outputs, device=scores.device)
        head = torch.zeros_like(output)
        # Comparisons with plain numbers, so that a traced loss holds no tensor of its own.
        for first in self.firsts[1:-1]:
            head = head + (output >= first)
        return scores.masked_fill(head[None, :] != tasks[:, None], EXCLUDED)

    def outputs_of(self, tasks: Sequence[int]) -> np.ndarray:
        """Return the outputs (k,) int64 that belong to any of some tasks, ascending."""
        table = self.table[list(tasks)]
        return np.unique(table[table >= 0])


def shared_classes(tasks: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return the classes of tasks that all have every class."""
    return (tuple(range(count)),) * tasks


def split_classes(
    tasks: int, count: int, shuffled: bool, seeds: Seeds
) -> tuple[tuple[int, ...], ...]:
    """Deal classes out to tasks, in order or in a drawn one.

    Raises :class:`ConfigError` unless every task gets as many.
    """
    if count % tasks:
        fitting = [str(t) for t in range(1, count + 1) if count % t == 0]
        raise ConfigError(
            f"task.tasks is {tasks}, but {count} classes split evenly only into "
            f"{', '.join(fitting)} tasks"
        )
    order: Sequence[int] = range(count)
    if shuffled:
        order = seeds.numpy().permutation(count).tolist()
    width = count // tasks
    return tuple(tuple(sorted(order[t * width : (t + 1) * width])) for t in range(tasks))
