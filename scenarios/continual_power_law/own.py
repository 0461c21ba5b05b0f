"""Streams of a user's own data: a folder with one file a task. See ``task_files``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.lazy_sites import LazySites
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_power_law import judge as judging
from fedalt.scenarios.continual_power_law import rows as dealt
from fedalt.scenarios.continual_power_law.judge import Batch, joined, sliced
from fedalt.scenarios.continual_power_law.networks import Network, initial
from fedalt.scenarios.continual_power_law.own_classes import own_protocol
from fedalt.scenarios.continual_power_law.scaling import read_scale
from fedalt.scenarios.continual_power_law.settings import number, whole, widths
from fedalt.scenarios.continual_power_law.task_files import (
    SITE,
    TaskFile,
    check_numbering,
    read_tasks,
)
from fedalt.scenarios.continual_power_law.variants import partition_rule
from fedalt.seeds import Seeds
from fedalt.task import Arrays

CLIENTS = 4
"""How many clients share the rows where neither settings nor files tell."""


class ArrayStream:
    """A stream of the tasks in a ``folder``; a :class:`~fedalt.task.StreamTask`.

    ``tasks`` is the number of its files (null: as many as there are). Rows belong to clients as
    the files' ``train_site`` says, or else are dealt out by ``partition`` among ``clients`` (null:
    as many as there are sites, or else 4), task by task. Of each client's rows of a task the
    share ``held_out`` is kept to judge by, of the others it trains on ``rows`` at most; the
    server judges by ``test_rows`` of each task at most (null: all). ``scale`` is ``none``, or
    ``standardise`` by the rows of the first task that are trained on, so that nothing of later
    tasks leaks. ``hidden``, ``norm`` and ``dropout`` are those of a perceptron.

    Raises :class:`ConfigError` naming the setting that does not fit, and :class:`DataError`
    naming the file and the array.
    """

    def __init__(
        self,
        folder: str | None = None,
        protocol: str = "domain-incremental",
        tasks: int | None = None,
        clients: int | None = None,
        partition: str | Mapping[str, Any] = "iid",
        held_out: float = 0.1,
        rows: int | None = None,
        test_rows: int | None = 2000,
        scale: str = "none",
        hidden: Sequence[int] = (200, 200),
        norm: str = "none",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        counts = {"tasks": tasks, "clients": clients, "rows": rows, "test_rows": test_rows}
        for key, value in counts.items():
            if value is not None:
                whole(value, f"task.{key}", 1)
        if not 0.0 <= number(held_out, "task.held_out") < 1.0:
            raise ConfigError(f"task.held_out is {held_out}, but must lie in [0, 1)")
        self._network = Network("mlp", tuple(widths(hidden, "task.hidden")), norm, dropout)
        rule, seeds = partition_rule(partition), Seeds(seed)
        self._files = read_tasks(folder, tasks)
        self.source = f"{folder} ({len(self._files)} files of one's own)"
        self._protocol = own_protocol(protocol, self._files)
        split = _split(self._files, clients, rule, seeds)
        self.parts = tuple(
            dealt.hold_out(parts, rows, held_out, seeds.at("clients", task))
            for task, parts in enumerate(split)
        )
        self._test = [
            dealt.server_rows(len(file.test_y), test_rows, seeds.at("test", task))
            for task, file in enumerate(self._files)
        ]
        first = torch.from_numpy(np.sort(np.concatenate(self.parts[0].train)))
        self._scale = read_scale(scale, self._files[0].train_x.index_select(0, first))

    @property
    def tasks(self) -> Sequence[str]:
        """The files' names, without a number before them and without ``.npz``."""
        return tuple(file.name for file in self._files)

    @property
    def protocol(self) -> str:
        """``domain-incremental``, ``task-incremental`` or ``class-incremental``."""
        return self._protocol.name

    @property
    def row_bytes(self) -> int:
        """Bytes that a kept row takes: its features as they are held, and its class."""
        features = max(file.train_x[0].nbytes for file in self._files)
        return features + np.min_scalar_type(self._protocol.count - 1).itemsize

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a client; its size counts the rows of all tasks, its ``class`` is the mode."""
        sizes, modes = [], []
        for site in range(len(self.parts[0].train)):
            labels = [file.train_y[self._own(site, t)] for t, file in enumerate(self._files)]
            sizes.append(sum(map(len, labels)))
            modes.append(str(np.bincount(np.concatenate(labels)).argmax()))
        return LazySites(sizes, attributes={"class": modes})

    @property
    def blocks(self) -> Sequence[Block]:
        """The last layer, and all before it where there is any."""
        return self._network.blocks

    def model(self) -> nn.Module:
        """Build the network: rows (n, features) to scores (n, outputs)."""
        return self._network.dense(self._files[0].train_x.shape[1], self._protocol.outputs)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return He-initialised weights and zero biases from the run's own generator."""
        return initial(self.model(), seeds)

    def task_rows(self, site: int, task: int) -> int:
        """Return how many training rows a site has of a task."""
        return len(self._own(site, task))

    def task_data(self, site: int, task: int, rows: np.ndarray) -> Batch:
        """Return scaled features (n, features) float32 and outputs (n,) int64.

        Under task-incremental the task's number (n,) int64 follows. Raises :class:`DataError`
        for a task or rows that the site has not.
        """
        own = self._own(site, task)
        return self._train(dealt.picked(own, rows, site, task, self.tasks[task]), task)

    def site_data(self, site: int) -> Batch:
        """Return a site's training rows of all tasks, task after task."""
        numbers = range(len(self._files))
        return joined(self._train(self._own(site, task), task) for task in numbers)

    def site_eval_data(self, site: int) -> Batch:
        """Return a site's held-out rows of all tasks, task after task.

        Raises :class:`DataError` where it holds none out.
        """
        dealt.check_held(site, sum(len(part.held[site]) for part in self.parts))
        return joined(batch for _, batch in self._held(site))

    def site_eval_slices(self, site: int) -> dict[str, np.ndarray]:
        """Return where each task's rows lie in :meth:`site_eval_data`, by the task's number."""
        return sliced(len(part.held[site]) for part in self.parts)

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, outputs); under task-incremental other tasks' are −10⁴."""
        scores = self.all_scores(model, batch)
        return self._protocol.mask(scores, batch[2]) if self._protocol.task_known else scores

    def all_scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, outputs), those of other tasks too: for distillation."""
        scores: torch.Tensor = model(batch[0])
        return scores

    def seen_classes(self, tasks: Sequence[int]) -> np.ndarray:
        """Return the outputs that some tasks have, ascending."""
        return self._protocol.outputs_of(tasks)

    def loss(
        self, model: nn.Module, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the mean cross-entropy, and the accuracy."""
        return judging.cross_entropy(self.scores(model, batch), batch[1])

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the files' test rows: the mean over tasks, and each task's own."""
        batches = (
            (task, self._batch(file.test_x, file.test_y, self._test[task], task))
            for task, file in enumerate(self._files)
        )
        return judging.server_scores(self, arrays, batches)

    def site_scores(self, site: int, arrays: Arrays) -> dict[str, float]:
        """Judge a model on a site's held-out rows: ``accuracy/<task>`` where it has any."""
        return judging.site_scores(self, arrays, self._held(site))

    def _own(self, site: int, task: int) -> np.ndarray:
        """Return a site's training rows of a task as rows of its file."""
        dealt.check_task(site, task, len(self._files))
        return self.parts[task].train[site]

    def _held(self, site: int) -> Iterator[tuple[int, Batch]]:
        for task, part in enumerate(self.parts):
            yield task, self._train(part.held[site], task)

    def _train(self, rows: np.ndarray, task: int) -> Batch:
        file = self._files[task]
        return self._batch(file.train_x, file.train_y, rows, task)

    def _batch(self, x: torch.Tensor, y: np.ndarray, rows: np.ndarray, task: int) -> Batch:
        features = self._scale(x.index_select(0, torch.from_numpy(rows)))
        outputs = torch.from_numpy(self._protocol.table[task][y[rows]])
        if not self._protocol.task_known:
            return features, outputs
        return features, outputs, torch.full_like(outputs, task)


def _split(
    files: Sequence[TaskFile],
    clients: int | None,
    rule: tuple[str, Mapping[str, Any]],
    seeds: Seeds,
) -> list[list[np.ndarray]]:
    """Return each task's rows (ascending) of each client, by the files or by a partition."""
    by_file = [file.sites for file in files if file.sites is not None]
    if by_file:
        count = check_numbering(files, SITE, by_file)
        if clients not in (None, count):
            raise ConfigError(
                f"task.clients is {clients}, but {SITE} in the files names {count} sites; set "
                f"task.clients=null"
            )
        return [[np.flatnonzero(sites == site) for site in range(count)] for sites in by_file]
    dealt_out = []
    for task, file in enumerate(files):
        try:
            parts = dealt.parts(file.train_y, clients or CLIENTS, rule, seeds.at("clients", task))
        except DataError as error:
            raise DataError(f"'{file.path}': train_y: {error}") from error
        dealt_out.append(parts)
    return dealt_out
