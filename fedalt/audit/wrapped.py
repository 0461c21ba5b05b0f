"""A task around another: whatever it does not say itself, the scenario's task says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.build import TaskCache
from fedalt.seeds import Seeds
from fedalt.task import Task

Named = Mapping[str, np.ndarray]


class Wrapped:
    """Stands for a task; methods that only some tasks have are there if the task has them."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        """Return what the task has under a name that is not this class's."""
        if name.startswith("__") or name == "_task":
            raise AttributeError(name)
        return getattr(self._task, name)

    @property
    def sites(self) -> Sequence[Site]:
        """The task's sites."""
        return self._task.sites

    @property
    def blocks(self) -> Sequence[Block]:
        """The task's blocks."""
        return self._task.blocks

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return the task's model before the first round."""
        return self._task.initial_arrays(seeds)

    def site_data(self, site: int) -> Any:
        """Return a site's data."""
        return self._task.site_data(site)

    def evaluate(self, arrays: Named) -> dict[str, float]:
        """Judge a model as the task does."""
        return self._task.evaluate(arrays)

    def canary_kernel(self, phase: Phase, site: int) -> bool:
        """Say whether a site of a phase is a canary, which answers in place of a kernel."""
        return False

    def canary_answer(self, phase: Phase, site: int, received: Named) -> dict[str, np.ndarray]:
        """Return what a canary answers to the arrays it is to train."""
        raise NotImplementedError

    def released(self, phase: Phase, site: int, received: Named, answer: Named) -> None:
        """Be told what a site answers; ``received`` are the arrays that it began with."""

    def ordered(self, phase: Phase, trained: Sequence[str]) -> None:
        """Be told that a phase trains arrays in this round."""


class TwinTasks(TaskCache):
    """Hands server and clients the one task of a twin run, whatever the configuration says."""

    def __init__(self, task: Wrapped) -> None:
        super().__init__()
        self._twin = task

    def __call__(self, spec: Mapping[str, Any]) -> Task:
        """Return the twin's task."""
        return self._twin
