"""What a client has seen of a stream of tasks, and what its next experience holds.

The pool of a task is the rows that the client was given when the task was new; rehearsal
draws from it and from nowhere else, without replacement within an experience. Everything
follows from the run's seed, so that a plan counts what a run will touch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedalt.alternation.stream_view import StreamView
from fedalt.errors import DataError, ScheduleError
from fedalt.seeds import Seeds

SINCE, POOL, NOW = "stream/since", "stream/pool", "stream/now"
Available = Callable[[int], int]
"""A task's number to how many rows the client has of it."""


@dataclass(frozen=True)
class Meeting:
    """What one experience holds: the new task, and the rows of each task, the new one first."""

    task: int
    experience: int
    rows: Mapping[int, np.ndarray]

    @property
    def new(self) -> int:
        """The number of rows of the new task."""
        return len(self.rows[self.task])

    @property
    def rehearsed(self) -> dict[int, int]:
        """The number of rows of each past task that there are any of."""
        return {task: len(rows) for task, rows in self.rows.items() if task != self.task}


@dataclass(frozen=True)
class Seen:
    """A client's past: in which experience each task came first, and the rows seen of it.

    ``now`` is the experience it was in last (−1: none yet), ``task`` the one it learnt then.
    """

    since: Mapping[int, int] = field(default_factory=dict)
    pools: Mapping[int, np.ndarray] = field(default_factory=dict)
    now: int = -1
    task: int = -1

    @classmethod
    def read(cls, state: Mapping[str, np.ndarray]) -> Seen:
        """Read what :meth:`entries` wrote into a client's state."""
        if SINCE not in state:
            return cls()
        since = {int(task): int(first) for task, first in state[SINCE]}
        pools = {task: state[f"{POOL}/{task}"] for task in since}
        now, task = (int(value) for value in state[NOW])
        return cls(since, pools, now, task)

    def entries(self) -> dict[str, np.ndarray]:
        """Return entries for a client's state."""
        found = {f"{POOL}/{task}": rows for task, rows in self.pools.items()}
        found[SINCE] = np.array(sorted(self.since.items()), np.int32).reshape(-1, 2)
        found[NOW] = np.array([self.now, self.task], np.int32)
        return found

    def meet(
        self, stream: StreamView, site: int, root: int, available: Available
    ) -> tuple[Meeting, Seen]:
        """Return what the stream's experience holds for a site, and its past after it.

        Raises :class:`DataError` where the site has too few rows of the new task, and
        :class:`ScheduleError` where more would be rehearsed than was seen, or where the stream
        counts its experiences anew; callers, who know the site's name, add it.
        """
        task = stream.new_task(site, root)
        self._check_follows(stream, task)
        seeds = Seeds(root).at("stream", site)
        since, pools = dict(self.since), dict(self.pools)
        if task not in pools:
            since[task] = stream.experience
            pools[task] = _first_rows(stream, task, available(task), seeds)
        # By introduction, since of equal remainders the task met more recently comes first.
        past = sorted((t for t in since if t != task), key=lambda t: since[t])
        if stream.environment(site).stochastic:
            past = []
        rows = {task: pools[task]}
        lags = [stream.experience - since[t] for t in past]
        try:
            counts = stream.environment(site).counts(
                lags, len(pools[task]), stream.rehearsal, [len(pools[t]) for t in past]
            )
        except ScheduleError as error:
            raise ScheduleError(f"experience {stream.experience}: {error}") from error
        for old, count in zip(past, counts, strict=True):
            if count:
                rng = seeds.at("rehearse", stream.experience, old).numpy()
                rows[old] = np.sort(rng.choice(pools[old], count, replace=False))
        return (
            Meeting(task, stream.experience, rows),
            Seen(since, pools, stream.experience, task),
        )

    def _check_follows(self, stream: StreamView, task: int) -> None:
        """Raise :class:`ScheduleError` where an experience is not the last one or a later one.

        Lags are differences of experiences, so that numbers used twice would make every past
        task look as if it had just been met.
        """
        here = stream.experience
        if here > self.now or (here == self.now and task == self.task):
            return
        again = f"goes back to experience {here}" if here < self.now else f"has experience {here}"
        raise ScheduleError(
            f"the stream {again} with task {task}, after experience {self.now} with task "
            f"{self.task}; a stream that follows another goes on where that one ended, by "
            f"'first' ({self.now + 1} or more), and one that is repeated needs a chain of such "
            "streams"
        )


def _first_rows(stream: StreamView, task: int, there: int, seeds: Seeds) -> np.ndarray:
    """Return the rows that a client is given of a task that is new to it."""
    if there < 1:
        raise DataError(
            f"task {task} has no rows at this site, but the stream brings it in experience "
            f"{stream.experience}; leave it out of the stream's tasks, or give the site rows of it"
        )
    wanted = stream.new or there
    if wanted > there:
        raise DataError(
            f"the stream asks for {wanted} new rows of task {task}, but the site has {there}; "
            "lower the stream's 'new', or set it to 0 for all there are"
        )
    if wanted == there:
        return np.arange(there, dtype=np.int32)
    rng = seeds.at("new", task).numpy()
    return np.sort(rng.choice(there, wanted, replace=False)).astype(np.int32)
