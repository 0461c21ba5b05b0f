"""Prepared cases kept on disk and mapped into memory, so that a volume is prepared once.

An entry is a folder of .npy arrays and ``entry.json``. It is written beside its place and
renamed into it, so that a crash leaves no half of one, under a lock, so that processes that
want the same case wait for the one that makes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.data.folder import cache_folder
from fedalt.errors import DataError
from fedalt.hashing import json_hash
from fedalt.medical.prepare import Preparation, Prepared, prepare
from fedalt.medical.site_table import Case

# Raise it whenever prepare gives other values than before.
VERSION = 1
ARRAYS = ("image", "label", "foreground")
ENTRY = "entry.json"


def cached(case: Case, preparation: Preparation, folder: str | Path | None = None) -> Prepared:
    """Return a prepared case from ``folder``, where it is put at the first time it is asked for.

    The folder defaults to ``volumes`` in fedalt's cache. An entry is found by the paths, sizes
    and times of the case's files, its label map, the preparation and the format's version; one
    that is not whole is made anew. Raises what :func:`prepare` raises, and :class:`DataError`
    for a folder that cannot be written to.
    """
    folder = cache_folder() / "volumes" if folder is None else Path(folder)
    key = entry_key(case, preparation)
    place = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', case.name)}-{key[:20]}"
    found = _load(place, key, case)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{place.name}.lock"):
            found = _load(place, key, case)
            if found is None:
                _write(place, prepare(case, preparation), key)
                found = _load(place, key, case)
    except OSError as error:
        raise DataError(
            f"the cache of volumes '{folder}' cannot be written to ({error}); free some space "
            "there or name another folder"
        ) from error
    if found is None:
        raise DataError(f"the entry '{place}' cannot be read back right after it was written")
    return found


def entry_key(case: Case, preparation: Preparation) -> str:
    """Return the hash that says whether an entry is of these files, prepared in this way."""
    return json_hash(
        {
            "version": VERSION,
            "image": _stamp(case.image),
            "label": _stamp(case.label),
            "modality": case.modality,
            "ids": {str(number): name for number, name in case.ids.items()},
            "preparation": asdict(preparation),
        }
    )


def _stamp(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); check the file") from error
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _load(place: Path, key: str, case: Case) -> Prepared | None:
    """Return an entry with its arrays as memory maps, or None if it is not there, whole."""
    try:
        entry = json.loads((place / ENTRY).read_bytes())
        if entry["key"] != key:
            return None
        arrays = {name: _mapped(place / f"{name}.npy", entry["arrays"][name]) for name in ARRAYS}
        return Prepared(
            name=case.name,
            site=case.site,
            modality=case.modality,
            known=np.array(entry["known"], bool),
            spacing=np.array(entry["spacing"]),
            affine=np.array(entry["affine"]),
            ends=np.array(entry["ends"], np.int64),
            **arrays,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _mapped(path: Path, stated: list[Any]) -> np.ndarray:
    array = np.load(path, mmap_mode="r")
    if [str(array.dtype), list(array.shape)] != stated:
        raise ValueError(f"'{path}' is {array.dtype} {array.shape}, and was {stated}")
    values: np.ndarray = array
    return values


def _write(place: Path, prepared: Prepared, key: str) -> None:
    """Write an entry and put it in the place of what is there; call it holding the lock."""
    for leftover in place.parent.glob(f".{place.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    try:
        for name in ARRAYS:
            with (temporary / f"{name}.npy").open("wb") as handle:
                np.save(handle, np.asarray(getattr(prepared, name), order="C"))
                handle.flush()
                os.fsync(handle.fileno())
        (temporary / ENTRY).write_text(json.dumps(_facts(prepared, key), indent=1))
        if place.exists():
            # What is mapped from the old arrays stays readable until it is let go.
            shutil.rmtree(place)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _facts(prepared: Prepared, key: str) -> dict[str, Any]:
    arrays = {name: getattr(prepared, name) for name in ARRAYS}
    return {
        "key": key,
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in arrays.items()},
        "known": prepared.known.tolist(),
        "spacing": prepared.spacing.tolist(),
        "affine": prepared.affine.tolist(),
        "ends": prepared.ends.tolist(),
    }


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
