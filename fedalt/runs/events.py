"""The event log: JSON lines, and whoever else wants to hear (progress bar, TensorBoard)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
Sink = Callable[[Event], None]


class EventLog:
    """Appends events to a file and passes them to sinks.

    ``offset`` is the log's length at the last :meth:`sync`; a resumed run cuts the file back
    to its checkpoint's offset, so that no round is told twice.
    """

    def __init__(self, path: Path, offset: int | None = None, sinks: Sequence[Sink] = ()) -> None:
        self._file = path.open("ab")
        if offset is not None:
            # A log that was lost or cut meanwhile is not filled up with zeros.
            self._file.truncate(min(offset, self._file.tell()))
            self._file.seek(0, os.SEEK_END)
        self._sinks = list(sinks)

    def emit(self, event: str, **facts: Any) -> None:
        """Record one event; non-finite numbers become text, since JSON has none."""
        record = {"event": event, "time": round(time.time(), 3), **facts}
        self._file.write(json.dumps(_finite(record), sort_keys=True).encode() + b"\n")
        for sink in self._sinks:
            sink(record)

    def sync(self) -> int:
        """Flush to disk and return the log's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close; on a full disk it raises, and is closed all the same."""
        try:
            self.sync()
        finally:
            self._file.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read an event log; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
