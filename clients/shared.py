"""Memory that processes share: arrays written by one are read by the other, without a copy.

A region is an anonymous file in memory (``memfd``) that forked processes inherit. It has no
name, so that nothing can be left behind, and it goes when the last process has gone.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_ALIGN = 64
Named = Mapping[str, np.ndarray]
Layout = list[list[Any]]
"""For each array: its name, dtype, shape and where in the region it begins."""


class Region:
    """Shared memory that grows as it is needed. One process writes at a time."""

    def __init__(self) -> None:
        self._file = os.memfd_create("fedalt", os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None
        self._size = 0

    def reserve(self, layout: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> Layout:
        """Lay arrays out one after the other, and make room for them."""
        placed: Layout = []
        end = 0
        for name, dtype, shape in layout:
            placed.append([name, dtype.str, list(shape), end])
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            end += -(-size // _ALIGN) * _ALIGN
        if end > os.fstat(self._file).st_size:
            os.ftruncate(self._file, -(-end // mmap.PAGESIZE) * mmap.PAGESIZE)
        return placed

    def arrays(self, placed: Layout) -> list[np.ndarray]:
        """Return the arrays of a layout: they are the region's memory, and change with it."""
        return [
            np.ndarray(tuple(shape), np.dtype(dtype), self._memory(), start)
            for _, dtype, shape, start in placed
        ]

    def write(self, arrays: Named) -> Layout:
        """Copy arrays in from the region's beginning."""
        placed = self.reserve((name, a.dtype, a.shape) for name, a in arrays.items())
        for target, source in zip(self.arrays(placed), arrays.values(), strict=True):
            target[...] = source
        return placed

    def close(self) -> None:
        """Give the region up; arrays that still look at it keep its memory."""
        self._map = None
        os.close(self._file)

    def _memory(self) -> Any:
        size = os.fstat(self._file).st_size
        if self._map is None or self._size < size:
            # Arrays made before keep the former mapping of the same memory.
            self._map, self._size = mmap.mmap(self._file, size) if size else mmap.mmap(-1, 1), size
        return self._map


def by_name(placed: Layout, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Pair a layout's names with its arrays."""
    return {entry[0]: values for entry, values in zip(placed, arrays, strict=True)}
