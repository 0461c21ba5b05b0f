"""The state of a run's sites on disk: a few segments, the newest word on each site counts.

Segments are added, never changed. Those that are mostly out of date, and small ones once
there are many of a size, are written together into a new one, so that what a commit writes
follows from what changed, and the files stay within about twice what is alive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fedalt.runs.segments import Named, Segment, SegmentRef, open_segment, write_segment

LARGEST = 32 * 2**20
"""Bytes beyond which segments are not joined any more."""
FANOUT = 8
"""So many segments of one order of size become one."""


class SegmentedStates(Mapping[int, Named]):
    """Site index → arrays, read from disk when asked for; sites without arrays are left out."""

    def __init__(self, folder: Path, segments: Iterable[Segment] = ()) -> None:
        self.folder = folder
        self._segments: dict[str, Segment] = {}
        self._live: dict[str, int] = {}
        self._home: dict[int, str] = {}
        self._serial = 0
        # Written since the last commit: no checkpoint refers to these yet.
        self._young: set[str] = set()
        for segment in segments:
            self._enter(segment)

    @classmethod
    def open(cls, folder: Path, refs: Iterable[SegmentRef]) -> SegmentedStates:
        """Open what a checkpoint refers to; raises :class:`CheckpointError` if one is damaged."""
        return cls(folder, [open_segment(folder, ref) for ref in refs])

    def __getitem__(self, site: int) -> Named:
        arrays = self._segments[self._home[site]].read(site)
        if not arrays:
            raise KeyError(site)
        return arrays

    def __contains__(self, site: object) -> bool:
        home = self._home.get(site)  # type: ignore[call-overload]
        return home is not None and site not in self._segments[home].gone

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(site for site in self._home if site in self))

    def __len__(self) -> int:
        return sum(site in self for site in self._home)

    @property
    def refs(self) -> tuple[SegmentRef, ...]:
        """The segments that hold a site's newest state, oldest first: later ones prevail."""
        return tuple(segment.ref for segment in self._segments.values())

    def add(self, states: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Write the new states of some sites, flushed to disk; no arrays: the site has none."""
        part: dict[int, Mapping[str, np.ndarray]] = {}
        size = 0
        for site, arrays in states.items():
            part[site] = arrays
            size += sum(values.nbytes for values in arrays.values())
            if size > LARGEST:
                self._write(part)
                part, size = {}, 0
        if part:
            self._write(part)

    def tidy(self) -> None:
        """Write together what is mostly out of date, and small segments where there are many."""
        for together in self._untidy():
            alive: dict[int, Mapping[str, np.ndarray]] = {}
            for segment in together:
                name = segment.ref.name
                alive |= {s: a for s, a in segment.read_all().items() if self._home[s] == name}
            self.add(alive)

    def committed(self) -> None:
        """Note that a checkpoint refers to all of it."""
        self._young.clear()

    def _write(self, states: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        segment = write_segment(self.folder, self._serial + 1, states)
        self._young.add(segment.ref.name)
        self._enter(segment)

    def _enter(self, segment: Segment) -> None:
        name = segment.ref.name
        self._serial = max(self._serial, int(name.split("-")[1]))
        self._segments[name], self._live[name] = segment, 0
        for site in segment.sites:
            former = self._home.get(site)
            if former is not None:
                self._live[former] -= 1
                if not self._live[former]:
                    self._drop(former)
            self._home[site] = name
            self._live[name] += 1

    def _drop(self, name: str) -> None:
        segment = self._segments.pop(name)
        del self._live[name]
        if name in self._young:
            self._young.discard(name)
            segment.path.unlink(missing_ok=True)

    def _untidy(self) -> list[list[Segment]]:
        """Return groups of segments to write together, each group of moderate size."""
        worn: list[Segment] = []
        small: dict[int, list[Segment]] = {}
        for name, segment in self._segments.items():
            if 2 * self._live[name] < len(segment):
                worn.append(segment)
            elif segment.nbytes < LARGEST / FANOUT:
                order = int(math.log(max(segment.nbytes, 1), FANOUT))
                small.setdefault(order, []).append(segment)
        chosen = worn + [s for alike in small.values() if len(alike) >= FANOUT for s in alike]
        groups: list[list[Segment]] = []
        size = LARGEST
        for segment in chosen:
            if size + segment.nbytes > LARGEST:
                groups.append([])
                size = 0
            groups[-1].append(segment)
            size += segment.nbytes
        # One segment that is not worn gains nothing from being written again.
        return [group for group in groups if len(group) > 1 or group[0] in worn]
