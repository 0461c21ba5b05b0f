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

    ``classes`` holds one tuple for each task, all of one length; ``count`` is the number of
    classes that the data have.
    """

    name: str
    classes: tuple[tuple[int, ...], ...]
    count: int

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ConfigError(
                f"task.protocol: unknown protocol '{self.name}'{nearest(self.name, PROTOCOLS)}"
            )
        if len(self.classes[0]) < 2 and self.name != "class-incremental":
            raise ConfigError(
                f"task.protocol '{self.name}': a task of one class has nothing to tell apart; "
                "take fewer tasks, or class-incremental"
            )

    @property
    def width(self) -> int:
        """C, the number of classes of a task."""
        return len(self.classes[0])

    @property
    def outputs(self) -> int:
        """The number of the model's outputs."""
        shared = self.name == "domain-incremental"
        return self.width if shared else self.width * len(self.classes)

    @property
    def task_known(self) -> bool:
        """Whether a row's task is known at test time, and so is part of a batch."""
        return self.name == "task-incremental"

    @cached_property
    def table(self) -> np.ndarray:
        """The output (tasks, classes of the data) int64 of each class; −1: not in the task."""
        found = np.full((len(self.classes), self.count), -1, np.int64)
        for task, members in enumerate(self.classes):
            first = 0 if self.name == "domain-incremental" else task * self.width
            found[task, list(members)] = first + np.arange(self.width)
        return found

    def mask(self, scores: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """Return scores (n, outputs) with those of heads of other tasks (n,) at ``EXCLUDED``."""
        head = torch.arange(self.outputs, device=scores.device) // self.width
        return scores.masked_fill(head[None, :] != tasks[:, None], EXCLUDED)


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
