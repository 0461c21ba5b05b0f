"""The runs that a claim needs, each in a folder named by the hash of what makes it.

Arms that come to the same configuration share one run, also across claims and sessions: what
was run once is read, and what was begun is gone on with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedalt import __version__
from fedalt.build import TaskCache
from fedalt.claims.claim import Claim
from fedalt.claims.measures import Measured, measure_run, store, stored, version_of
from fedalt.data.folder import ENV_ROOT
from fedalt.errors import ConfigError, FedaltError
from fedalt.hashing import canonical_json, json_hash
from fedalt.runs.events import Sink
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import finished
from fedalt.task import Task

TOLD_ONLY = (
    *("name", "summary", "claim", "variants", "compare", "compared", "report", "watch"),
    *("progress", "profile", "tensorboard", "out"),
)
"""Settings that no weight depends on."""

STRIPPED: Mapping[str, Any] = {"claim": {}, "variants": {}, "compared": {}}
"""What an arm's own run has no use for."""

Resolve = Callable[[Sequence[str]], Mapping[str, Any]]
"""Overrides to a scenario's resolved configuration."""
Identify = Callable[[Mapping[str, Any]], str | None]
"""A task's settings to what tells its data from other data; None: not known."""


@dataclass(frozen=True)
class Job:
    """One run: its configuration, its folder, and the (arm, seed) that it stands for."""

    folder: Path
    config: Mapping[str, Any]
    measure: str | None
    stands_for: tuple[tuple[str, int], ...] = field(default=())

    @property
    def label(self) -> str:
        """The first arm and seed that need it."""
        arm, seed = self.stands_for[0]
        return f"arm '{arm}', seed {seed}"

    def measured(self) -> Measured | None:
        """What is stored of it, or None if it is still to be run or measured."""
        return stored(self.folder, version_of(self.measure))


def plan_jobs(
    claim: Claim,
    resolve: Resolve,
    overrides: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    root: Path,
    identify: Identify = lambda spec: None,
) -> list[Job]:
    """Return the runs of all arms under all seeds, runs of one task side by side.

    Raises :class:`ConfigError` naming the arm whose overrides do not fit.
    """
    jobs: dict[str, Job] = {}
    for seed in seeds:
        for arm in arms:
            changes = [*claim.base, *overrides, *claim.arms[arm], "compare=[]", "report=null"]
            try:
                config = {**resolve([*changes, f"seed={seed}"]), **STRIPPED}
            except ConfigError as error:
                raise type(error)(f"arm '{arm}': {error}") from error
            key = run_hash(config, identify(config["task"]))
            known = jobs.get(key)
            also = known.stands_for if known is not None else ()
            jobs[key] = Job(root / key, config, claim.measure, (*also, (arm, seed)))
    # A stable sort: all arms of the first seed come first, and a task is loaded once for them.
    order = {t: i for i, t in enumerate(dict.fromkeys(map(_task_of, jobs.values())))}
    return sorted(jobs.values(), key=lambda job: order[_task_of(job)])


def run_hash(config: Mapping[str, Any], data: str | None = None) -> str:
    """Return 16 hex digits of what a run's weights depend on: settings, version, data.

    Of the data their folder counts, and ``data``, which tells them from others in its place.
    """
    settings = {key: value for key, value in config.items() if key not in TOLD_ONLY}
    root = os.environ.get(ENV_ROOT)
    place = str(Path(root).expanduser().resolve()) if root else None
    known = {"settings": settings, "fedalt": __version__, "data": place, "rows": data}
    return json_hash(known)[:16]


def carry_out(job: Job, tasks: TaskCache, sinks: Sequence[Sink] = ()) -> Measured:
    """Bring a run to its end from where it stands, measure it, and store what was measured.

    Raises the run's own error, with the arm and the seed in its message.
    """
    # Imported late: what is done already is told again without torch and Flower.
    from fedalt.runs.simulate import simulate

    try:
        folder = RunFolder(job.folder)
        if not (folder.path / "config.json").exists():
            folder.create(job.config)
        if folder.result() is None:
            simulate(job.config, folder, tasks, sinks)
        run = finished(folder, job.stands_for[0][0])
        measured = measure_run(job.measure, tasks(job.config["task"]), run)
        store(folder.path, version_of(job.measure), measured)
    except FedaltError as error:
        raise type(error)(f"{job.label}: {error}") from error
    except Exception as error:
        error.add_note(f"in {job.label}, whose run lies in {job.folder}")
        raise
    return measured


class LatestTask(TaskCache):
    """Keeps the task asked for last: seeds and arms may have data of their own each."""

    def __call__(self, spec: Mapping[str, Any]) -> Task:
        """Return the task of a spec."""
        if canonical_json(spec) not in self._tasks:
            self._tasks.clear()
        return super().__call__(spec)


def _task_of(job: Job) -> str:
    return canonical_json(job.config["task"])
