"""IDX files: the format of MNIST and its relatives, plain or gzipped.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit integer, then the values, row-major and big-endian (LeCun, Cortes and Burges).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from fedalt.data.folder import read_bytes
from fedalt.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> np.ndarray:
    """Return an IDX file's array, native byte order, exactly as its header declares it.

    Raises :class:`DataError` naming the file for a wrong magic number, an unknown type, and
    any length but the declared one: missing bytes and trailing bytes alike.
    """
    raw = read_bytes(path)
    data = _unzip(path, raw) if raw[:2] == GZIP_MAGIC else raw
    if len(data) < 4 or data[:2] != b"\x00\x00":
        raise DataError(
            f"'{path}' is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}, "
            "expected 00 00 (type) (dimensions); get the original file again"
        )
    code, dimensions = data[2], data[3]
    if code not in TYPES:
        known = ", ".join(f"{known:#04x}" for known in TYPES)
        raise DataError(f"'{path}': unknown IDX type {code:#04x} (known: {known})")
    offset = 4 + 4 * dimensions
    if len(data) < offset:
        raise _wrong_length(path, offset, len(data), f"a header of {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", data[4:offset])
    dtype = np.dtype(TYPES[code])
    expected = offset + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise _wrong_length(path, expected, len(data), f"shape {shape} of {dtype.name}")
    # A copy, because frombuffer's view is read-only and callers hand arrays to torch.
    return np.frombuffer(data, dtype, offset=offset).reshape(shape).astype(dtype.newbyteorder("="))


def _unzip(path: Path, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"'{path}' is a damaged or truncated gzip file of {len(raw)} bytes ({error}); "
            "get the original file again"
        ) from error


def _wrong_length(path: Path, expected: int, found: int, why: str) -> DataError:
    """Name the missing or trailing bytes of a file."""
    off = f"{expected - found} missing" if found < expected else f"{found - expected} trailing"
    return DataError(
        f"'{path}': expected {expected} bytes for {why}, found {found} ({off}); "
        "get the original file again"
    )
