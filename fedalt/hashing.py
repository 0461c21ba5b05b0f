"""Hashes of plain data and of arrays, equal on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def canonical_json(data: Any) -> str:
    """Return JSON with sorted keys and no spaces; equal data gives equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_hash(data: Any) -> str:
    """Return the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, types, shapes and little-endian bytes, names sorted."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.asarray(arrays[name], order="C")
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(canonical_json([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
