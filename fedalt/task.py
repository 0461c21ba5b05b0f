"""Task: what a federation learns from, and how it is judged.

A scenario is a task, a YAML file and a claim. The task is shared by both sides: the
server asks it for the initial arrays and the blocks, a site for its own data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds

if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, np.ndarray]
"""Named arrays of a model, or of some of its blocks."""


@runtime_checkable
class Task(Protocol):
    """Sites with data, a model as named arrays, and a judgement of it."""

    @property
    def sites(self) -> Sequence[Site]:
        """The federation's sites, ordered by index."""

    @property
    def blocks(self) -> Sequence[Block]:
        """Named groups of the model's arrays; ``all`` is always there."""

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return the model before the first round."""

    def site_data(self, site: int) -> Any:
        """Return one site's training data in the form its kernels read."""

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the server's data; an empty mapping where there is none.

        A task that judges on rows which sites learn from has ``judges_training_rows`` true, and
        no private run lets it.
        """


@runtime_checkable
class GradientTask(Task, Protocol):
    """A task whose model learns by gradients: the kernel owns the loop, the task the loss.

    Its ``site_data`` is a tuple of tensors with equal first dimension (rows), and a batch
    is the same tuple at some rows.

    A task may have more, by name. ``site_draw(site, rng)`` returns the rows of one order, drawn
    anew, such as patches of volumes. ``site_slices(site)`` names slices of those rows, such as
    the modalities, for ``view.slices``: name to row numbers. ``site_eval_data(site)`` are the
    rows that an evaluation reads in place of the training data, ``site_eval_slices(site)``
    their slices; or ``site_judge(model, site)`` returns the number of cases it judged at a site
    and the metrics it found, where these are no means over rows. ``site_users(site)`` says whose
    each training row is, as whole numbers (n,), for phases that protect users. ``make_ready()``
    reads what a run will need before it begins, and yields (done, of how many).
    """

    def model(self) -> torch.nn.Module:
        """Build the model; the names of its arrays are those of its ``state_dict``."""

    def loss(
        self, model: torch.nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the batch's mean loss and any further per-row mean metrics.

        Metrics as tensors of no dimensions, and control flow that no value decides, let the
        engine trace the loss: cohorts in one batch and compiled steps need that.
        """


def comes_in_tasks(task: Task) -> bool:
    """Say whether a task is one for streams: a :class:`StreamTask`."""
    return hasattr(task, "task_rows") and hasattr(task, "task_data")


@runtime_checkable
class StreamTask(GradientTask, Protocol):
    """A task whose sites' data come in tasks, one after the other: for schedules of streams.

    ``protocol`` is ``domain-incremental`` (one set of classes, inputs change),
    ``task-incremental`` (classes of its own for each task, which is known at test time) or
    ``class-incremental`` (the same, and not known); van de Ven and Tolias 2019
    (arXiv:1904.07734). ``site_data`` is all of a site's data, as for any task.

    Three more are asked of it only by distillation: ``scores(model, batch)``, the outputs (n,
    outputs) that the loss is made of; ``seen_classes(tasks)``, which of the outputs belong to
    some tasks; and, where ``scores`` hides the outputs of other tasks, ``all_scores``, which
    does not. One more is asked for by evaluation: ``site_eval_slices(site)``, a task's number as
    text to where its rows lie in ``site_eval_data(site)``.
    """

    @property
    def tasks(self) -> Sequence[str]:
        """The tasks' names; a stream means them by their place here."""

    @property
    def protocol(self) -> str:
        """What changes from task to task, as the field names it."""

    def task_rows(self, site: int, task: int) -> int:
        """Return how many training rows a site has of a task; 0 where it has none."""

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return some of a site's rows of a task, as a batch: row numbers (n,) to n rows."""
