"""Records made without Flower's checks: the same to Flower, the same bytes, and made late."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedalt.errors import WireError
from fedalt.grids.local import LocalGrid
from fedalt.seeds import Seeds
from fedalt.wire import arrays as arrays_module
from fedalt.wire import content as content_module
from fedalt.wire.arrays import SharedArray, record_of
from fedalt.wire.content import Content, ReportRecord, metric_record, report_of, report_record
from fedalt.wire.records import OURS, make_reply, read_reply
from fedalt.wire.report import ClientReport, encode_report

REPORT = ClientReport("run", 3, "train", 2, 17, 5, 0.25)
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def flowers_own(metrics: dict[str, Any] | None = None) -> RecordDict:
    """The reply below as Flower's constructors make it."""
    return RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(VALUES)}),
            "metrics": MetricRecord({"num-examples": 17, **(metrics or {})}),
            OURS: ConfigRecord({"report": encode_report(REPORT)}),
        }
    )


def ours() -> RecordDict:
    return make_reply(REPORT, {"w": VALUES}, {"loss": 0.5})


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    calls: list[int] = []
    real = getattr(module, name)

    def spy(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(module, name, spy)
    return calls


# --- nothing is encoded until it is asked for ---------------------------------------------


def test_a_reply_in_one_process_is_neither_encoded_nor_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = count(monkeypatch, content_module, "encode_report")
    decoded = count(monkeypatch, content_module, "decode_report")
    reply = ours()
    read = read_reply(reply)
    assert read == read_reply(reply) and read.report is REPORT
    assert not encoded and not decoded
    assert reply[OURS]["report"] == reply[OURS]["report"]
    assert len(encoded) == 1 and not decoded, "asked for twice, made once"


TOUCHES: dict[str, Callable[[Any], Any]] = {
    "item": lambda r: r["report"],
    "get": lambda r: r.get("report"),
    "missing": lambda r: r.get("other", 4),
    "in": lambda r: ("report" in r, "other" in r),
    "length": len,
    "iteration": list,
    "keys": lambda r: list(r.keys()),
    "values": lambda r: list(r.values()),
    "items": lambda r: list(r.items()),
    "text": repr,
    "copy": lambda r: dict(r.copy()),
    "size": lambda r: r.count_bytes(),
    "bytes": lambda r: r.deflate(),
    "identity": lambda r: r.object_id,
    "equal": lambda r: r == ConfigRecord({"report": encode_report(REPORT)}),
    "equal to a dict": lambda r: r == {"report": encode_report(REPORT)},
    "reversed": lambda r: ConfigRecord({"report": encode_report(REPORT)}) == r,
    "pop": lambda r: (r.pop("report"), dict(r)),
    "clear": lambda r: (r.clear(), len(r)),
    "update": lambda r: (r.update(more=1), dict(r)),
    "replace": lambda r: (r.update(report=b"x"), dict(r)),
    "pickle": lambda r: dict(pickle.loads(pickle.dumps(r))),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_report_record_is_a_config_record_whichever_way_it_is_touched_first(touch: str) -> None:
    plain = ConfigRecord({"report": encode_report(REPORT)})
    assert TOUCHES[touch](ReportRecord(REPORT)) == TOUCHES[touch](plain)


def test_a_report_record_checks_what_is_set_as_flower_does() -> None:
    record = ReportRecord(REPORT)
    with pytest.raises(TypeError):
        record["more"] = {}  # type: ignore[assignment]
    assert report_of(record) == REPORT
    twin = record.copy()
    twin["report"] = encode_report(replace(REPORT, site=9))
    assert report_of(twin) == replace(REPORT, site=9) and report_of(record) == REPORT
    del twin["report"]
    assert report_of(twin) is None
    assert ReportRecord(REPORT) == ReportRecord(REPORT) != ReportRecord(replace(REPORT, site=9))


@pytest.mark.parametrize(
    "facts",
    [{"site": -1}, {"round": 2**32}, {"num_examples": 2.5}, {"steps": "x"}, {"phase": "\ud800"}],
    ids=str,
)
def test_a_report_that_cannot_travel_fails_where_it_is_made(facts: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        report_record(replace(REPORT, **facts))


def test_a_report_that_protobuf_would_change_is_changed_at_once() -> None:
    made = report_record(replace(REPORT, num_examples=np.int64(17), seconds=1, phase="ö"))  # type: ignore[arg-type]
    found = report_of(made)
    assert found == replace(REPORT, seconds=1.0, phase="ö")
    assert type(found.num_examples) is int and type(found.seconds) is float


# --- what leaves the process is Flower's --------------------------------------------------


def test_a_reply_encodes_to_the_bytes_of_flowers_own_records() -> None:
    mine, flowers = ours(), flowers_own({"loss": 0.5})
    assert mine == flowers and flowers == mine
    assert mine.deflate() == flowers.deflate() and mine.object_id == flowers.object_id
    for key in flowers:
        assert mine[key].deflate() == flowers[key].deflate()
    assert SharedArray(VALUES).deflate() == Array(VALUES).deflate()


def test_a_message_survives_flowers_own_way_out_of_the_process() -> None:
    """As ``flwr run`` sends it: objects by the hash of their bytes."""
    grid = LocalGrid(ClientApp(), 1, {}, Seeds(0))
    (node,) = grid.get_node_ids()
    message = Message(ours(), node, "train")
    contents = {k: v.deflate() for k, v in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(message.object_id, contents)
    assert read_reply(arrived.content).report == REPORT  # type: ignore[attr-defined]
    assert arrived.content == flowers_own({"loss": 0.5})  # type: ignore[attr-defined]


def test_a_reply_survives_pickling() -> None:
    arrived = pickle.loads(pickle.dumps(ours()))
    assert arrived == ours() and read_reply(arrived).report == REPORT
    assert list(arrived.array_records) == ["arrays"]


# --- what came as bytes is decoded once ---------------------------------------------------


def test_bytes_are_decoded_once_and_again_when_they_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = count(monkeypatch, content_module, "decode_report")
    parsed = count(monkeypatch, arrays_module, "_parse")
    reply = flowers_own()
    first, second = read_reply(reply), read_reply(reply)
    assert first.report == second.report == REPORT
    np.testing.assert_array_equal(second.arrays["w"], VALUES)
    assert len(reports) == len(parsed) == 1
    reply[OURS]["report"] = encode_report(replace(REPORT, site=8))
    reply["arrays"]["w"].data = Array(VALUES + 1).data
    changed = read_reply(reply)
    assert changed.report.site == 8 and changed.arrays["w"][0, 0] == 1.0
    assert len(reports) == len(parsed) == 2


def test_bytes_that_cannot_be_read_are_refused_each_time() -> None:
    reply = RecordDict({**ours(), OURS: ConfigRecord({"report": b"\xff" * 9})})
    for _ in range(2):
        with pytest.raises(WireError, match="cannot be read"):
            read_reply(reply)


def test_a_record_changed_in_place_is_read_as_it_is() -> None:
    reply = ours()
    read_reply(reply)
    reply["arrays"]["w"] = SharedArray(VALUES * 2)
    reply["metrics"]["loss"] = 7.0
    reply[OURS]["report"] = encode_report(replace(REPORT, steps=1))
    read = read_reply(reply)
    assert (read.report.steps, read.metrics["loss"], read.arrays["w"][1, 2]) == (1, 7.0, 10.0)
    reply["more"] = MetricRecord({"x": 1.0})
    with pytest.raises(WireError, match="1 array and 2 metric records"):
        read_reply(reply)


# --- records and their views --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array_records", "metric_records", "config_records"])
def test_views_by_kind_are_flowers_and_write_through(kind: str) -> None:
    mine, flowers = ours(), flowers_own({"loss": 0.5})
    view, theirs = getattr(mine, kind), getattr(flowers, kind)
    assert view == theirs and type(view) is type(theirs)
    wrong: Any = MetricRecord() if kind == "array_records" else ArrayRecord()
    with pytest.raises(TypeError):
        view["new"] = wrong
    (key,) = list(view)
    view["new"] = view[key]
    assert "new" in mine and len(getattr(mine, kind)) == 2
    del view["new"]
    assert mine == flowers


def test_content_checks_what_is_set_as_flower_does() -> None:
    content = Content({"arrays": record_of({"w": VALUES})})
    with pytest.raises(TypeError):
        content["x"] = 3  # type: ignore[assignment]
    record: Any = content["arrays"]
    with pytest.raises(TypeError):
        record["w"] = VALUES
    assert "w" in record and isinstance(content, RecordDict)


@pytest.mark.parametrize(
    "metrics", [{"a": True}, {"a": "x"}, {"a": None}, {"a": np.float32(1.0)}, {1: 2.0}], ids=str
)
def test_metrics_that_are_no_numbers_are_refused_as_flower_does(metrics: Any) -> None:
    with pytest.raises(TypeError):
        metric_record(metrics)


def test_metrics_are_flowers_and_their_own() -> None:
    given = {"num-examples": 3, "loss": 0.5, "list": [1.0, 2.0]}
    for metrics in (given, {k: v for k, v in given.items() if k != "list"}):
        made = metric_record(metrics)
        assert made == MetricRecord(dict(metrics)) and type(made) is MetricRecord
        made["loss"] = 9.0
        assert metrics["loss"] == 0.5 and "loss" not in metric_record({"x": 1.0})
        with pytest.raises(TypeError):
            made["y"] = True  # type: ignore[assignment]
