"""Flower messages made by the hundred: a broadcast's, and the replies to it.

Each is what Flower's constructor would make, whose checks of arguments that are the same for
a whole cohort cost more than all else that a message passes through in one process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from flwr.app import Message, Metadata, RecordDict


def broadcast(content: RecordDict, message_type: str, nodes: Iterable[int]) -> list[Message]:
    """Return one instruction a node; all hold the same ``content``.

    Raises as Flower's ``Message`` does for a type of message that there is not.
    """
    messages: list[Message] = []
    for node in nodes:
        if not messages:
            messages.append(Message(content, node, message_type))
        else:
            messages.append(_like(messages[0], content, _dst_node_id=node))
    return messages


def reply_with(content: RecordDict, message: Message) -> Message:
    """Return the reply to ``message`` that holds ``content``."""
    asked, now = message.metadata, time.time()
    return _like(
        message,
        content,
        _message_id="",
        _src_node_id=asked.dst_node_id,
        _dst_node_id=asked.src_node_id,
        _src_task_id=asked.dst_task_id,
        _dst_task_id=asked.src_task_id,
        _reply_to_message_id=asked.message_id,
        _created_at=now,
        _ttl=asked.created_at + asked.ttl - now,
        _delivered_at="",
    )


def _like(message: Message, content: RecordDict, **changes: Any) -> Message:
    """Copy a message around another content, with changes to its metadata."""
    metadata = Metadata.__new__(Metadata)
    metadata.__dict__.update(message.metadata.__dict__, **changes)
    made = Message.__new__(Message)
    made.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return made
