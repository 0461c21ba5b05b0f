"""Where protobuf and Flower records meet: what an instruction and a reply hold.

An instruction holds the strategy's own records (one ArrayRecord, one ConfigRecord), and
ours: ``fedalt`` with the plan and, where a phase sends blocks it does not train, ``frozen``
with those. A reply holds exactly one ArrayRecord and one MetricRecord, as stock Flower
strategies demand, and the report in a ConfigRecord.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedalt.alternation.phase import Scalar
from fedalt.errors import WireError
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.content import Content, metric_record, report_of, report_record
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan
from fedalt.wire.report import ClientReport

ARRAYS = "arrays"
FROZEN = "frozen"
METRICS = "metrics"
OURS = "fedalt"
WEIGHT = "num-examples"
"""The metric by which Flower's strategies weight replies."""


@dataclass(frozen=True)
class Instruction:
    """An instruction, decoded: plan, arrays (read-only) and the strategy's own settings."""

    plan: RoundPlan
    arrays: dict[str, np.ndarray]
    extras: dict[str, Scalar]


@dataclass(frozen=True)
class Reply:
    """A reply, decoded: report, arrays (read-only) and metrics."""

    report: ClientReport
    arrays: dict[str, np.ndarray]
    metrics: dict[str, float]


def complete_instruction(
    content: RecordDict, plan: RoundPlan, sent: Mapping[str, np.ndarray]
) -> RecordDict:
    """Add the plan to a strategy's instruction and make its arrays exactly the blocks sent.

    The strategy's records are left as they are (it may keep them): the result is a new dict.
    """
    full = RecordDict()
    given: set[str] = set()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            kept = ArrayRecord()
            for name, array in record.items():
                if name in sent:
                    kept[name] = array
            given.update(kept)
            full[key] = kept
        else:
            full[key] = record
    frozen = {name: values for name, values in sent.items() if name not in given}
    if frozen:
        full[FROZEN] = record_of(frozen)
    full[OURS] = ConfigRecord({"plan": encode_plan(plan)})
    return full


def read_instruction(content: RecordDict) -> Instruction:
    """Decode an instruction.

    Raises :class:`WireError` if the plan is missing, unreadable or of another major version.
    """
    ours = content.get(OURS)
    data = ours.get("plan") if isinstance(ours, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise WireError("the instruction holds no round plan; is the server a fedalt server?")
    arrays: dict[str, np.ndarray] = {}
    for record in content.array_records.values():
        arrays.update(arrays_of(record))
    extras: dict[str, Scalar] = {
        key: value
        for name, record in content.config_records.items()
        if name != OURS
        for key, value in record.items()
        if isinstance(value, bool | int | float | str)
    }
    return Instruction(decode_plan(data), arrays, extras)


def make_reply(
    report: ClientReport, arrays: Mapping[str, np.ndarray], metrics: Mapping[str, float]
) -> RecordDict:
    """Build a reply; the arrays are given away, not copied."""
    return Content(
        {
            ARRAYS: record_of(arrays),
            METRICS: metric_record({WEIGHT: report.num_examples, **metrics}),
            OURS: report_record(report),
        }
    )


def read_reply(content: RecordDict) -> Reply:
    """Decode a reply; raises :class:`WireError` for whatever does not follow the contract.

    Bytes are decoded once: what was read from them stays with the record that holds them.
    """
    ours = content.get(OURS)
    report = report_of(ours) if isinstance(ours, ConfigRecord) else None
    if report is None:
        raise WireError("the reply holds no client report; is the sender a fedalt client?")
    arrays, metrics = read_records(content)
    return Reply(report, arrays, metrics)


def read_records(content: RecordDict) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Decode the arrays and metrics that any Flower client's reply holds.

    Raises :class:`WireError` unless there is one record of each, of arrays and of numbers.
    """
    # Not content.array_records: Flower copies and checks every record at each look at it.
    arrays: list[ArrayRecord] = []
    metrics: list[MetricRecord] = []
    for record in content.values():
        kind = _kind(type(record))
        if kind is ArrayRecord:
            arrays.append(cast(ArrayRecord, record))
        elif kind is MetricRecord:
            metrics.append(cast(MetricRecord, record))
    if len(arrays) != 1 or len(metrics) != 1:
        raise WireError(
            f"the reply holds {len(arrays)} array and {len(metrics)} metric records; "
            "exactly one of each is expected"
        )
    return arrays_of(arrays[0]), {key: _number(key, value) for key, value in metrics[0].items()}


@cache
def _kind(cls: type) -> type:
    """Tell what kind of record a class is; Flower's are abstract, which makes asking dear."""
    kinds = (ArrayRecord, MetricRecord, ConfigRecord)
    return next((kind for kind in kinds if issubclass(cls, kind)), cls)


def _number(key: str, value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError(f"the reply's metric '{key}' is a {type(value).__name__}, not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise WireError(f"the reply's metric '{key}' is no number of 64 bits") from error
