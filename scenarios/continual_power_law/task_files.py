"""A folder of tasks: one ``.npz`` file each, in the order of their names, checked as they are read.

    01-summer.npz    train_x (n, …) numbers, train_y (n,) whole numbers, test_x, test_y,
    02-autumn.npz    and, where rows belong to sites, train_site (n,) whole numbers

An ``.npz`` cannot be mapped into memory, so each array is read once and held: as bytes where
its numbers are bytes, else as float32.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from fedalt.errors import ConfigError, DataError, nearest

ARRAYS = ("train_x", "train_y", "test_x", "test_y")
SITE = "train_site"
HOW = """\
make a file for each task with numpy:
    import numpy as np
    np.savez("tasks/01-summer.npz", train_x=x, train_y=y, test_x=x2, test_y=y2)
    np.savez("tasks/02-autumn.npz", ...)  # x: (rows, ...) numbers, y: (rows,) 0, 1, 2, ...
then name the folder: task.folder=tasks task.tasks=2"""
_BROKEN = (
    *(OSError, EOFError, ValueError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class TaskFile:
    """One task's rows.

    ``train_x`` and ``test_x`` (n, features) uint8, int8 or float32; labels (n,) int64; ``sites``
    (n,) int64, the client of each training row, or None. ``shape`` is a row's as it was stored.
    """

    path: Path
    name: str
    train_x: torch.Tensor
    train_y: np.ndarray
    test_x: torch.Tensor
    test_y: np.ndarray
    sites: np.ndarray | None
    shape: tuple[int, ...]


def read_tasks(folder: str | None, tasks: int | None) -> tuple[TaskFile, ...]:
    """Read a folder's tasks, of which there must be ``tasks`` where that is told.

    Raises :class:`ConfigError` for the folder, and :class:`DataError` naming file and array.
    """
    paths = _paths(folder, tasks)
    names = [re.sub(r"^\d+-(?=.)", "", path.stem) for path in paths]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(
                f"'{paths[place]}' and '{paths[names.index(name)]}' are both task '{name}'; "
                "rename one of them"
            )
    found = tuple(_read(path, name) for path, name in zip(paths, names, strict=True))
    for file in found[1:]:
        _check_alike(file, found[0])
    return found


def _paths(folder: str | None, tasks: int | None) -> list[Path]:
    if not folder:
        raise ConfigError(f"task.folder names no folder of tasks; {HOW}")
    place = Path(folder).expanduser()
    if not place.is_dir():
        wrong = "is a file" if place.exists() else "does not exist"
        raise ConfigError(f"task.folder is '{folder}', which {wrong}; {HOW}")
    paths = sorted(path for path in place.glob("*.npz") if not path.name.startswith("."))
    if not paths:
        raise ConfigError(f"task.folder is '{folder}', which holds no .npz file; {HOW}")
    if tasks is not None and tasks != len(paths):
        raise ConfigError(
            f"task.tasks is {tasks}, but '{folder}' holds {len(paths)} .npz files; set "
            f"task.tasks={len(paths)} (a shorter stream: schedule.stream.tasks)"
        )
    numbered = [
        (int(found[0]), path) for path in paths if (found := re.match(r"\d+(?=-)", path.name))
    ]
    for (before, first), (after, second) in pairwise(numbered):
        if after < before:
            raise DataError(
                f"'{first}' comes before '{second}' by name, but {after} before {before} by "
                f"number; pad the numbers with zeros, such as {after:0{len(str(before))}d}-"
            )
    return paths


def _read(path: Path, name: str) -> TaskFile:
    arrays = _arrays(path)
    for key in ARRAYS:
        if key not in arrays:
            raise DataError(
                f"'{path}': array {key} is missing (there are: "
                f"{', '.join(sorted(arrays)) or 'none'}); save it with np.savez(…, {key}=…)"
            )
    shape = arrays["train_x"].shape[1:]
    rows, classes = dict[str, torch.Tensor](), dict[str, np.ndarray]()
    for part in ("train", "test"):
        features, labels = f"{part}_x", f"{part}_y"
        if arrays[features].shape[1:] != shape:
            raise DataError(
                f"'{path}': a row of test_x has shape {arrays[features].shape[1:]}, but one of "
                f"train_x {shape}; make them alike"
            )
        rows[features] = _features(path, features, arrays[features])
        classes[labels] = _numbers(path, labels, arrays[labels], arrays[features], "classes")
    sites = arrays.get(SITE)
    if sites is not None:
        sites = _numbers(path, SITE, sites, arrays["train_x"], "sites")
    return TaskFile(
        path=path,
        name=name,
        train_x=rows["train_x"],
        train_y=classes["train_y"],
        test_x=rows["test_x"],
        test_y=classes["test_y"],
        sites=sites,
        shape=shape,
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file; none that is made of Python objects, which could run code."""
    key, found = "", dict[str, np.ndarray]()
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise DataError(f"'{path}': is a single array, no .npz; save it with np.savez")
            for key in stored.files:
                if key not in (*ARRAYS, SITE):
                    known = nearest(key, (*ARRAYS, SITE))
                    raise DataError(f"'{path}': unknown array '{key}'{known}; take it away")
                # What is no array by its own header comes as bytes.
                found[key] = np.asarray(stored[key])
    except _BROKEN as error:
        where = f"array {key} " if key else ""
        if "allow_pickle" in str(error) and key:
            raise DataError(
                f"'{path}': {where}is made of Python objects, which are not read; save plain "
                'numbers, such as np.stack(rows).astype("float32")'
            ) from error
        raise DataError(
            f"'{path}': {where}cannot be read ({error}); save it anew with np.savez"
        ) from error
    return found


def _features(path: Path, key: str, values: np.ndarray) -> torch.Tensor:
    """Return rows (n, features); raises :class:`DataError` unless they are finite numbers."""
    if values.dtype.kind not in "fiub":
        raise DataError(f"'{path}': {key} holds {values.dtype}, expected real numbers; convert it")
    if values.ndim < 2:
        raise DataError(
            f"'{path}': {key} has shape {values.shape}, expected (rows, …) with at least one "
            "feature; x.reshape(len(x), -1) makes one of each number"
        )
    if not values.size:
        raise DataError(
            f"'{path}': {key} has shape {values.shape}, so that there is nothing to learn or to "
            "judge by; put rows in, or take the file away"
        )
    flat = values.reshape(len(values), -1)
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    if flat.dtype not in (np.uint8, np.int8):
        with np.errstate(over="ignore"):
            flat = flat.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(flat).all(1))
        if len(wrong):
            column = int(np.flatnonzero(~np.isfinite(flat[wrong[0]]))[0])
            given = values.reshape(len(values), -1)[wrong[0], column]
            raise DataError(
                f"'{path}': {key} row {wrong[0]} holds {given} (feature {column}; {len(wrong)} "
                "such rows), expected finite float32 numbers; fill it in or leave the row out"
            )
    return torch.from_numpy(np.array(flat, order="C"))


def _numbers(
    path: Path, key: str, values: np.ndarray, features: np.ndarray, what: str
) -> np.ndarray:
    """Return whole numbers (n,) int64 from 0 on, one for each row of features."""
    if values.dtype.kind not in "iu":
        raise DataError(
            f"'{path}': {key} holds {values.dtype}, expected whole numbers of {what}; "
            f"np.unique({key}, return_inverse=True)[1] numbers them"
        )
    if values.shape != features.shape[:1]:
        raise DataError(
            f"'{path}': {key} has shape {values.shape}, expected one number for each of the "
            f"{features.shape[0]} rows of {key.split('_')[0]}_x: {features.shape[:1]}"
        )
    if int(values.min()) < 0:
        row = int(np.flatnonzero(values < 0)[0])
        raise DataError(
            f"'{path}': {key} row {row} is {values[row]}, expected whole numbers from 0 on; "
            f"number the {what} 0, 1, 2, … or leave the row out"
        )
    if int(values.max()) > np.iinfo(np.int32).max:
        raise DataError(f"'{path}': {key} holds {values.max()}; number the {what} 0, 1, 2, …")
    return values.astype(np.int64)


def _check_alike(file: TaskFile, first: TaskFile) -> None:
    if file.shape != first.shape:
        raise DataError(
            f"'{file.path}': a row of train_x has shape {file.shape}, but in '{first.path}' "
            f"{first.shape}; all tasks share one model, so give them the same features"
        )
    if (file.sites is None) != (first.sites is None):
        lacks, has = (file, first) if file.sites is None else (first, file)
        raise DataError(
            f"'{lacks.path}': array {SITE} is missing, but '{has.path}' has it; give it to all "
            "files, or to none to deal rows out by task.partition"
        )


def check_numbering(files: Sequence[TaskFile], key: str, found: Sequence[np.ndarray]) -> int:
    """Return how many different numbers there are in all files, which must be 0 … count − 1.

    ``found`` are each file's values of its array ``key``.
    """
    there = np.unique(np.concatenate([np.unique(values) for values in found]))
    count = len(there)
    if there[-1] != count - 1:
        gap = int(np.flatnonzero(there != np.arange(count))[0])
        most = int(np.argmax([values.max() for values in found]))
        what = "site" if key == SITE else "class"
        raise DataError(
            f"'{files[most].path}': {key} goes up to {there[-1]}, but {what} {gap} has no rows in "
            f"any file; number the {count} there are 0 to {count - 1}, alike in all files"
        )
    return count
