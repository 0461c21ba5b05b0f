"""Streams of image tasks: permuted, rotated and split MNIST or Fashion-MNIST among clients.

Permuted and rotated tasks are views of one and the same images: a client with N of them has N
rows of every task. Split tasks have classes of their own, and a client's rows of a task are its
images of those classes. See ``transforms`` and ``protocols`` for the sources.
"""

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
from fedalt.data import load_images
from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.continual_power_law import judge as judging
from fedalt.scenarios.continual_power_law import rows as dealt
from fedalt.scenarios.continual_power_law.judge import Batch, joined, sliced
from fedalt.scenarios.continual_power_law.networks import Network, initial
from fedalt.scenarios.continual_power_law.settings import number, whole, widths
from fedalt.scenarios.continual_power_law.variants import partition_rule, read_variant
from fedalt.seeds import Seeds
from fedalt.task import Arrays

LARGEST = 2 * 1024**3
"""Bytes that all of a site's data may take at once."""


class ImageStream:
    """A stream of T image tasks among ``clients`` sites; a :class:`~fedalt.task.StreamTask`.

    ``variant`` is ``permuted`` (``first_identity``: task 0 keeps the order of pixels),
    ``rotated`` (``max_angle``, or a list of ``angles``) or ``split`` (``order``: ``given`` or
    ``shuffled`` classes), a name or ``{name: …}`` with options. ``partition`` is ``iid``,
    ``dirichlet`` (``alpha``, ``min_size``) or ``pathological`` (``shards_per_client``), written
    likewise. Of each client's images the share ``held_out`` is kept to judge by; of the others
    it trains on ``rows`` at most; the server judges by ``test_rows`` at most (null: all).
    ``side`` is 14 (means of 2 × 2 pixels), 28 or 32 (zero-padded). ``hidden``, ``norm`` and
    ``dropout`` are those of ``model``, ``mlp`` or ``cnn``.

    Raises :class:`ConfigError` naming the setting that does not fit.
    """

    def __init__(
        self,
        data: str = "mnist",
        root: str | None = None,
        variant: str | Mapping[str, Any] = "permuted",
        protocol: str = "domain-incremental",
        tasks: int = 10,
        clients: int = 4,
        partition: str | Mapping[str, Any] = "iid",
        held_out: float = 0.1,
        side: int = 28,
        rows: int | None = None,
        test_rows: int | None = 2000,
        model: str = "mlp",
        hidden: Sequence[int] = (200, 200),
        norm: str = "none",
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        whole(tasks, "task.tasks", 1)
        whole(clients, "task.clients", 1)
        for key, value in (("rows", rows), ("test_rows", test_rows)):
            if value is not None:
                whole(value, f"task.{key}", 1)
        if not 0.0 <= number(held_out, "task.held_out") < 1.0:
            raise ConfigError(f"task.held_out is {held_out}, but must lie in [0, 1)")
        self._network = Network(model, tuple(widths(hidden, "task.hidden")), norm, dropout)
        rule = partition_rule(partition)
        images, seeds = load_images(data, root), Seeds(seed)
        dealt.check_images(images, side)
        self._side = side
        self._variant = read_variant(variant, protocol, tasks, len(images.classes), side, seeds)
        self.source = images.source
        self._labels = images.train_y
        self._pixels = torch.from_numpy(dealt.pixels(images.train_x, side))
        self.parts = dealt.client_rows(
            self._labels, clients, rule, rows, held_out, seeds.at("clients")
        )
        drawn = dealt.server_rows(len(images.test_y), test_rows, seeds.at("test"))
        self._test_pixels = torch.from_numpy(dealt.pixels(images.test_x[drawn], side))
        self._test_labels = images.test_y[drawn]
        for task, name in enumerate(self.tasks):
            if not len(self._variant.rows_of(self._test_labels, task)):
                raise ConfigError(
                    f"task.test_rows is {test_rows}: none of them belongs to task {task} "
                    f"('{name}'); take more"
                )

    @property
    def tasks(self) -> Sequence[str]:
        """Names such as ``permutation 3``, ``36°`` or ``0-1``."""
        return self._variant.names

    @property
    def protocol(self) -> str:
        """``domain-incremental``, ``task-incremental`` or ``class-incremental``."""
        return self._variant.protocol.name

    @property
    def row_bytes(self) -> int:
        """Bytes that a kept row takes: its pixels and its class, one byte each."""
        return self._pixels.shape[1] + 1

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a client; its size counts the rows of all tasks, its ``class`` is the mode."""
        sizes, modes = [], []
        for site, part in enumerate(self.parts.train):
            sizes.append(sum(self.task_rows(site, task) for task in range(len(self.tasks))))
            modes.append(str(np.bincount(self._labels[part]).argmax()))
        return LazySites(sizes, attributes={"class": modes})

    @property
    def blocks(self) -> Sequence[Block]:
        """The last layer, and all before it where there is any."""
        return self._network.blocks

    def model(self) -> nn.Module:
        """Build the network; initial weights come from :meth:`initial_arrays`."""
        return self._network.build(self._side, self._variant.protocol.outputs)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return He-initialised weights and zero biases from the run's own generator."""
        return initial(self.model(), seeds)

    def task_rows(self, site: int, task: int) -> int:
        """Return how many training rows a site has of a task."""
        return len(self._rows(self.parts.train, site, task))

    def task_data(self, site: int, task: int, rows: np.ndarray) -> Batch:
        """Return images (n, side²) float32 in [0, 1] and labels (n,) int64.

        Under task-incremental the task's number (n,) int64 follows. Raises :class:`DataError`
        for a task or rows that the site has not.
        """
        own = self._rows(self.parts.train, site, task)
        return self._batch(dealt.picked(own, rows, site, task, self.tasks[task]), task)

    def site_data(self, site: int) -> Batch:
        """Return a site's training rows of all tasks, task after task.

        For kernels outside of a stream. Raises :class:`DataError` above 2 GiB.
        """
        return self._all_tasks(self.parts.train, site)

    def site_eval_data(self, site: int) -> Batch:
        """Return a site's held-out rows of all tasks, task after task.

        Raises :class:`DataError` where it holds none out, or above 2 GiB.
        """
        dealt.check_held(site, len(self.parts.held[site]))
        return self._all_tasks(self.parts.held, site)

    def site_eval_slices(self, site: int) -> dict[str, np.ndarray]:
        """Return where each task's rows lie in :meth:`site_eval_data`, by the task's number."""
        return sliced(len(self._rows(self.parts.held, site, t)) for t in range(len(self.tasks)))

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, outputs); under task-incremental other tasks' are −10⁴."""
        scores, protocol = self.all_scores(model, batch), self._variant.protocol
        return protocol.mask(scores, batch[2]) if protocol.task_known else scores

    def all_scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, outputs), those of other tasks too: for distillation."""
        scores: torch.Tensor = model(batch[0])
        return scores

    def seen_classes(self, tasks: Sequence[int]) -> np.ndarray:
        """Return the outputs (k,) int64 that belong to any of some tasks, ascending."""
        return self._variant.protocol.outputs_of(tasks)

    def loss(
        self, model: nn.Module, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the mean cross-entropy, and the accuracy."""
        return judging.cross_entropy(self.scores(model, batch), batch[1])

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the server's test rows: the mean over tasks, and each task's own."""
        return judging.server_scores(self, arrays, self._test_batches())

    def site_scores(self, site: int, arrays: Arrays) -> dict[str, float]:
        """Judge a model on a site's held-out rows: ``accuracy/<task>`` where it has any."""
        batches = (
            (task, self._batch(self._rows(self.parts.held, site, task), task))
            for task in range(len(self.tasks))
        )
        return judging.site_scores(self, arrays, batches)

    def _rows(self, parts: Sequence[np.ndarray], site: int, task: int) -> np.ndarray:
        """Return a site's rows of a task as rows of the training set."""
        dealt.check_task(site, task, len(self.tasks))
        part = parts[site]
        own: np.ndarray = part[self._variant.rows_of(self._labels[part], task)]
        return own

    def _batch(self, rows: np.ndarray, task: int) -> Batch:
        images = self._pixels.index_select(0, torch.from_numpy(rows))
        return self._variant.batch(images, self._labels[rows], task)

    def _all_tasks(self, parts: Sequence[np.ndarray], site: int) -> Batch:
        chosen = [self._rows(parts, site, task) for task in range(len(self.tasks))]
        needed = 4 * self._pixels.shape[1] * sum(map(len, chosen))
        if needed > LARGEST:
            raise DataError(
                f"site {site}: its rows of all {len(chosen)} tasks take {needed / 1e9:.1f} GB at "
                f"once; lower task.rows, or learn them by a stream"
            )
        return joined(self._batch(rows, task) for task, rows in enumerate(chosen))

    def _test_batches(self) -> Iterator[tuple[int, Batch]]:
        for task in range(len(self.tasks)):
            rows = self._variant.rows_of(self._test_labels, task)
            images = self._test_pixels.index_select(0, torch.from_numpy(rows))
            yield task, self._variant.batch(images, self._test_labels[rows], task)
