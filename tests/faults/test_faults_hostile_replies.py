"""Admission: a hostile reply is refused by name, and the rest is as if it had not come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import BLOCKWISE, LeastSquares, federate
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hostile import (
    HOSTILE,
    carry,
    failed,
    refusals,
    serve,
    tampering,
    with_arrays,
    with_report,
    with_weight,
    without_the_site,
)

from fedalt.clients.app import SiteApp
from fedalt.errors import QuorumError
from fedalt.hashing import arrays_hash
from fedalt.wire.records import ARRAYS, METRICS, OURS, read_reply

CLIENTS = 5
FEDAVG = {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_evaluate": 0.0}
TRAIN = {"kernel": "gradient", "batch_size": 10_000, "params": {"lr": 0.1}}


def federation() -> LeastSquares:
    task = LeastSquares(CLIENTS)
    mark = {"tag": "hostile"}
    task.sites = [
        replace(s, attributes={**s.attributes, **(mark if s.index == HOSTILE else {})})
        for s in task.sites
    ]
    return task


def run(folder: Path, **changes: Any) -> tuple[dict[str, Any], str]:
    """Run two rounds at a quorum of one half; return the result and the weights' hash."""
    base = {"rounds": 2, "quorum": 0.5, "phases": {"train": TRAIN}, "strategy": FEDAVG}
    result, snapshot = federate(federation(), folder, **{**base, **changes})
    return result, arrays_hash(snapshot.model)


@pytest.fixture(scope="module", params=["FedAvg", "Blockwise"])
def honest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The run without the hostile site, and the strategy it ran."""
    strategy = FEDAVG if request.param == "FedAvg" else BLOCKWISE
    folder = tmp_path_factory.mktemp("honest") / "run"
    changes = {"rounds": 2, "quorum": 0.5, "phases": {"train": TRAIN}, "strategy": strategy}
    snapshot = without_the_site(federation(), folder, **changes)
    return {"hash": arrays_hash(snapshot.model), "strategy": strategy}


def fake(shape: tuple[int, ...], data: bytes, dtype: str = "float64") -> Callable[..., RecordDict]:
    """A reply whose bias is an Array with any header over any bytes."""

    def tamper(content: RecordDict) -> RecordDict:
        record = ArrayRecord(dict(content.array_records[ARRAYS]))
        record["bias"] = Array(dtype, shape, "numpy.ndarray", data)
        return RecordDict({**content, ARRAYS: record})

    return tamper


def reordered(content: RecordDict) -> RecordDict:
    arrays = read_reply(content).arrays
    record = ArrayRecord({name: Array(arrays[name]) for name in reversed(arrays)})
    return RecordDict({**content, ARRAYS: record})


def metrics(content: RecordDict, **more: Any) -> RecordDict:
    return RecordDict(
        {**content, METRICS: MetricRecord({**content.metric_records[METRICS], **more})}
    )


def renamed(content: RecordDict) -> RecordDict:
    return RecordDict({("a" if key == ARRAYS else key): record for key, record in content.items()})


def npy(values: np.ndarray) -> bytes:
    return Array(values).data


GIANT = npy(np.zeros(1)).replace(b"(1,)", b"(549755813888,)").replace(b" " * 11, b"", 1)
PICKLED = BytesIO()
np.save(PICKLED, np.array([{"a": 1}], dtype=object), allow_pickle=True)
nan, inf = np.array([np.nan]), np.array([np.inf])

REPLIES: dict[str, tuple[Callable[[RecordDict], RecordDict], str]] = {
    "nan": (lambda c: with_arrays(c, bias=nan), "finite"),
    "inf": (lambda c: with_arrays(c, bias=inf), "finite"),
    "shape": (lambda c: with_arrays(c, bias=np.zeros(2)), "shaped"),
    "broadcasts": (lambda c: with_arrays(c, bias=np.zeros((1, 1))), "shaped"),
    "dtype": (lambda c: with_arrays(c, bias=np.zeros(1, np.float32)), "shaped"),
    "byte order": (lambda c: with_arrays(c, bias=np.zeros(1, ">f8")), "shaped"),
    "text": (lambda c: with_arrays(c, bias=np.array(["x"])), "shaped"),
    "missing": (lambda c: fake((1,), npy(np.zeros(1)))(_without(c, "weight")), "complete"),
    "extra": (lambda c: with_arrays(c, backdoor=np.zeros(1)), "complete"),
    "order": (reordered, "complete"),
    "negative weight": (lambda c: with_weight(c, -5), "weighted"),
    "negative zero": (lambda c: with_weight(c, -0.5), "weighted"),
    "absurd weight": (lambda c: with_weight(c, 10**12, told=10**12), "weighted"),
    "nan weight": (lambda c: with_weight(c, float("nan")), "weighted"),
    "inf weight": (lambda c: with_weight(c, float("inf")), "weighted"),
    "beyond float": (lambda c: with_weight(c, 10**400), "readable"),
    "listed weight": (lambda c: with_weight(c, [3, 4]), "readable"),
    "no weight": (lambda c: RecordDict({**c, METRICS: MetricRecord({"loss": 1.0})}), "weighted"),
    "other than reported": (lambda c: with_weight(c, 17.0, told=16), "weighted"),
    "wrong run": (lambda c: with_report(c, run_id="another"), "addressed"),
    "wrong round": (lambda c: with_report(c, round=1), "addressed"),
    "wrong phase": (lambda c: with_report(c, phase="other"), "addressed"),
    "wrong site": (lambda c: with_report(c, site=0), "addressed"),
    "garbage report": (
        lambda c: RecordDict({**c, OURS: ConfigRecord({"report": b"\xff" * 9})}),
        "readable",
    ),
    "report of text": (
        lambda c: RecordDict({**c, OURS: ConfigRecord({"report": "me"})}),
        "readable",
    ),
    "no report": (lambda c: RecordDict({ARRAYS: c[ARRAYS], METRICS: c[METRICS]}), "readable"),
    "two records": (lambda c: RecordDict({**c, "more": ArrayRecord()}), "readable"),
    "empty": (lambda c: RecordDict(), "readable"),
    "truncated": (fake((1,), npy(np.zeros(1))[:-1]), "readable"),
    "no bytes": (fake((1,), b""), "readable"),
    "trailing bytes": (fake((1,), npy(np.zeros(1)) + b"x"), "readable"),
    "header lies": (fake((2,), npy(np.zeros(1))), "readable"),
    "giant": (fake((2**39,), GIANT), "readable"),
    "objects": (fake((1,), PICKLED.getvalue(), "object"), "readable"),
    "extra metric": (lambda c: metrics(c, spy=1.0), "consistent"),
    "renamed record": (renamed, "consistent"),
}

REASONS = {
    "giant": "claims 4398046511104 bytes of values, it holds 8",
    "trailing bytes": "claims 8 bytes of values, it holds 9",
    "objects": "it holds objects",
    "absurd weight": "between 0 and 1e+09",
}


def _without(content: RecordDict, name: str) -> RecordDict:
    record = ArrayRecord({k: v for k, v in content.array_records[ARRAYS].items() if k != name})
    return RecordDict({**content, ARRAYS: record})


@pytest.mark.parametrize("case", REPLIES)
def test_a_hostile_reply_is_refused_by_name(
    case: str, honest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper, rule = REPLIES[case]
    # To say "round 1" is a lie in round 2 only.
    tampering(monkeypatch, tamper, {1, 2} if case != "wrong round" else {2})
    result, weights = run(tmp_path / "run", strategy=honest["strategy"])
    told = refusals(tmp_path / "run")
    assert {(event["site"], event["rule"]) for event in told} == {(HOSTILE, rule)}
    assert [event["round"] for event in told] == ([2] if case == "wrong round" else [1, 2])
    assert all(event["phase"] == "train" and event["reason"] for event in told)
    assert REASONS.get(case, "") in told[0]["reason"]
    assert result["round"] == 2
    if case != "wrong round":
        assert weights == honest["hash"], "the aggregate is that of a run without the sender"


def test_an_honest_site_is_not_refused(
    honest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table above means something only if its machinery refuses nobody by itself."""
    tampering(monkeypatch, lambda content: content, {1, 2})
    _, weights = run(tmp_path / "run", strategy=honest["strategy"])
    assert not refusals(tmp_path / "run") and weights != honest["hash"]


def by_site(batch: Iterable[Message], replies: list[Message]) -> dict[int, Message]:
    return {read_reply(r.content).report.site: r for r in replies if r.has_content()}


def test_a_replayed_reply_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[RecordDict] = []

    def replay(batch: Any, replies: list[Message]) -> list[Message]:
        mine = by_site(batch, replies)[HOSTILE]
        kept.append(mine.content)
        mine.content = kept[0]
        return replies

    carry(monkeypatch, replay)
    run(tmp_path / "run")
    (event,) = refusals(tmp_path / "run")
    assert (event["round"], event["site"], event["rule"]) == (2, HOSTILE, "addressed")


@pytest.mark.parametrize("place", [0, 99])
def test_a_second_reply_changes_nothing(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told twice, the same or not, before or after the others: the first one counts."""
    _, expected = run(tmp_path / "plain")

    def twice(batch: Any, replies: list[Message]) -> list[Message]:
        mine = by_site(batch, replies)[HOSTILE]
        order = next(m for m in batch if m.metadata.dst_node_id == mine.metadata.src_node_id)
        other = Message(with_arrays(mine.content, bias=np.ones(1)), reply_to=order)
        replies = [mine, *(r for r in replies if r is not mine)]
        replies.insert(max(1, place), other)
        return replies

    carry(monkeypatch, twice)
    _, weights = run(tmp_path / "run", quorum=1.0)
    assert weights == expected
    assert [(e["site"], e["rule"]) for e in refusals(tmp_path / "run")] == [(HOSTILE, "once")] * 2


def test_an_error_and_a_reply_by_one_site_are_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(batch: Any, replies: list[Message]) -> list[Message]:
        return [failed(batch[0]), *replies[:2]]

    carry(monkeypatch, both)
    with pytest.raises(QuorumError, match=r"2 of 5 replies count.* 1 refused, 3 silent"):
        run(tmp_path / "run", quorum=1.0)


def test_a_reply_for_another_node_or_to_nothing_is_refused(
    honest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impersonate(batch: Any, replies: list[Message]) -> list[Message]:
        mine = by_site(batch, replies)[HOSTILE]
        copied = by_site(batch, replies)[0]
        mine.metadata.__dict__["_reply_to_message_id"] = copied.metadata.reply_to_message_id
        unasked = Message(copied.content, reply_to=batch[1])
        unasked.metadata.__dict__["_reply_to_message_id"] = "never-sent"
        return [mine, unasked, *(r for r in replies if r is not mine)]

    carry(monkeypatch, impersonate)
    _, weights = run(tmp_path / "run", strategy=honest["strategy"])
    assert weights == honest["hash"]
    told = [(e["round"], e["site"], e["rule"]) for e in refusals(tmp_path / "run")]
    assert told == [(n, site, "asked") for n in (1, 2) for site in (HOSTILE, 1)]


def test_all_zero_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(SiteApp):
        def _reply(self, *arguments: Any) -> Message:
            reply = super()._reply(*arguments)
            reply.content = with_weight(reply.content, 0, told=0)
            return reply

    serve(monkeypatch, Lazy)
    with pytest.raises(QuorumError, match="num-examples is 0 for every client"):
        run(tmp_path / "run")


def test_one_zero_weight_is_no_offence(
    honest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampering(monkeypatch, lambda c: with_weight(c, 0, told=0), {1, 2})
    run(tmp_path / "run", strategy=honest["strategy"])
    assert not refusals(tmp_path / "run")


def test_a_failing_client_below_the_quorum_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_(content: RecordDict) -> RecordDict:
        raise ValueError("the scanner is off")

    tampering(monkeypatch, raise_, {2})
    with pytest.raises(QuorumError) as caught:
        run(tmp_path / "run", quorum=1.0)
    for part in ("round 2", "phase 'train'", "site 2 (answered)", "the scanner is off", "4 of 5"):
        assert part in str(caught.value)
    from fedalt.runs.folder import RunFolder

    status = RunFolder(tmp_path / "run").status()
    assert (status["state"], status["exit_code"]) == ("failed", 6)


def test_a_failing_client_within_the_quorum_leaves_no_trace(
    honest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_(content: RecordDict) -> RecordDict:
        raise ValueError("the scanner is off")

    tampering(monkeypatch, raise_, {1, 2})
    _, weights = run(tmp_path / "run", strategy=honest["strategy"])
    assert weights == honest["hash"]
