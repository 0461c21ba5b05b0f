"""Messages made in bulk are the messages that Flower's constructor makes."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedalt.grids.local import LocalGrid
from fedalt.seeds import Seeds
from fedalt.wire.messages import broadcast, reply_with


@pytest.fixture(autouse=True)
def _run() -> None:
    """Flower stamps messages with the identity of the process, which a grid sets."""
    LocalGrid(ClientApp(), 1, {}, Seeds(0))


def told(message: Message, *apart: str) -> dict[str, Any]:
    """What a message's metadata hold, in their order, but for what differs by the clock."""
    clock = {"_created_at", "_ttl", *apart}
    return {key: value for key, value in vars(message.metadata).items() if key not in clock}


def test_a_broadcast_is_a_message_to_each_node() -> None:
    content, nodes = RecordDict(), [11, 7, 13]
    messages = broadcast(content, "train.more", iter(nodes))
    for node, message in zip(nodes, messages, strict=True):
        flowers = Message(content, node, "train.more")
        assert told(message) == told(flowers) and vars(message).keys() == vars(flowers).keys()
        assert message.metadata.ttl == flowers.metadata.ttl
        assert abs(message.metadata.created_at - flowers.metadata.created_at) < 60
        assert message.content is content and not message.has_error()
    assert broadcast(content, "train", []) == []


def test_messages_of_a_broadcast_are_apart() -> None:
    one, two = broadcast(RecordDict(), "train", [1, 2])
    one.metadata.group_id = "mine"
    one.content = RecordDict()
    assert two.metadata.group_id == "" and two.content is not one.content


def test_a_type_of_message_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid message type"):
        broadcast(RecordDict(), "dance", [1])


def test_a_reply_is_the_one_that_flower_makes() -> None:
    asked = Message(RecordDict(), 5, "evaluate", group_id="3/p", dst_task_id=9, ttl=100.0)
    asked.metadata.__dict__["_message_id"] = "1-4"
    asked.metadata.delivered_at = "now"
    content = RecordDict()
    mine, flowers = reply_with(content, asked), Message(content, reply_to=asked)
    assert told(mine) == told(flowers) and vars(mine).keys() == vars(flowers).keys()
    assert mine.metadata.reply_to_message_id == "1-4" and mine.metadata.src_node_id == 5
    assert mine.metadata.ttl == pytest.approx(flowers.metadata.ttl, abs=60)
    assert mine.metadata.ttl <= 100.0 and asked.metadata.message_id == "1-4"
    assert mine.content is content and not mine.has_error()
