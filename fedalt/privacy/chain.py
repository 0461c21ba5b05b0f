"""A file of lines that vouch for each other: appended, flushed to disk, never rewritten.

A line is one JSON object in canonical form. Its ``sha256`` is the hash of the object without
that key, and its ``previous`` the hash of the line before. A byte that changes, or a line that
is missing, put in or moved, breaks the chain at a line that can be named. Lines missing at the
end break nothing in the chain itself: whoever keeps the last hash elsewhere (a checkpoint does)
sees that too. The chain shows that a ledger is whole, not who wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedalt.errors import LedgerError
from fedalt.hashing import canonical_json
from fedalt.runs.files import sync_folder


@dataclass(frozen=True)
class Head:
    """Where a chain ends: how many lines there are, and the last one's hash."""

    lines: int = 0
    sha256: str = ""


def seal(entry: Mapping[str, Any], head: Head) -> tuple[str, Head]:
    """Return the line of an entry that follows ``head``, and the head after it."""
    body = {**entry, "number": head.lines, "previous": head.sha256}
    digest = _digest(body)
    return canonical_json({**body, "sha256": digest}) + "\n", Head(head.lines + 1, digest)


def read_chain(path: Path) -> Iterator[tuple[dict[str, Any], Head]]:
    """Yield each entry with the head after it.

    Raises :class:`LedgerError` naming the first line that does not follow from those before. A
    last line without an end, which a crash may leave, is told by a :class:`LedgerError` too.
    """
    head = Head()
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error.strerror}") from error
    for place, line in enumerate(lines[:-1]):
        entry = _checked(path, place, line, head)
        head = Head(place + 1, str(entry["sha256"]))
        yield entry, head
    if lines[-1]:
        raise LedgerError(f"{path}, line {len(lines)}: the line has no end")


def _checked(path: Path, place: int, line: bytes, head: Head) -> dict[str, Any]:
    where = f"{path}, line {place + 1}"
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        raise LedgerError(f"{where}: no entry of a ledger ({error}); it was changed") from error
    if not isinstance(entry, dict) or canonical_json(entry).encode() != line:
        raise LedgerError(f"{where}: not as a ledger writes it; it was changed")
    body = {key: value for key, value in entry.items() if key != "sha256"}
    if entry.get("sha256") != _digest(body):
        raise LedgerError(f"{where}: its checksum does not match; it was changed")
    if entry.get("number") != head.lines or entry.get("previous") != head.sha256:
        raise LedgerError(
            f"{where}: it is entry {entry.get('number')} and follows another one than stands "
            "before it; lines were put in, left out or moved"
        )
    return entry


class Chain:
    """Appends entries to a ledger's file."""

    def __init__(self, path: Path, head: Head | None = None) -> None:
        self._path, self._head = path, head or Head()

    @property
    def head(self) -> Head:
        """Where the chain ends."""
        return self._head

    def append(self, *entries: Mapping[str, Any]) -> list[int]:
        """Write entries in one piece, flushed to disk; return their numbers.

        Raises :class:`OSError` if the disk is full or read-only; what stood there is intact.
        """
        if not entries:
            return []
        head, text, numbers = self._head, [], []
        for entry in entries:
            numbers.append(head.lines)
            line, head = seal(entry, head)
            text.append(line)
        new = not self._path.exists()
        with self._path.open("ab") as handle:
            end = handle.tell()
            try:
                handle.write("".join(text).encode())
                handle.flush()
                os.fsync(handle.fileno())
            except OSError:
                # Half a line would break the chain for good.
                os.truncate(self._path, end)
                raise
        if new:
            sync_folder(self._path.parent)
        self._head = head
        return numbers


def mend(path: Path) -> bool:
    """Cut off a last line without an end, which a crash in the middle of writing leaves.

    Nothing was sent for it: messages go out only after the write has ended.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return False
    os.truncate(path, whole)
    return True


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()
