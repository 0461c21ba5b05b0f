"""Which data a task's settings come to, so that runs of other data are other runs.

A task is built and its rows are read for that only where files changed since they were last:
a listing of the data folders (names, sizes, times) tells, and costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.build import TaskCache
from fedalt.data.folder import data_folder
from fedalt.errors import DataError
from fedalt.hashing import canonical_json, json_hash
from fedalt.runs.files import write_json
from fedalt.seeds import Seeds
from fedalt.task import Task

FILE = "data.json"
MOST_FILES = 20_000
"""So many files of a folder are listed, those that lie least deep."""
_SITES = 64
"""So many sites are read, from the first to the last: more would be slow where data are drawn."""


class DataIdentity:
    """A task's settings to a digest of its rows; remembered in a folder by the files' listing."""

    def __init__(self, folder: Path, told: Callable[[str], None] = lambda text: None) -> None:
        self._file = folder / FILE
        self._told = told
        self._known: dict[str, dict[str, str]] = _read(self._file)
        self._found: dict[str, str | None] = {}
        self._reads = 0

    def __call__(self, spec: Mapping[str, Any]) -> str | None:
        """Return the digest; None where the task cannot be built, which its run will say."""
        key = json_hash(spec)
        if key not in self._found:
            try:
                self._found[key] = self._identity(key, spec)
            except Exception:
                # Settings are checked before any run, where an error names its place.
                self._found[key] = None
        return self._found[key]

    def save(self) -> None:
        """Write what was found out; the folder is there."""
        write_json(self._file, self._known)

    def _identity(self, key: str, spec: Mapping[str, Any]) -> str:
        listing = _listing(spec)
        known = self._known.get(key, {})
        if known.get("listing") != listing:
            if not self._reads:
                self._told("reading which data there are")
            self._reads += 1
            digest = rows_digest(TaskCache()(spec))
            self._known[key] = known = {"listing": listing, "identity": digest}
        return known["identity"]


def rows_digest(task: Task) -> str:
    """Return 16 hex digits of what a task's sites hold, and of what the server judges by.

    Test rows are seen through the untrained model's metrics, to five digits.
    """
    digest = hashlib.sha256()
    sizes = [site.size for site in task.sites]
    judged = task.evaluate(task.initial_arrays(Seeds(0)))
    told = {name: f"{value:.4e}" for name, value in judged.items()}
    digest.update(canonical_json([sizes, told]).encode())
    for site in np.unique(np.linspace(0, len(sizes) - 1, _SITES).round().astype(int)).tolist():
        for part in (*_parts(task.site_data(site)), *_parts(_held_out(task, site))):
            digest.update(part)
    return digest.hexdigest()[:16]


def _held_out(task: Any, site: int) -> Any:
    """Return the rows that a site is judged by; None where it has none."""
    try:
        return task.site_eval_data(site)
    except (AttributeError, DataError):
        return None


def _parts(data: Any) -> Iterator[bytes]:
    """Return the bytes of what a kernel reads: arrays and tensors, in whatever holds them."""
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        # numpy has no bfloat16.
        data = (data.float() if data.is_floating_point() else data).numpy()
    if isinstance(data, np.ndarray):
        yield canonical_json([str(data.dtype), list(data.shape)]).encode()
        yield np.ascontiguousarray(data).tobytes()
    elif isinstance(data, Mapping):
        for name, part in data.items():
            yield str(name).encode()
            yield from _parts(part)
    elif isinstance(data, list | tuple):
        for part in data:
            yield from _parts(part)
    elif is_dataclass(data):
        for item in fields(data):
            yield from _parts(getattr(data, item.name))
    elif isinstance(data, str | int | float | bool | None):
        yield repr(data).encode()
    else:
        yield type(data).__name__.encode()


def _listing(spec: Mapping[str, Any]) -> str:
    """Return a hash of the files in the data folders and in whatever the settings name."""
    named = [Path(v).expanduser() for v in _texts(spec) if len(v) < 1000 and "\0" not in v]
    places = [*data_folder(spec.get("root")).places, *(path for path in named if path.exists())]
    return json_hash([[str(place), *_files(place)] for place in places])


def _texts(data: Any) -> Iterable[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for part in data.values():
            yield from _texts(part)
    elif isinstance(data, list | tuple):
        for part in data:
            yield from _texts(part)


def _files(place: Path) -> list[tuple[str, int, int]]:
    """Return paths, sizes and times of the files in a folder, those least deep first."""
    if place.is_file():
        facts = place.stat()
        return [(str(place), facts.st_size, facts.st_mtime_ns)]
    found, folders, seen = list[tuple[str, int, int]](), [str(place)], set[str]()
    for folder in folders:
        # A link may lead back up.
        real = os.path.realpath(folder)
        if real in seen or not Path(folder).is_dir():
            continue
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            if entry.is_dir():
                folders.append(entry.path)
            elif entry.is_file():
                facts = entry.stat()
                found.append((entry.path, facts.st_size, facts.st_mtime_ns))
            if len(found) == MOST_FILES:
                return found
    return found


def _read(file: Path) -> dict[str, dict[str, str]]:
    """Read what was remembered; what is damaged is found out anew."""
    try:
        data = json.loads(file.read_text())
        return {
            str(key): {k: str(each[k]) for k in ("listing", "identity")}
            for key, each in data.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}
