"""Where data lives: the folder the user named, then the cache; never a guess beyond that.

The folder comes from the setting ``task.root`` (passed in as ``root``) or else from the
environment variable ``FEDALT_DATA``. A folder that someone named and that is not there is an
error, because the run would otherwise go on with other data than was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedalt.errors import DataError

ENV_ROOT = "FEDALT_DATA"


@dataclass(frozen=True)
class DataFolder:
    """A folder to look in first, the setting that named it (empty: nobody), and the cache."""

    path: Path
    named_by: str
    cache: Path

    @property
    def named(self) -> bool:
        """Whether the user named the folder."""
        return bool(self.named_by)

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders to look in, first one first."""
        return (self.path, self.cache) if self.named else (self.cache,)


def cache_folder(env: Mapping[str, str] | None = None) -> Path:
    """Return the folder downloads go to; it need not exist yet.

    ``$XDG_CACHE_HOME/fedalt``, or ``~/.cache/fedalt`` where that variable is unset or, as its
    specification demands, not absolute.
    """
    env = os.environ if env is None else env
    base = Path(env.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "fedalt"


def data_folder(root: str | Path | None = None, env: Mapping[str, str] | None = None) -> DataFolder:
    """Return the folder named by ``root``, else by ``FEDALT_DATA``, else the cache.

    Empty text counts as unset. Raises :class:`DataError` if a named folder is not there.
    """
    env = os.environ if env is None else env
    cache = cache_folder(env)
    for value, setting in ((root, "task.root"), (env.get(ENV_ROOT), ENV_ROOT)):
        if value is None or str(value) == "":
            continue
        path = _expanded(value, setting)
        if not path.is_dir():
            wrong = "is a file, not a folder" if path.exists() else "does not exist"
            raise DataError(
                f"the data folder '{path}' named by {setting} {wrong}; "
                f"create it, correct {setting}, or leave it unset to use '{cache}'"
            )
        return DataFolder(path, setting, cache)
    return DataFolder(cache, "", cache)


def _expanded(value: str | Path, setting: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"the data folder '{value}' named by {setting} lies in a home folder that is not "
            f"known here; write the whole path in {setting}"
        ) from error


def look_for(folder: DataFolder, names: Sequence[str]) -> Path | None:
    """Return the first of ``names`` (paths relative to the folder) that is a file, or None."""
    for place in folder.places:
        for name in names:
            if (place / name).is_file():
                return place / name
    return None


def not_found(what: str, places: Sequence[Path], names: Sequence[str], obtain: str) -> DataError:
    """Return the error for data that is nowhere: places, wanted names, where to get it."""
    looked = ", ".join(f"'{place}'" for place in places)
    return DataError(
        f"{what} was not found in {looked}; "
        f"wanted: {' or '.join(names)}. {obtain} "
        f"Then name the folder that holds it with task.root or {ENV_ROOT}."
    )


def find_file(folder: DataFolder, names: Sequence[str], *, what: str, obtain: str) -> Path:
    """Return the first of ``names`` that is a file in the named folder or the cache.

    ``what`` is the data's name and ``obtain`` a sentence on where it can be had; both go
    into the :class:`DataError` that is raised when nothing is found.
    """
    path = look_for(folder, names)
    if path is None:
        raise not_found(what, folder.places, names, obtain)
    return path


def read_bytes(path: Path) -> bytes:
    """Read a whole file; one that cannot be read is a :class:`DataError` naming it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); check the file") from error
