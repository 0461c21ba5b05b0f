"""Worker processes that carry out runs, and end with this process however it ends.

Not concurrent.futures: its workers cannot be told to stop in mid-run, and they outlive a parent
that was killed. Here a worker holds one end of a pipe: a run that is stopped writes its status
and can be resumed, and a pipe that breaks ends either side.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from fedalt.claims.jobs import Job, LatestTask, carry_out
from fedalt.claims.measures import Measured
from fedalt.errors import FedaltError
from fedalt.runs.events import Event, Sink


class Pool:
    """So many processes; each takes the next run when it is done with one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._workers: dict[Connection, SpawnProcess] = {}
        self._busy: dict[Connection, tuple[Job, Sink]] = {}

    def __enter__(self) -> Pool:
        for _ in range(self._size):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in self._workers.items():
            if pipe in self._busy:
                # Its run is marked as stopped; one that idles ends with its pipe.
                process.terminate()
            pipe.close()
        for process in self._workers.values():
            process.join()

    def run(
        self, jobs: Sequence[Job], watch: Callable[[Job], Sink]
    ) -> Iterator[tuple[Job, Measured | Exception]]:
        """Yield each run with what was measured or what went wrong, as they end."""
        waiting = list(reversed(jobs))
        while waiting or self._busy:
            for pipe in [p for p in self._workers if p not in self._busy]:
                if waiting:
                    job = waiting.pop()
                    self._busy[pipe] = (job, watch(job))
                    # A pipe that is broken already is told as such when it is read.
                    with contextlib.suppress(OSError):
                        pipe.send(job)
            for ready in wait(list(self._busy)):
                assert isinstance(ready, Connection)
                job, sink = self._busy[ready]
                outcome = self._hear(ready, sink)
                if outcome is not None:
                    yield job, outcome

    def _hear(self, pipe: Connection, sink: Sink) -> Measured | Exception | None:
        """Take one message; return a run's outcome, or None while it goes on."""
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            return self._lost(pipe)
        if kind == "event":
            sink(content)
            return None
        job, _ = self._busy.pop(pipe)
        if kind == "done":
            measured: Measured = content
            return measured
        error: FedaltError = content[0]
        if content[1]:
            error.add_note(f"its run lies in {job.folder}\n{content[1]}")
        return error

    def _lost(self, pipe: Connection) -> FedaltError:
        """Replace a process that died in mid-run, such as one killed for memory."""
        job, _ = self._busy.pop(pipe)
        process = self._workers.pop(pipe)
        process.join()
        pipe.close()
        self._start()
        return FedaltError(
            f"{job.label}: its process ended with code {process.exitcode} "
            "(-9: killed, as for want of memory; fewer --jobs need less)"
        )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,))
        with _deaf():
            process.start()
        theirs.close()
        self._workers[ours] = process


def serve(pipe: Connection) -> None:
    """Carry out the runs that come through a pipe until it ends."""
    # Ctrl-C reaches every process of a terminal, but the one that began them says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    tasks = LatestTask()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        while True:
            pipe.send(_outcome(pipe.recv(), tasks, pipe))


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, not even while they import what they need."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _outcome(job: Job, tasks: LatestTask, pipe: Connection) -> tuple[str, Any]:
    def tell(event: Event) -> None:
        pipe.send(("event", dict(event)))

    try:
        return "done", carry_out(job, tasks, [tell])
    except FedaltError as error:
        return "failed", (type(error)(str(error)), "")
    except Exception as error:
        # An error of any class may not survive pickling; its words and its trace do.
        found = FedaltError(f"{job.label}: {type(error).__name__}: {error}")
        return "failed", (found, traceback.format_exc().rstrip())


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
