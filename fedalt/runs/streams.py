"""What a plan's streams of tasks will ask of each site: tasks met, rows kept, records touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedalt.alternation import Phase, Preview
from fedalt.alternation.seen import Meeting, Seen
from fedalt.alternation.stream_view import StreamView
from fedalt.errors import ConfigError, FedaltError
from fedalt.runs.report import Table
from fedalt.task import comes_in_tasks

MOST_SITES = 200
"""How many sites are followed where a plan is looked at before a run."""
_SHOWN = 12
ABSENT = -1
"""In place of a task: the site takes no part in that experience."""


@dataclass
class SiteStream:
    """One site on its way through a stream.

    ``meetings`` by experience; ``touches`` by task (pool rows,) in how many rounds each record
    of the pool is read, and so trained on at most; ``memory`` how many rows of past tasks a
    method remembers, and ``revisited`` how many of the former task one reads when the next
    begins; ``view`` is the stream as it was met last.
    """

    meetings: dict[int, Meeting] = field(default_factory=dict)
    touches: dict[int, np.ndarray] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    memory: int = 0
    revisited: int = 0
    view: StreamView | None = None

    def kept(self) -> int:
        """Return the most rows of past tasks that it has to keep at any time.

        Of a task that a later experience rehearses, all of its pool: which of it will be drawn
        is not for the site to know. What a method needs may be rows that are kept anyway.
        """
        last_use = {task: e for e, m in sorted(self.meetings.items()) for task in m.rehearsed}
        sizes = {task: len(rows) for task, rows in self.seen.pools.items()}

        def at(experience: int) -> int:
            met = [t for t, first in self.seen.since.items() if first <= experience]
            rehearsed = sum(sizes[t] for t in met if experience < last_use.get(t, -1))
            last = experience == max(self.meetings)
            newest = 0 if last else min(self.revisited, sizes[self.meetings[experience].task])
            remembered = min(self.memory, sum(sizes[t] for t in met))
            return max(rehearsed, newest, remembered)

        return max(map(at, self.meetings), default=0)


@dataclass(frozen=True)
class StreamPlan:
    """The streams of a plan, by site.

    ``notes`` say what else touches past records, beside the schedule; ``not_followed`` is how
    many sites take part whose streams are not among ``sites``.
    """

    sites: Mapping[int, SiteStream]
    tasks: tuple[str, ...]
    row_bytes: int
    notes: tuple[str, ...] = ()
    not_followed: int = 0

    @property
    def experiences(self) -> int:
        """The number of experiences."""
        return 1 + max((e for site in self.sites.values() for e in site.meetings), default=-1)

    def new_tasks(self) -> np.ndarray:
        """Return (sites, experiences) the task new to each site, ``ABSENT`` where none."""
        found = np.full((len(self.sites), self.experiences), ABSENT, np.int64)
        for place, site in enumerate(self.sites.values()):
            for experience, meeting in site.meetings.items():
                found[place, experience] = meeting.task
        return found

    def rows_kept(self) -> np.ndarray:
        """Return (sites,) the most rows of past tasks that each site has to keep."""
        return np.array([site.kept() for site in self.sites.values()])

    def tables(self) -> tuple[Table, ...]:
        """Return who learns what when, what is rehearsed and touched, and what sites keep."""
        found = (self._orders(), self._touched(), self._kept())
        if not self.not_followed:
            return found
        every = len(self.sites) + self.not_followed
        note = f"of {len(self.sites)} of the {every} sites that take part, those drawn first"
        return tuple(replace(table, notes=(note, *table.notes)) for table in found)

    def _orders(self) -> Table:
        """Sites that meet the tasks in one order share a row."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for site, order in zip(self.sites, self.new_tasks().tolist(), strict=True):
            alike.setdefault(tuple(order), []).append(site)
        rows = [
            (_names(sites), " ".join("·" if task == ABSENT else str(task) for task in order))
            for order, sites in alike.items()
        ]
        notes = (f"{len(rows) - _SHOWN} more orders",) if len(rows) > _SHOWN else ()
        title = "streams: the new task of each experience"
        return Table(title, ("sites", "tasks"), tuple(rows[:_SHOWN]), notes)

    def _touched(self) -> Table:
        rows = []
        for number, name in enumerate(self.tasks):
            counts = [s.touches[number] for s in self.sites.values() if number in s.touches]
            if not counts:
                continue
            every = np.concatenate(counts)
            again = [
                m.rehearsed[number]
                for s in self.sites.values()
                for m in s.meetings.values()
                if number in m.rehearsed
            ]
            pools = [len(c) for c in counts]
            rows.append(
                (
                    f"{number} ({name})",
                    len(counts),
                    round(float(np.mean(pools)), 1),
                    round(sum(again) / len(counts), 1),
                    int(every.min()),
                    round(float(every.mean()), 2),
                    int(every.max()),
                )
            )
        return Table(
            "streams: in how many rounds a record is read",
            ("task", "sites", "rows seen", "rehearsed", "least", "mean", "most"),
            tuple(rows),
            (
                "rows seen and rehearsed are means over sites; rehearsed adds up all experiences",
                *self.notes,
            ),
        )

    def _kept(self) -> Table:
        kept = self.rows_kept()
        columns = ("", "least", "mean", "most")
        rows = (
            ("rows", int(kept.min()), round(float(kept.mean()), 1), int(kept.max())),
            ("kB", *(round(f(kept) * self.row_bytes / 1e3, 1) for f in (np.min, np.mean, np.max))),
        )
        note = (
            f"the most that a site keeps of past tasks to rehearse from; {self.row_bytes} B a row"
        )
        return Table("streams: storage at a site", columns, rows, (note,))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "sites": list(self.sites),
            "sites_not_followed": self.not_followed,
            "new_tasks": self.new_tasks().tolist(),
            "rows_kept": self.rows_kept().tolist(),
            "row_bytes": self.row_bytes,
            "tables": {t.title: [list(row) for row in t.rows] for t in self.tables()},
        }


def walk_streams(
    preview: Preview, task: Any, root: int, most_sites: int | None = None
) -> StreamPlan | None:
    """Follow each site through the streams of a plan; None where there are none.

    ``root`` is the run's seed, ``most_sites`` bounds how many are followed, the first ones.
    Raises what a run would end with: :class:`ConfigError` for a task that comes in no tasks or a
    number out of range, :class:`DataError` and :class:`ScheduleError` for rows that a site has
    not.
    """
    sites: dict[int, SiteStream] = {}
    passed: set[int] = set()
    notes: dict[str, None] = {}
    for plan in preview.rounds:
        for part in plan.parts:
            if part.phase.view.stream is None:
                continue
            check_stream_task(task, part.phase.view.stream.tasks, part.phase.name)
            notes |= dict.fromkeys(_notes(part.phase))
            for site in part.cohort:
                if most_sites is not None and site.index not in sites and len(sites) >= most_sites:
                    passed.add(site.index)
                    continue
                own = sites.setdefault(site.index, SiteStream())
                _remember(own, part.phase)
                try:
                    _meet(own, part.phase.view.stream, site.index, root, task)
                except FedaltError as error:
                    raise type(error)(f"round {plan.round}, '{site.name}': {error}") from error
    if not sites:
        return None
    in_order, bytes_each = dict(sorted(sites.items())), _row_bytes(task, sites)
    return StreamPlan(in_order, tuple(task.tasks), bytes_each, tuple(notes), len(passed))


def check_stream_task(task: Any, numbers: tuple[int, ...], phase: str) -> None:
    """Raise :class:`ConfigError` unless a task has tasks of these numbers."""
    if not comes_in_tasks(task):
        raise ConfigError(
            f"phase '{phase}': the schedule has a stream, but {type(task).__name__} comes in no "
            "tasks; use a StreamTask, or a schedule without 'stream'"
        )
    count = len(task.tasks)
    if max(numbers) >= count:
        raise ConfigError(
            f"phase '{phase}': the stream names task {max(numbers)}, but the task has {count} "
            f"(0 to {count - 1}); lower schedule.stream.tasks or raise task.tasks"
        )


def _remember(own: SiteStream, phase: Phase) -> None:
    """Note what a phase's methods keep of past tasks: a memory, the former task's rows."""
    sizes = [int(phase.params.get(f"{name}_memory", 0) or 0) for name in ("replay", "agem")]
    own.memory = max(own.memory, *sizes)
    if phase.params.get("ewc_lambda"):
        own.revisited = int(phase.params.get("fisher_rows", 0) or 0) or 2**62


def _notes(phase: Phase) -> Iterator[str]:
    """Say which methods of a phase touch records of past tasks that no experience holds."""
    if phase.params.get("ewc_lambda"):
        count = int(phase.params.get("fisher_rows", 0) or 0)
        rows = f"up to {count} rows" if count else "all rows"
        yield f"EWC reads {rows} of a task once more when the next begins: not counted here"
    for name, key in (("experience replay", "replay_memory"), ("A-GEM", "agem_memory")):
        if phase.params.get(key):
            yield (
                f"{name} draws from up to {phase.params[key]} remembered rows in every step: not "
                "counted here"
            )


def _names(sites: list[int]) -> str:
    shown = ", ".join(map(str, sites[:6]))
    return shown if len(sites) <= 6 else f"{shown} and {len(sites) - 6} more"


def _meet(own: SiteStream, stream: StreamView, site: int, root: int, task: Any) -> None:
    # Rounds of one experience hold the same; another stream of the same number is looked at.
    if stream != own.view:
        meeting, own.seen = own.seen.meet(stream, site, root, lambda t: task.task_rows(site, t))
        own.meetings[stream.experience], own.view = meeting, stream
    meeting = own.meetings[stream.experience]
    for number, rows in meeting.rows.items():
        pool = own.seen.pools[number]
        counts = own.touches.setdefault(number, np.zeros(len(pool), np.int32))
        counts[np.searchsorted(pool, rows)] += 1


def _row_bytes(task: Any, sites: Mapping[int, SiteStream]) -> int:
    """Return what a stored row takes: as the task says, or as a batch holds it."""
    known = getattr(task, "row_bytes", None)
    if known is not None:
        return int(known)
    site, own = next(iter(sites.items()))
    number, pool = next(iter(own.seen.pools.items()))
    return sum(part.nbytes for part in task.task_data(site, number, pool[:1]))
