"""Carrying out a claim's runs, here or in worker processes; what fails leaves the others be.

Each run's randomness comes from its own seed, so how many processes share the work, and in
which order it is done, changes no number; only ``engine.mode=auto``, which chooses by time, may
round otherwise from run to run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedalt.claims.jobs import Job, LatestTask, carry_out
from fedalt.claims.measures import Measured
from fedalt.claims.pool import Pool
from fedalt.runs.events import Sink

Watch = Callable[[Job], Sink]
"""Called when a run begins; the sink hears its events."""
Finish = Callable[[Job, Measured], None]
"""Called when a run was measured; what it raises ends everything."""

Results = Generator[tuple[Job, Measured | Exception], None, None]


@dataclass(frozen=True)
class Failed:
    """A run that ended with an error."""

    job: Job
    error: Exception


def run_jobs(jobs: Sequence[Job], workers: int, watch: Watch, finish: Finish) -> list[Failed]:
    """Carry out runs, ``workers`` at a time, and return those that failed."""
    failed = []
    results = _here(jobs, watch) if workers == 1 or len(jobs) < 2 else _shared(jobs, workers, watch)
    # Closed at once where ``finish`` raises: worker processes must not outlive it.
    with contextlib.closing(results):
        for job, outcome in results:
            if isinstance(outcome, Exception):
                failed.append(Failed(job, outcome))
            else:
                finish(job, outcome)
    return failed


def raise_first(failed: Sequence[Failed], of: int) -> None:
    """Raise the first error with a note on the others and on what is kept; none is no error."""
    if not failed:
        return
    error = failed[0].error
    for other in failed[1:]:
        error.add_note(f"failed too: {other.job.label}: {_first_line(other.error)}")
    error.add_note(
        f"{of - len(failed)} of {of} runs are done and kept; once the cause is mended, "
        "repeat the command"
    )
    raise error


def collected(
    jobs: Sequence[Job], done: Mapping[Path, Measured], arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[Measured]]:
    """Return each arm's measures in the order of the seeds."""
    found = {pair: done[job.folder] for job in jobs for pair in job.stands_for}
    return {arm: [found[arm, seed] for seed in seeds] for arm in arms}


def _here(jobs: Sequence[Job], watch: Watch) -> Results:
    tasks = LatestTask()
    for job in jobs:
        try:
            outcome: Measured | Exception = carry_out(job, tasks, [watch(job)])
        except Exception as error:
            outcome = error
        yield job, outcome


def _shared(jobs: Sequence[Job], workers: int, watch: Watch) -> Results:
    with Pool(min(workers, len(jobs))) as pool:
        yield from pool.run(jobs, watch)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
