"""The ClientApp as a server sees it: any Flower bytes in, an error or a sound reply out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from federations import LeastSquares
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedalt.alternation.phase import Phase
from fedalt.clients.app import create_app
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.grids.local import LocalGrid
from fedalt.grids.state import import_state
from fedalt.seeds import Seeds
from fedalt.wire.arrays import record_of
from fedalt.wire.plan import RoundPlan, encode_plan
from fedalt.wire.records import OURS, complete_instruction, read_reply
from fedalt.wire.v1 import plan_pb2
from fedalt.wire.version import MAJOR, MINOR

MODEL = {"weight": np.full((1, 3), 0.5), "bias": np.zeros(1)}
PLAN = RoundPlan("run", 1, 0, Phase("train", params={"lr": 0.1}), ("weight", "bias"))


def grid() -> LocalGrid:
    task = LeastSquares(3)
    return LocalGrid(create_app(lambda spec: task), 3, {"task": "{}"}, Seeds(0))


def ask(where: LocalGrid, content: RecordDict, nodes: list[int] | None = None) -> list[Message]:
    to = list(where.get_node_ids()) if nodes is None else nodes
    messages = [Message(content, dst_node_id=node, message_type="train") for node in to]
    return list(where.send_and_receive(messages))


def instruction(arrays: ArrayRecord, plan: RoundPlan = PLAN) -> RecordDict:
    return complete_instruction(RecordDict({"arrays": arrays}), plan, MODEL)


def test_flowers_own_arrays_work_as_well_as_shared_ones() -> None:
    """Over a wire every array is bytes; the answer must be the same to the bit."""
    shared = ask(grid(), instruction(record_of(MODEL)))
    as_bytes = ask(grid(), instruction(ArrayRecord({k: Array(v) for k, v in MODEL.items()})))
    for one, other in zip(shared, as_bytes, strict=True):
        mine, theirs = read_reply(one.content), read_reply(other.content)
        assert mine.metrics == theirs.metrics
        for name in MODEL:
            assert mine.arrays[name].tobytes() == theirs.arrays[name].tobytes()
            assert mine.arrays[name].tobytes() != MODEL[name].tobytes()


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.array(7), np.ones((2, 3), order="F")])
def test_arrays_of_any_layout_come_back_as_they_were(values: np.ndarray) -> None:
    from fedalt.wire.arrays import arrays_of

    found = arrays_of(ArrayRecord({"w": Array(values)}))["w"]
    np.testing.assert_array_equal(found, values)
    assert (found.shape, found.dtype) == (values.shape, values.dtype)
    assert not found.flags.writeable


def test_a_plan_of_a_later_major_version_gives_a_clear_error() -> None:
    message = plan_pb2.RoundPlan()
    message.ParseFromString(encode_plan(PLAN))
    message.major, message.minor = MAJOR + 1, 0
    content = instruction(record_of(MODEL))
    content[OURS] = ConfigRecord({"plan": message.SerializeToString()})
    for reply in ask(grid(), content):
        assert reply.has_error()
        assert f"the round plan speaks wire version {MAJOR + 1}.0" in reply.error.reason
        assert f"this side {MAJOR}.{MINOR}: this side is behind" in reply.error.reason


@pytest.mark.parametrize("plan", [b"\xff\xff", b"\x08\x01"])
def test_bytes_that_are_no_plan_give_a_clear_error(plan: bytes) -> None:
    content = instruction(record_of(MODEL))
    content[OURS] = ConfigRecord({"plan": plan})
    assert all("WireError: the round plan" in r.error.reason for r in ask(grid(), content))


def test_a_kernel_that_raises_leaves_the_sites_state(monkeypatch: pytest.MonkeyPatch) -> None:
    where = grid()
    first, second, _ = where.get_node_ids()
    import_state(where.context(first), {"kept": np.arange(3.0)})

    def kernel(order: Order, site: SiteContext) -> Work:
        site.state["kept"] = np.zeros(3)
        if site.site == 0:
            raise RuntimeError("half way")
        return Work({k: v + 1 for k, v in order.arrays.items()}, 3, {})

    monkeypatch.setattr(KernelTable, "__call__", lambda self, name: kernel)
    replies = ask(where, instruction(record_of(MODEL)), [first, second])
    assert [reply.has_error() for reply in replies] == [True, False]
    states = where.export_states()
    assert set(states) == {0, 1}, "a site that was not asked holds nothing"
    np.testing.assert_array_equal(states[0]["kept"], np.arange(3.0))
    np.testing.assert_array_equal(states[1]["kept"], np.zeros(3))


def test_records_changed_in_place_are_restored_too() -> None:
    """A client that fails after it wrote into a record of its Context left it as it was."""
    from flwr.app import Context
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        context.state.config_records["n"]["n"] = 99
        raise RuntimeError("half way")

    where = LocalGrid(app, 1, {}, Seeds(0))
    (node,) = where.get_node_ids()
    where.context(node).state["n"] = ConfigRecord({"n": 1})
    (reply,) = ask(where, RecordDict())
    assert reply.has_error()
    assert where.context(node).state.config_records["n"]["n"] == 1


@pytest.mark.parametrize("extra", [{"more": np.zeros(1)}, {}])
def test_a_kernel_must_return_what_was_asked(
    extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kernel(order: Order, site: SiteContext) -> Work:
        return Work({"weight": np.zeros((1, 3)), **extra}, 1, {})

    monkeypatch.setattr(KernelTable, "__call__", lambda self, name: kernel)
    for reply in ask(grid(), instruction(record_of(MODEL))):
        assert "the round asks for ['bias', 'weight']" in reply.error.reason


def test_clients_of_one_broadcast_cannot_change_it_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kernel(order: Order, site: SiteContext) -> Work:
        with pytest.raises(ValueError, match="read-only"):
            order.arrays["bias"][0] = 1.0
        return Work({k: v.copy() for k, v in order.arrays.items()}, 1, {})

    monkeypatch.setattr(KernelTable, "__call__", lambda self, name: kernel)
    for record in (record_of(MODEL), ArrayRecord({k: Array(v) for k, v in MODEL.items()})):
        assert not any(reply.has_error() for reply in ask(grid(), instruction(record)))
