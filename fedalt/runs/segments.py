"""Segments: files that hold the state of many sites, and are never changed once written.

A segment is a safetensors file. Sites whose arrays have the same names, types and shapes are
stacked, so that one site is read by a seek and the file's header stays small however many
sites there are. A reference names a segment and the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save

from fedalt.errors import CheckpointError
from fedalt.runs.files import write_atomic

FORMAT = 1
PATTERN = "states-*.safetensors"
Named = dict[str, np.ndarray]


@dataclass(frozen=True)
class SegmentRef:
    """A segment's file name and the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True)
class _Column:
    """One array of a group: ``shape`` of one site's, ``offset`` in bytes of the first's."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def stride(self) -> int:
        """Bytes of one site's array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, handle: BinaryIO, first: int, count: int) -> np.ndarray:
        """Read the arrays of ``count`` sites, stacked."""
        handle.seek(self.offset + first * self.stride)
        data = handle.read(count * self.stride)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)


@dataclass(frozen=True, eq=False)
class _Group:
    """Sites (k,), ascending, whose arrays look alike."""

    sites: np.ndarray
    columns: tuple[_Column, ...]


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment on disk. A site that is in it without arrays holds none any more."""

    ref: SegmentRef
    path: Path
    nbytes: int
    groups: tuple[_Group, ...]

    def __len__(self) -> int:
        return sum(len(group.sites) for group in self.groups)

    @property
    def sites(self) -> list[int]:
        """The sites whose state it holds, also those that hold no arrays any more."""
        return [site for group in self.groups for site in group.sites.tolist()]

    @cached_property
    def gone(self) -> frozenset[int]:
        """The sites that hold no arrays any more."""
        return frozenset(int(s) for group in self.groups if not group.columns for s in group.sites)

    def read(self, site: int) -> Named:
        """Read one site's arrays; raises :class:`KeyError` for a site that is not in it."""
        for group in self.groups:
            row = int(np.searchsorted(group.sites, site))
            if row < len(group.sites) and group.sites[row] == site:
                with self.path.open("rb") as handle:
                    return {c.name: c.rows(handle, row, 1)[0] for c in group.columns}
        raise KeyError(site)

    def read_all(self) -> dict[int, Named]:
        """Read every site's arrays, as views of the stacks."""
        found: dict[int, Named] = {}
        with self.path.open("rb") as handle:
            for group in self.groups:
                count = len(group.sites)
                stacks = {c.name: c.rows(handle, 0, count) for c in group.columns}
                for row, site in enumerate(group.sites):
                    found[int(site)] = {name: stack[row] for name, stack in stacks.items()}
        return found


def write_segment(folder: Path, serial: int, states: Mapping[int, Mapping[str, Any]]) -> Segment:
    """Write the arrays of sites, flushed to disk; ``serial`` goes up from segment to segment."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for site in sorted(states):
        look = tuple((name, v.dtype.str, v.shape) for name, v in states[site].items())
        alike.setdefault(look, []).append(site)
    tensors: Named = {}
    for g, (look, sites) in enumerate(alike.items()):
        tensors[f"{g}"] = np.array(sites, np.int64)
        for i, (name, _, _) in enumerate(look):
            tensors[f"{g}|{i}"] = np.stack([states[site][name] for site in sites])
    header = {"format": str(FORMAT), "groups": json.dumps([list(look) for look in alike])}
    data = save(tensors, metadata=header)
    digest = hashlib.sha256(data).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"states-{serial:08d}-{digest[:12]}.safetensors"
    write_atomic(path, data)
    return _open(path, SegmentRef(path.name, digest))


def open_segment(folder: Path, ref: SegmentRef) -> Segment:
    """Open a segment that a checkpoint refers to.

    Raises :class:`CheckpointError` if it is missing, or is not what was written.
    """
    path = folder / ref.name
    try:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if digest != ref.sha256:
            raise CheckpointError(f"segment {path} is damaged: its checksum does not match")
        return _open(path, ref)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"segment {path} cannot be read: {error}") from error


def _open(path: Path, ref: SegmentRef) -> Segment:
    with path.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
        looks = json.loads(header["__metadata__"]["groups"])

        def start(key: str) -> int:
            return int(8 + size + header[key]["data_offsets"][0])

        groups = []
        for g, look in enumerate(looks):
            handle.seek(start(f"{g}"))
            data = handle.read(8 * header[f"{g}"]["shape"][0])
            columns = tuple(
                _Column(name, np.dtype(dtype), tuple(shape), start(f"{g}|{i}"))
                for i, (name, dtype, shape) in enumerate(look)
            )
            groups.append(_Group(np.frombuffer(data, np.int64), columns))
    return Segment(ref, path, path.stat().st_size, tuple(groups))
