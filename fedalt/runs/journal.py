"""The journal: the facts that grow with every round, a line a commit, written once.

The history and the ledger's counts are as long as the run, so a checkpoint does not repeat
them: it holds the journal's length and the SHA-256 up to there. An entry is plain data that
says what came to be: lists are continued, numbers added, mappings entered.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedalt.errors import CheckpointError
from fedalt.hashing import canonical_json

FILE = "journal.jsonl"


@dataclass(frozen=True)
class JournalRef:
    """How much of the journal belongs to a commit: ``length`` bytes, and their SHA-256."""

    length: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class Journal:
    """Appends to a journal; what lies beyond the last commit's end is overwritten."""

    def __init__(self, folder: Path, ref: JournalRef | None = None) -> None:
        self._path = folder / FILE
        kept = _committed(self._path, ref) if ref is not None else b""
        self._length, self._sha = len(kept), hashlib.sha256(kept)

    def append(self, *entries: Mapping[str, Any]) -> JournalRef:
        """Write entries, flushed to disk, and return how much there is now."""
        data = "".join(canonical_json(entry) + "\n" for entry in entries).encode()
        # Not "ab": a commit that failed may have left a piece behind.
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as handle:
            handle.truncate(self._length)
            handle.seek(self._length)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        self._sha.update(data)
        self._length += len(data)
        return JournalRef(self._length, self._sha.hexdigest())


def replay(folder: Path, ref: JournalRef, facts: dict[str, Any]) -> None:
    """Put everything up to a commit into ``facts``.

    Raises :class:`CheckpointError` if the journal is cut short or altered.
    """
    for line in _committed(folder / FILE, ref).splitlines():
        _enter(facts, json.loads(line))


def _committed(path: Path, ref: JournalRef) -> bytes:
    try:
        with path.open("rb") as handle:
            data = handle.read(ref.length)
    except OSError as error:
        raise CheckpointError(f"journal {path} cannot be read: {error.strerror}") from error
    if len(data) < ref.length or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise CheckpointError(f"journal {path} is damaged: its checksum does not match")
    return data


def _enter(facts: dict[str, Any], grown: Mapping[str, Any]) -> None:
    for key, value in grown.items():
        if isinstance(value, Mapping):
            _enter(facts.setdefault(key, {}), value)
        elif isinstance(value, list):
            facts.setdefault(key, []).extend(value)
        else:
            facts[key] = facts.get(key, 0) + value
