"""A node's persistent arrays in its Flower ``Context``, and clients that may fail."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedalt.errors import FedaltError
from fedalt.wire.arrays import SharedArray, arrays_of, record_of

STATE = "fedalt.state"
"""The record of ``context.state`` that holds a kernel's persistent arrays."""


def export_state(context: Context) -> dict[str, np.ndarray]:
    """Return the node's persistent arrays, read-only; empty if it holds none."""
    record = context.state.get(STATE)
    return arrays_of(record) if isinstance(record, ArrayRecord) else {}


def import_state(context: Context, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the node's persistent arrays; none at all leaves no record behind.

    The very arrays that :func:`export_state` gave leave the record itself in place, so that an
    engine can tell by the record whether a client changed anything.
    """
    if _same(context.state.get(STATE), arrays):
        return
    if arrays:
        context.state[STATE] = record_of(arrays)
    elif STATE in context.state:
        del context.state[STATE]


def _same(record: object, arrays: Mapping[str, np.ndarray]) -> bool:
    if not isinstance(record, ArrayRecord) or list(record) != list(arrays):
        return False
    return all(
        isinstance(held, SharedArray) and held.view() is arrays[name]
        for name, held in record.items()
    )


def guarded(run: Callable[[], Message], message: Message, context: Context) -> Message:
    """Run a client; an exception becomes Flower's error reply and leaves the former state.

    The reply holds the whole trace: in this process the reader is the author of the code. An
    error of fedalt's own says what is wrong and where, so that its message is enough.
    An engine that reaches real sites must not send the text, which can hold data.
    """
    # Persistent arrays are replaced with their record, never in it: that one needs no copy.
    before = {key: r if key == STATE else r.copy() for key, r in context.state.items()}
    try:
        return run()
    except Exception as error:
        context.state = RecordDict(before)
        ours = isinstance(error, FedaltError)
        lines = (
            traceback.format_exception_only(error) if ours else traceback.format_exception(error)
        )
        reason = "".join(lines)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
