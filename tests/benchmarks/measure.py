"""What a run cost: processor time, wall time and memory of a process and all it started.

Steady state is what a client-round costs after the first rounds; the rest is start-up. Every
engine tells the meter when a round has ended. The first rounds (three of twenty) count as
start-up for all, since some engines compile or probe in them:

    steady  = (cost between the end of the last warm-up round and the end of the last round)
              / client-rounds in between
    startup = everything until the engine returned − reading the data − steady · client-rounds

so start-up holds imports, building, compiling, probing, and closing down. Processor time of
other processes is read from /proc, in ticks of 10 ms; where there is no /proc (not Linux),
only the process itself and children that have ended count.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time and of wall time."""

    cpu: float
    wall: float

    def __sub__(self, other: Cost) -> Cost:
        """Return what was spent since ``other``."""
        return Cost(self.cpu - other.cpu, self.wall - other.wall)

    def __add__(self, other: Cost) -> Cost:
        """Return both together."""
        return Cost(self.cpu + other.cpu, self.wall + other.wall)


class Meter:
    """Keeps the time of one engine's run; made first of all, before the engine is imported."""

    def __init__(self) -> None:
        self._begun = Cost(0.0, time.perf_counter() - _process_age())
        self._data = Cost(0.0, 0.0)
        self._rounds: list[Cost] = []
        self._end: Cost | None = None
        self._looking = Cost(0.0, 0.0)
        self._peak = 0.0

    @contextmanager
    def reading_data(self) -> Iterator[None]:
        """Leave out what happens inside: reading the data is the same for every engine."""
        start = _now()
        yield
        self._data = _now() - start

    def round(self) -> None:
        """Note the end of a round."""
        self._rounds.append(self._mark())

    def finish(self) -> None:
        """Note that the engine has returned."""
        end = self._mark()
        # Processes that ended without being waited for (Ray's) take their time with them.
        self._end = Cost(max(end.cpu, self._rounds[-1].cpu), end.wall)

    def _mark(self) -> Cost:
        """Return the time now, less what looking at memory took (some ms a process)."""
        now = _now()
        mark = now - self._looking
        self._peak = max(self._peak, _memory())
        self._looking = self._looking + (_now() - now)
        return mark

    def tell(
        self, engine: str, work: str, cohort: int, accuracy: float | None, **facts: Any
    ) -> None:
        """Print the run as one line of JSON."""
        assert self._end is not None
        count = len(self._rounds)
        warm = warm_up(count)
        spent = self._rounds[-1] - self._rounds[warm - 1]
        clients = (count - warm) * cohort
        rest = self._end - self._begun - self._data
        line = {
            "engine": engine,
            "work": work,
            "cpu_ms_per_client_round": 1000 * spent.cpu / clients,
            "wall_ms_per_client_round": 1000 * spent.wall / clients,
            "startup_cpu_s": rest.cpu - spent.cpu * count / (count - warm),
            "startup_wall_s": rest.wall - spent.wall * count / (count - warm),
            "peak_mb": self._peak,
            "accuracy": accuracy,
            "rounds": count,
            "warm_up_rounds": warm,
            "versions": versions(),
            **facts,
        }
        print(json.dumps(line), flush=True)


def warm_up(rounds: int) -> int:
    """Return how many of the first rounds count as start-up: a third, at most three."""
    if rounds < 2:
        raise ValueError(f"{rounds} round leaves nothing to measure: ask for at least 2")
    return max(1, min(3, rounds // 3))


def versions() -> dict[str, str]:
    """Return the versions of Python and of what was imported and counts."""
    found = {"python": platform.python_version()}
    for name in (
        "numpy",
        "torch",
        "jax",
        "flwr",
        "ray",
        "pfl",
        "fedjax",
        "avalanche-lib",
        "fedalt",
    ):
        if name.removesuffix("-lib") in sys.modules:
            from importlib.metadata import PackageNotFoundError, version

            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def _now() -> Cost:
    ended = os.times()
    cpu = time.process_time() + ended.children_user + ended.children_system
    for pid in _descendants(os.getpid()):
        with suppress(OSError):
            # After the name, which may hold anything: utime, stime, cutime, cstime.
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(int(value) for value in stat[11:15]) / TICK
    return Cost(cpu, time.perf_counter())


def _descendants(pid: int) -> list[int]:
    """Return the living processes that a process started, directly or not."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found + [grandchild for child in found for grandchild in _descendants(child)]


def _memory() -> float:
    """Return this process's peak and its descendants' present share of memory, in MB.

    A descendant counts with what Linux calls its proportional set: pages that several share
    are divided among them.
    """
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for pid in _descendants(os.getpid()):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(s for s in lines if s.startswith("Pss:")).split()[1]) / 1024
    return total


def _process_age() -> float:
    """Return how long this process has run, in seconds of wall time; 0 where unknown."""
    try:
        begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / TICK
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begun
    except (OSError, AttributeError):
        return 0.0
