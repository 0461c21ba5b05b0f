"""The in-process engine keeps Flower's contract: ids, state, errors, no aliasing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedalt.errors import ConfigError
from fedalt.grids.local import LocalGrid
from fedalt.seeds import Seeds
from fedalt.wire.arrays import SharedArray, arrays_of, record_of


def counting_app() -> ClientApp:
    """A client that counts its calls in its Context and adds one to every weight."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.state.config_records.get("n", ConfigRecord({"n": 0}))["n"]) + 1  # type: ignore[arg-type]
        context.state["n"] = ConfigRecord({"n": number})
        if number == 2 and context.node_config["partition-id"] == 1:
            raise ValueError("site 1 has a bad day")
        record = next(iter(message.content.array_records.values()))
        values = {name: array.numpy() + 1.0 for name, array in record.items()}
        content = RecordDict(
            {
                "arrays": ArrayRecord({k: Array(v) for k, v in values.items()}),
                "metrics": MetricRecord({"num-examples": 1, "calls": number}),
            }
        )
        return Message(content, reply_to=message)

    return app


def grid_of(nodes: int = 3, seed: int = 0, app: ClientApp | None = None) -> LocalGrid:
    return LocalGrid(app or counting_app(), nodes, {"lr": 0.1}, Seeds(seed))


def ask(grid: LocalGrid, arrays: dict[str, np.ndarray]) -> list[Message]:
    content = RecordDict({"arrays": record_of(arrays)})
    messages = [
        Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()
    ]
    return list(grid.send_and_receive(messages))


def test_node_ids_are_seeded_distinct_and_positive() -> None:
    ids = list(grid_of(200).get_node_ids())
    assert ids == list(grid_of(200).get_node_ids())
    assert ids != list(grid_of(200, seed=1).get_node_ids())
    assert len(set(ids)) == 200 and min(ids) > 0


def test_flowers_own_loop_runs_on_it() -> None:
    """Flower's ``Strategy.start`` needs nothing of ours but the grid."""
    strategy = FedAvg(fraction_evaluate=0.0)
    result = strategy.start(
        grid_of(app=plain_app()), ArrayRecord({"w": Array(np.zeros(2))}), num_rounds=3
    )
    np.testing.assert_allclose(result.arrays["w"].numpy(), [3.0, 3.0])


def plain_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = next(iter(message.content.array_records.values()))
        made = ArrayRecord({k: Array(a.numpy() + 1.0) for k, a in record.items()})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": made, "metrics": metrics}), reply_to=message)

    return app


def test_context_state_is_kept_and_an_exception_becomes_an_error_reply() -> None:
    grid = grid_of()
    first = ask(grid, {"w": np.zeros(2)})
    assert [int(m.content["metrics"]["calls"]) for m in first] == [1, 1, 1]
    second = ask(grid, {"w": np.zeros(2)})
    assert [m.has_error() for m in second] == [False, True, False]
    assert "site 1 has a bad day" in second[1].error.reason
    third = ask(grid, {"w": np.zeros(2)})
    # Site 1 failed on its second call, so its count is still 1: the failed call left no trace.
    assert third[1].has_error()
    assert int(third[0].content["metrics"]["calls"]) == 3


def test_replies_match_their_messages() -> None:
    grid = grid_of()
    content = RecordDict({"arrays": record_of({"w": np.zeros(1)})})
    messages = [
        Message(content, dst_node_id=n, message_type="train", group_id="r1")
        for n in grid.get_node_ids()
    ]
    ids = list(grid.push_messages(messages))
    assert len(set(ids)) == 3
    replies = list(grid.pull_messages(ids))
    assert [r.metadata.reply_to_message_id for r in replies] == ids
    assert [r.metadata.src_node_id for r in replies] == list(grid.get_node_ids())
    assert {r.metadata.group_id for r in replies} == {"r1"}
    assert list(grid.pull_messages(ids)) == [], "each reply is given once"


def test_unknown_node_is_an_error_reply() -> None:
    grid = grid_of()
    message = Message(RecordDict(), dst_node_id=12345, message_type="train")
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error() and "12345" in reply.error.reason


def test_a_federation_needs_a_client() -> None:
    with pytest.raises(ConfigError, match="at least one client"):
        grid_of(0)


def test_arrays_are_not_aliased_between_server_and_clients() -> None:
    """A client that writes into what it received, or keeps what it sent, changes no one else."""
    seen: list[np.ndarray] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = next(iter(message.content.array_records.values()))
        mine = record["w"].numpy()
        mine += 100.0
        seen.append(mine)
        content = RecordDict(
            {"arrays": record_of({"w": mine.copy()}), "metrics": MetricRecord({"num-examples": 1})}
        )
        return Message(content, reply_to=message)

    weights = np.zeros(2)
    replies = ask(grid_of(app=app), {"w": weights})
    np.testing.assert_array_equal(weights, 0.0)
    got = [arrays_of(r.content["arrays"])["w"] for r in replies]
    seen[0][:] = -1.0
    np.testing.assert_array_equal(got[0], 100.0)
    np.testing.assert_array_equal(got[1], 100.0)


def test_a_broadcast_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients of a broadcast read the server's array itself; nothing is encoded."""
    encodings = []
    original = np.save
    monkeypatch.setattr(np, "save", lambda *a, **k: (encodings.append(1), original(*a, **k))[1])
    views: list[np.ndarray] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = next(iter(message.content.array_records.values()))
        assert isinstance(record["w"], SharedArray)
        views.append(arrays_of(record)["w"])
        content = RecordDict(
            {"arrays": record_of({"w": np.ones(2)}), "metrics": MetricRecord({"num-examples": 1})}
        )
        return Message(content, reply_to=message)

    weights = np.zeros(2)
    ask(grid_of(5, app=app), {"w": weights})
    assert len(views) == 5 and all(np.shares_memory(v, weights) for v in views)
    assert not encodings


def test_cohort_handler_is_given_all_messages_at_once() -> None:
    calls: list[int] = []

    class Cohort(ClientApp):
        def cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
            calls.append(len(messages))
            assert [c.node_id for c in contexts] == [m.metadata.dst_node_id for m in messages]
            return [Message(RecordDict(), reply_to=m) for m in messages]

    replies = ask(grid_of(4, app=Cohort()), {"w": np.zeros(1)})
    assert calls == [4] and len(replies) == 4


def test_states_can_be_exported_and_imported() -> None:
    from fedalt.grids.state import import_state

    grid = grid_of()
    nodes = list(grid.get_node_ids())
    import_state(grid.context(nodes[2]), {"dual": np.arange(3.0)})
    states = grid.export_states()
    assert list(states) == [2]
    other = grid_of()
    other.import_states(states)
    np.testing.assert_array_equal(other.export_states()[2]["dual"], np.arange(3.0))


def test_past_the_timeout_no_client_is_started() -> None:
    import time

    started: list[int] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        started.append(1)
        time.sleep(0.3)
        return Message(RecordDict(), reply_to=message)

    grid = grid_of(4, app=app)
    content = RecordDict({"arrays": record_of({"w": np.zeros(1)})})
    messages = [Message(content, dst_node_id=n, message_type="train") for n in grid.get_node_ids()]
    replies = list(grid.send_and_receive(messages, timeout=0.1))
    assert len(replies) == len(started) == 1
