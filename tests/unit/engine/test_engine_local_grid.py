"""The in-process engine keeps Flower's contract: ids, state, errors, no aliasing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedalt.errors import ConfigError, DataError
from fedalt.grids import local
from fedalt.grids.local import LocalGrid
from fedalt.grids.nodes import NodeTable, draw_node_ids
from fedalt.grids.state import export_state, import_state
from fedalt.grids.store import StateStore
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


def test_node_ids_are_those_of_draws_one_by_one() -> None:
    """As a dictionary would collect them, also where a draw repeats an id."""

    class Repeating:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def at(self, *labels: str) -> Repeating:
            return self

        def numpy(self) -> Repeating:
            return self

        def integers(self, low: int, high: int, size: int) -> np.ndarray:
            return self.rng.integers(10, 40, size)

    one_by_one, wanted = Repeating(), dict[int, None]()
    while len(wanted) < 25:
        for value in one_by_one.integers(0, 0, 25 - len(wanted)):
            wanted[int(value)] = None
    assert draw_node_ids(25, Repeating()) == list(wanted)  # type: ignore[arg-type]
    rng, ids = Seeds(7).at("node-ids").numpy(), draw_node_ids(500, Seeds(7))
    assert ids == rng.integers(2**16, 2**63 - 1, size=500).tolist()


def test_both_ways_between_sites_and_nodes() -> None:
    table = NodeTable([70, 50, 60])
    assert dict(table) == {0: 70, 1: 50, 2: 60} and dict(table.sites) == {70: 0, 50: 1, 60: 2}
    assert len(table) == 3 and 2 in table and 3 not in table and -1 not in table
    with pytest.raises(KeyError):
        table[-1]


def test_a_client_that_leaves_nothing_costs_nothing() -> None:
    grid = grid_of(50, app=plain_app())
    ask(grid, {"w": np.zeros(2)})
    assert not grid._open and not grid._records and grid.export_states() == {}
    counting = grid_of(50)
    ask(counting, {"w": np.zeros(2)})
    assert not counting._open and len(counting._records) == 50


def test_large_pushes_are_answered_in_parts_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "COHORT", 3)
    sizes: list[int] = []

    class Cohort(ClientApp):
        def cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
            sizes.append(len(messages))
            return [Message(RecordDict(), reply_to=m) for m in messages]

    grid = grid_of(8, app=Cohort())
    replies = ask(grid, {"w": np.zeros(1)})
    assert sizes == [3, 3, 2]
    assert [r.metadata.src_node_id for r in replies] == list(grid.get_node_ids())


def test_only_states_that_changed_are_kept_anew(tmp_path: Path) -> None:
    """Who looks at a state, or fails, leaves it as it was: nothing to write."""
    store = StateStore(tmp_path)
    app = ClientApp()
    fail = [False]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = export_state(context)
        site = int(context.node_config["partition-id"])
        if site == 0:
            state["dual"] = state.get("dual", np.zeros(2)) + 1.0
        import_state(context, state)
        if fail[0]:
            raise ValueError("after the change")
        return Message(RecordDict(), reply_to=message)

    grid = LocalGrid(app, 3, {}, Seeds(0), states=store)
    nodes = list(grid.get_node_ids())
    import_state(grid.context(nodes[1]), {"dual": np.arange(2.0)})
    ask(grid, {"w": np.zeros(1)})
    assert grid.save_states() is not None
    ask(grid, {"w": np.zeros(1)})
    assert store._changed == {0}
    grid.save_states()
    fail[0] = True
    assert all(reply.has_error() for reply in ask(grid, {"w": np.zeros(1)}))
    assert store._changed == set()
    np.testing.assert_array_equal(grid.export_states()[0]["dual"], 2.0)
    np.testing.assert_array_equal(grid.export_states()[1]["dual"], [0.0, 1.0])
    assert list(grid.export_states()) == [0, 1]


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


def test_an_error_of_our_own_is_told_without_a_trace() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = context.node_config["partition-id"]
        raise DataError("the file 'x' is empty") if site == 0 else ValueError("a bad day")

    ours, other = (reply.error.reason for reply in ask(grid_of(2, app=app), {}))
    assert ours.strip() == "fedalt.errors.DataError: the file 'x' is empty"
    assert "Traceback" in other and other.strip().endswith("ValueError: a bad day")
