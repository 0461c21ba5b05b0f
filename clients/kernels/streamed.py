"""A site's rows in a stream of tasks: those its experience holds, as one batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from fedalt.alternation.seen import Meeting, Seen
from fedalt.alternation.stream_view import StreamView
from fedalt.clients.kernels.base import SiteContext
from fedalt.errors import ConfigError, DataError, FedaltError
from fedalt.task import StreamTask, comes_in_tasks


@dataclass(frozen=True)
class Streamed:
    """What a site's experience brings: its rows, what was seen before it, and after it."""

    meeting: Meeting
    before: Seen
    after: Seen

    @property
    def keeps(self) -> Mapping[str, np.ndarray]:
        """Entries for the client's state once its work is done; only those that are new."""
        entries, former = self.after.entries(), self.before.entries()
        return {k: v for k, v in entries.items() if not np.array_equal(v, former.get(k, ()))}


def stream_task(site: SiteContext) -> StreamTask:
    """Return the site's task as one that comes in tasks; raises :class:`ConfigError`."""
    task = site.task
    if not comes_in_tasks(task):
        raise ConfigError(
            f"{type(task).__name__} has no tasks: a stream needs a StreamTask, with tasks, "
            "task_rows and task_data"
        )
    return cast(StreamTask, task)


def read_stream(stream: StreamView, site: SiteContext) -> Streamed:
    """Return what a site meets.

    Raises :class:`ConfigError` for a task that is out of range and :class:`DataError` for rows
    that the site has not, both naming the site.
    """
    task = stream_task(site)
    count = len(task.tasks)
    name = task.sites[site.site].name
    if max(stream.tasks) >= count:
        raise ConfigError(
            f"site '{name}': the stream names task {max(stream.tasks)}, but the task has "
            f"{count} (0 to {count - 1})"
        )
    before = Seen.read(site.state)
    try:
        meeting, after = before.meet(
            stream, site.site, site.seeds.root, lambda number: task.task_rows(site.site, number)
        )
    except FedaltError as error:
        raise type(error)(f"site '{name}': {error}") from error
    return Streamed(meeting, before, after)


def batch_of(site: SiteContext, rows: Mapping[int, np.ndarray]) -> tuple[torch.Tensor, ...]:
    """Return rows of several tasks as one batch, task after task."""
    task = stream_task(site)
    # Copies: rows out of a client's state are read-only, which torch warns of.
    parts = [task.task_data(site.site, n, np.array(chosen)) for n, chosen in rows.items()]
    for number, (part, chosen) in enumerate(zip(parts, rows.values(), strict=True)):
        if any(len(tensor) != len(chosen) for tensor in part):
            raise DataError(
                f"task_data of task {list(rows)[number]} returned {[len(t) for t in part]} rows "
                f"for {len(chosen)} asked"
            )
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
