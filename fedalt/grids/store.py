"""The persistent arrays of the clients that hold any, most of them on disk if need be.

What a kernel leaves at a site is kept here between rounds. Past a limit the states used least
recently leave memory: first written to a segment, if no segment has them as they are now. The
same segments are what a commit refers to, so that a state is written once, not once a commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.runs.segments import Named, SegmentRef
from fedalt.runs.states import SegmentedStates

MIB = 2**20


class StateStore:
    """Site index to persistent arrays, of touched sites alone.

    Parameters
    ----------
    folder
        Where segments are written; None keeps everything in memory, and the limit aside.
    limit
        Bytes of arrays that stay in memory. One cohort's own states come on top while it works.
    """

    def __init__(self, folder: Path | None = None, limit: int = 512 * MIB) -> None:
        self._folder = folder
        self._limit = limit
        # In order of use, the least recent first.
        self._resident: dict[int, Named] = {}
        self._sizes: dict[int, int] = {}
        self._resident_bytes = 0
        self._changed: set[int] = set()
        self._disk = SegmentedStates(folder) if folder is not None else None

    @property
    def resident_bytes(self) -> int:
        """Bytes of the arrays in memory."""
        return self._resident_bytes

    def sites(self) -> list[int]:
        """Return the sites that hold arrays, ascending."""
        here = {site for site, arrays in self._resident.items() if arrays}
        away = {s for s in self._disk or () if s not in self._changed}
        return sorted(here | away)

    def get(self, site: int) -> Named:
        """Return a site's arrays, read-only; empty if it holds none."""
        if site in self._resident:
            arrays = self._resident.pop(site)
            self._resident[site] = arrays
            return arrays
        if self._disk is None or site not in self._disk:
            return {}
        arrays = self._disk[site]
        self._keep(site, arrays)
        return arrays

    def put(self, site: int, arrays: Named) -> None:
        """Replace a site's arrays; none at all leaves none behind. They are given away."""
        if not arrays and site not in self._resident and site not in (self._disk or ()):
            return
        self._keep(site, {name: _alone(values) for name, values in arrays.items()})
        self._changed.add(site)

    def replace(self, states: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Take over the states of a snapshot in place of all there are.

        Those that lie in segments of this store's own folder stay there.
        """
        self._resident, self._sizes, self._resident_bytes, self._changed = {}, {}, 0, set()
        if isinstance(states, SegmentedStates) and states.folder == self._folder:
            self._disk = states
            return
        self._disk = SegmentedStates(self._folder) if self._folder is not None else None
        for site, arrays in states.items():
            self.put(site, dict(arrays))

    def trim(self) -> None:
        """Bring what is in memory beneath the limit, the least recently used first."""
        if self._disk is None or self._resident_bytes <= self._limit:
            return
        # Some slack, or every cohort that follows would write a segment of its own.
        leaving, remaining = [], self._resident_bytes
        for site in self._resident:
            if remaining <= 0.75 * self._limit:
                break
            leaving.append(site)
            remaining -= self._sizes[site]
        self._write([site for site in leaving if site in self._changed])
        for site in leaving:
            del self._resident[site]
            self._resident_bytes -= self._sizes.pop(site)

    def save(self) -> tuple[SegmentRef, ...] | None:
        """Write what changed and return the segments that hold every state; None without folder.

        Raises :class:`OSError` if the disk is full; nothing is lost.
        """
        if self._disk is None:
            return None
        self._write(sorted(self._changed))
        self._disk.tidy()
        self._disk.committed()
        return self._disk.refs

    def _write(self, sites: list[int]) -> None:
        if self._disk is not None and sites:
            self._disk.add({site: self._resident[site] for site in sites})
            self._changed.difference_update(sites)

    def _keep(self, site: int, arrays: Named) -> None:
        self._resident.pop(site, None)
        self._resident_bytes -= self._sizes.get(site, 0)
        self._sizes[site] = sum(values.nbytes for values in arrays.values())
        self._resident_bytes += self._sizes[site]
        self._resident[site] = arrays


def _alone(values: np.ndarray) -> np.ndarray:
    """Return an array that keeps no more than itself alive, as a row of a cohort's stack would."""
    owner: Any = values
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    storage = getattr(owner, "untyped_storage", None)
    held = storage().nbytes() if storage is not None else getattr(owner, "nbytes", values.nbytes)
    if held <= values.nbytes:
        return values
    copy = values.copy()
    copy.flags.writeable = False
    return copy
