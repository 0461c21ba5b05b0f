"""The wire contract: what survives a trip, what is refused, what is not copied."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedalt.alternation.environment import Environment
from fedalt.alternation.phase import Phase, View
from fedalt.alternation.site import Site
from fedalt.alternation.stream_view import BUDGETS, ORDERS, StreamView
from fedalt.errors import WireError
from fedalt.wire.arrays import SharedArray, arrays_of, record_of
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan
from fedalt.wire.records import (
    FROZEN,
    OURS,
    complete_instruction,
    make_reply,
    read_instruction,
    read_reply,
)
from fedalt.wire.report import ClientReport, decode_report, decode_site, encode_report, encode_site
from fedalt.wire.v1 import plan_pb2, report_pb2
from fedalt.wire.version import MAJOR, MINOR

names = st.text("abc/._-", min_size=1, max_size=8)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(max_size=10),
)
streams = st.builds(
    StreamView,
    tasks=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple),
    new=st.integers(0, 10**6),
    rehearsal=st.floats(0.0, 1.0),
    environments=st.lists(
        st.sampled_from([Environment("upper"), Environment("hazard", 0.5, 1.0, 0.25)]), min_size=1
    ).map(tuple),
    order=st.sampled_from(ORDERS),
    budget=st.sampled_from(BUDGETS),
)
plain_phases = st.builds(
    Phase,
    name=names,
    kernel=names,
    train=st.lists(names, max_size=3).map(tuple),
    send=st.lists(names, max_size=3).map(tuple),
    epochs=st.integers(0, 100),
    steps=st.integers(0, 1000),
    batch_size=st.integers(1, 4096),
    modality=names,
    task=names,
    params=st.dictionaries(names, scalars, max_size=4),
    aggregate=st.dictionaries(names, names, max_size=3),
    view=st.builds(View, st.floats(0.01, 1.0), st.one_of(st.none(), streams)),
    branch=st.one_of(st.just(""), names),
)
phases = st.builds(
    lambda outer, inner: Phase(**{**vars(outer), "inner": tuple(inner)}),
    plain_phases,
    st.lists(plain_phases, max_size=2),
)
plans = st.builds(
    RoundPlan,
    run_id=names,
    round=st.integers(1, 2**31),
    seed=st.integers(0, 2**63),
    phase=phases,
    returns=st.lists(names, max_size=4).map(tuple),
)
REPORT = ClientReport("run", 3, "train", 2, 17, 5, 0.25)


@given(plans)
def test_plan_survives_the_trip(plan: RoundPlan) -> None:
    assert decode_plan(encode_plan(plan)) == plan


def test_plan_keeps_unknown_fields_of_a_newer_version() -> None:
    message = plan_pb2.RoundPlan(major=MAJOR, minor=MINOR + 7, run_id="r", round=1)
    message.phase.name, message.phase.batch_size, message.phase.view_fraction = "p", 8, 1.0
    # Field 999, wire type 2 (length-delimited): no version of ours defines it.
    newer = message.SerializeToString() + b"\xba\x3e\x03abc"
    plan = decode_plan(newer)
    assert plan.phase.batch_size == 8
    assert b"\xba\x3e\x03abc" in encode_plan(plan)


@pytest.mark.parametrize(
    ("major", "behind"), [(MAJOR + 1, "this side is behind"), (0, "the sender is behind")]
)
def test_another_major_version_is_refused_by_either_side(major: int, behind: str) -> None:
    plan = plan_pb2.RoundPlan(major=major).SerializeToString()
    report = report_pb2.ClientReport(major=major).SerializeToString()
    site = report_pb2.SiteDescription(major=major).SerializeToString()
    for read, data in ((decode_plan, plan), (decode_report, report), (decode_site, site)):
        with pytest.raises(WireError, match=behind):
            read(data)


@pytest.mark.parametrize("read", [decode_plan, decode_report, decode_site])
def test_bytes_that_are_no_message_are_refused(read: object) -> None:
    with pytest.raises(WireError, match="cannot be read"):
        read(b"\xff\xff\xff")  # type: ignore[operator]


def test_report_and_site_survive_the_trip() -> None:
    assert decode_report(encode_report(REPORT)) == REPORT
    site = Site(4, "klinik-ö", 12, {"modality": "ct", "tag": "a"})
    assert decode_site(encode_site(site)) == site


def test_shared_array_is_a_flower_array_with_the_same_bytes() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    mine, flowers = SharedArray(values), Array(values)
    assert (mine.dtype, mine.shape, mine.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    assert mine.data == flowers.data
    assert Array(dtype=mine.dtype, shape=mine.shape, stype=mine.stype, data=mine.data) == flowers
    assert mine == SharedArray(values.copy())
    assert mine != SharedArray(values + 1)


def test_view_shares_memory_and_numpy_does_not() -> None:
    values = np.ones(3)
    record = record_of({"w": values})
    (view,) = arrays_of(record).values()
    assert np.shares_memory(view, values)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2.0
    copy = record["w"].numpy()
    copy[0] = 5.0
    assert values[0] == 1.0
    assert values.flags.writeable, "the owner may still write"


def test_nothing_is_encoded_until_bytes_are_asked_for() -> None:
    shared = SharedArray(np.zeros((100, 100)))
    assert shared.__dict__["_encoded"] is None
    record_of({"w": shared.view()}).values()
    arrays_of(ArrayRecord())
    assert shared.__dict__["_encoded"] is None
    assert len(shared.data) > 80_000


def test_objects_cannot_travel() -> None:
    with pytest.raises(WireError, match="object"):
        SharedArray(np.array([{}]))


def test_array_whose_header_lies_is_refused() -> None:
    record = ArrayRecord()
    honest = Array(np.zeros(4))
    record["w"] = Array(dtype="float64", shape=(2**40,), stype=honest.stype, data=honest.data)
    with pytest.raises(WireError, match=r"'w' declares float64\(1099511627776,\)"):
        arrays_of(record)
    record["w"] = Array(dtype="float64", shape=(4,), stype=honest.stype, data=honest.data[:-8])
    with pytest.raises(WireError, match="'w' cannot be decoded"):
        arrays_of(record)


def test_pickled_objects_are_never_loaded() -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    record = ArrayRecord()
    record["w"] = Array("object", (1,), Array(np.zeros(1)).stype, buffer.getvalue())
    with pytest.raises(WireError, match="cannot be decoded"):
        arrays_of(record)


def test_instruction_holds_exactly_the_blocks_sent() -> None:
    trained, all_arrays = {"a": np.zeros(2)}, {"a": np.zeros(2), "b": np.ones(3)}
    strategy_record = record_of(trained)
    content = RecordDict({"arrays": strategy_record, "config": ConfigRecord({"proximal-mu": 0.5})})
    plan = RoundPlan("run", 1, 0, Phase("p"), ("a",))
    full = complete_instruction(content, plan, all_arrays)
    read = read_instruction(full)
    assert read.plan == plan
    assert set(read.arrays) == {"a", "b"}
    assert read.extras == {"proximal-mu": 0.5}
    assert list(full.array_records) == ["arrays", FROZEN]
    only_b = complete_instruction(content, plan, {"b": all_arrays["b"]})
    assert set(read_instruction(only_b).arrays) == {"b"}
    assert list(strategy_record) == ["a"], "the strategy may keep its record"
    assert OURS not in content


def test_instruction_without_plan_is_refused() -> None:
    with pytest.raises(WireError, match="no round plan"):
        read_instruction(RecordDict({"arrays": ArrayRecord()}))


def test_reply_holds_one_array_and_one_metric_record() -> None:
    reply = make_reply(REPORT, {"w": np.ones(2)}, {"loss": 0.5})
    assert len(reply.array_records) == len(reply.metric_records) == 1
    read = read_reply(reply)
    assert read.report == REPORT
    assert read.metrics == {"num-examples": 17.0, "loss": 0.5}
    np.testing.assert_array_equal(read.arrays["w"], np.ones(2))


def test_reply_with_lists_or_too_many_records_is_refused() -> None:
    reply = make_reply(REPORT, {"w": np.ones(2)}, {})
    reply["more"] = MetricRecord({"x": 1.0})
    with pytest.raises(WireError, match="1 array and 2 metric records"):
        read_reply(reply)
    listed = make_reply(REPORT, {"w": np.ones(2)}, {})
    listed["metrics"] = MetricRecord({"x": [1.0, 2.0]})
    with pytest.raises(WireError, match="'x' is a list"):
        read_reply(listed)
    with pytest.raises(WireError, match="no client report"):
        read_reply(RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord()}))
