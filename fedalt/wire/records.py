"""Where protobuf and Flower records meet: what an instruction and a reply hold.

An instruction holds the strategy's own records (one ArrayRecord, one ConfigRecord), and
ours: ``fedalt`` with the plan and, where a phase sends blocks it does not train, ``frozen``
with those. A reply holds exactly one ArrayRecord and one MetricRecord, as stock Flower
strategies demand, and the report in a ConfigRecord.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedalt.alternation.phase import Scalar
from fedalt.errors import WireError
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan
from fedalt.wire.report import ClientReport, decode_report, encode_report

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
    ours = content.config_records.get(OURS)
    data = ours.get("plan") if ours is not None else None
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
    return RecordDict(
        {
            ARRAYS: record_of(arrays),
            METRICS: MetricRecord({WEIGHT: report.num_examples, **metrics}),
            OURS: ConfigRecord({"report": encode_report(report)}),
        }
    )


def read_reply(content: RecordDict) -> Reply:
    """Decode a reply; raises :class:`WireError` for whatever does not follow the contract."""
    ours = content.config_records.get(OURS)
    data = ours.get("report") if ours is not None else None
    if not isinstance(data, bytes):
        raise WireError("the reply holds no client report; is the sender a fedalt client?")
    if len(content.array_records) != 1 or len(content.metric_records) != 1:
        raise WireError(
            f"the reply holds {len(content.array_records)} array and "
            f"{len(content.metric_records)} metric records; exactly one of each is expected"
        )
    metrics = dict(next(iter(content.metric_records.values())))
    for key, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WireError(f"the reply's metric '{key}' is a {type(value).__name__}, not a number")
    arrays = arrays_of(next(iter(content.array_records.values())))
    return Reply(decode_report(data), arrays, {k: float(v) for k, v in metrics.items()})  # type: ignore[arg-type]
