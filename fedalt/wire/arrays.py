"""Arrays inside Flower records, without copies where the process is shared.

Flower's ``Array`` always holds ``np.save`` bytes. A :class:`SharedArray` holds the numpy
array itself and makes the bytes only if something asks for them (a message that leaves the
process, Flower's own copy). ``numpy()`` keeps Flower's contract, a fresh array the caller
may change, which stock strategies do; ``view()`` is the shared array, read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType

from fedalt.errors import WireError


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
            dtype=str(values.dtype),
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

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SharedArray):
            mine, theirs = self.view(), other.view()
            return mine.dtype == theirs.dtype and np.array_equal(mine, theirs, equal_nan=True)
        return isinstance(other, Array) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


def record_of(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Wrap arrays without copying them; the caller gives them away."""
    record = ArrayRecord()
    for name, values in arrays.items():
        record[name] = SharedArray(np.asarray(values))
    return record


def arrays_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Return a record's arrays, read-only and shared where they can be, else decoded.

    Raises :class:`WireError` naming the array whose bytes do not make the array declared.
    """
    return {name: _decode(name, array) for name, array in record.items()}


def _decode(name: str, array: Array) -> np.ndarray:
    if isinstance(array, SharedArray):
        return array.view()
    try:
        values: np.ndarray = array.numpy()
    except Exception as error:
        raise WireError(f"array '{name}' cannot be decoded: {error}") from error
    if str(values.dtype) != array.dtype or tuple(values.shape) != tuple(array.shape):
        raise WireError(
            f"array '{name}' declares {array.dtype}{tuple(array.shape)} but holds "
            f"{values.dtype}{tuple(values.shape)}"
        )
    values.flags.writeable = False
    return values
