"""Arrays inside Flower records, without copies where the process is shared.

Flower's ``Array`` always holds ``np.save`` bytes. A :class:`SharedArray` holds the numpy
array itself and makes the bytes only if something asks for them (a message that leaves the
process, Flower's own copy). ``numpy()`` keeps Flower's contract, a fresh array the caller
may change, which stock strategies do; ``view()`` is the shared array, read-only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType

from fedalt.errors import WireError
from fedalt.wire.content import array_record, decoded_once


class SharedArray(Array):
    """A Flower ``Array`` that encodes itself on demand."""

    def __init__(self, values: np.ndarray) -> None:
        if values.dtype.hasobject:
            raise WireError(f"arrays of type {values.dtype} cannot travel; use numbers")
        shared = values.view()
        shared.flags.writeable = False
        # Straight into __dict__: Array.__setattr__ would mark the object dirty each time.
        self.__dict__.update(
            _values=shared,
            _encoded=None,
            dtype=_name(values.dtype),
            shape=tuple(values.shape),
            stype=str(SType.NUMPY),
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The ``np.save`` bytes, made at the first call."""
        if self.__dict__["_encoded"] is None:
            buffer = BytesIO()
            np.save(buffer, self.__dict__["_values"], allow_pickle=False)
            self.__dict__["_encoded"] = buffer.getvalue()
        encoded: bytes = self.__dict__["_encoded"]
        return encoded

    def view(self) -> np.ndarray:
        """Return the shared array, read-only."""
        values: np.ndarray = self.__dict__["_values"]
        return values

    def numpy(self) -> Any:
        """Return a copy that the caller may change."""
        return self.view().copy()

    def deflate(self) -> bytes:
        """Encode as the ``Array`` that it is to the other side."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SharedArray):
            mine, theirs = self.view(), other.view()
            return mine.dtype == theirs.dtype and np.array_equal(mine, theirs, equal_nan=True)
        return isinstance(other, Array) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


@cache
def _name(dtype: np.dtype) -> str:
    """Name a dtype; numpy builds the text anew each time, at a tenth of a message's cost."""
    return str(dtype)


def record_of(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Wrap arrays without copying them; the caller gives them away."""
    return array_record({name: SharedArray(np.asarray(v)) for name, v in arrays.items()})


def arrays_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Return a record's arrays, read-only and shared where they can be, else decoded.

    Raises :class:`WireError` naming the array whose bytes do not make the array declared.
    """
    return {name: _decode(name, array) for name, array in record.items()}


def _decode(name: str, array: Array) -> np.ndarray:
    if isinstance(array, SharedArray):
        return array.view()
    try:
        values = decoded_once(array, array.data, lambda data: _parse(array.stype, data))
    except Exception as error:
        raise WireError(f"array '{name}' cannot be decoded: {error}") from error
    if _name(values.dtype) != array.dtype or tuple(values.shape) != tuple(array.shape):
        raise WireError(
            f"array '{name}' declares {array.dtype}{tuple(array.shape)} but holds "
            f"{values.dtype}{tuple(values.shape)}"
        )
    return values


def _parse(stype: str, data: bytes) -> np.ndarray:
    """Read ``np.save`` bytes in place; their length is checked before anything is reserved.

    ``np.load`` would reserve whatever the header claims, and overlook bytes after the array.
    """
    if stype != SType.NUMPY:
        raise ValueError(f"it is of kind '{stype}', only '{SType.NUMPY}' is read")
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"its header has version {version}, which is not known here")
    if dtype.hasobject:
        raise ValueError("it holds objects, which are never loaded")
    needed, held = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if min(shape, default=0) < 0 or needed != held:
        raise ValueError(f"its header claims {needed} bytes of values, it holds {held}")
    flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
