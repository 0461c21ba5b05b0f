"""Site indices as text: ``0-3,7``, ascending, each once."""

from __future__ import annotations

import re

import numpy as np

from fedalt.errors import LedgerError


def to_ranges(sites: np.ndarray) -> str:
    """Return indices (n,) as ranges."""
    if not len(sites):
        return ""
    ordered = np.unique(sites)
    breaks = np.flatnonzero(np.diff(ordered) > 1)
    starts = ordered[np.concatenate([[0], breaks + 1])].tolist()
    ends = ordered[np.concatenate([breaks, [len(ordered) - 1]])].tolist()
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def from_ranges(text: str, most: int) -> np.ndarray:
    """Return the indices (n,) of ranges.

    Raises :class:`LedgerError` for any other text, and for an index of ``most`` or more.
    """
    found: list[np.ndarray] = []
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < most:
            raise LedgerError(f"'{part}' of '{text}' is no range of the {most} sites")
        found.append(np.arange(first, last + 1))
    return np.concatenate(found) if found else np.zeros(0, np.int64)
