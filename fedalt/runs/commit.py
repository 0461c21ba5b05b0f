"""Commits: what changed since the last one is written, then the checkpoint that vouches for it.

The order makes a commit whole or absent: segments and journal are on disk before the rename
of the checkpoint that names them, and what no kept checkpoint names is removed after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedalt.runs.checkpoint import PATTERN, Snapshot, segments_of, write_checkpoint
from fedalt.runs.journal import Journal
from fedalt.runs.segments import PATTERN as SEGMENTS


class Committer:
    """Commits the rounds of one run in its folder of checkpoints.

    ``before`` is the snapshot that the run goes on from, or None for a new one.
    """

    def __init__(self, folder: Path, keep: int, before: Snapshot | None = None) -> None:
        self._folder, self._keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(folder, before.journal if before is not None else None)
        # A checkpoint of the former format tells everything itself: the journal inherits it.
        whole = before is not None and before.journal is None
        self._inherited = dict(before.facts) if before is not None and whole else {}

    def commit(self, snapshot: Snapshot, grown: Mapping[str, Any]) -> Path:
        """Commit a snapshot; ``grown`` is what its facts gained since the last commit.

        Raises :class:`OSError` if the disk is full or read-only; the last commit is intact.
        """
        inherited = {key: self._inherited[key] for key in grown if key in self._inherited}
        journal = self._journal.append(*([inherited] if inherited else []), grown)
        self._inherited = {}
        path = write_checkpoint(self._folder, replace(snapshot, journal=journal), self._keep)
        self._remove_unnamed()
        return path

    def _remove_unnamed(self) -> None:
        """Remove segments that no kept checkpoint needs, and those of a process that died."""
        there = {path.name: path for path in self._folder.glob(SEGMENTS)}
        if not there:
            return
        kept = [ref for path in self._folder.glob(PATTERN) for ref in segments_of(path)]
        for name in there.keys() - {ref.name for ref in kept}:
            there[name].unlink(missing_ok=True)
