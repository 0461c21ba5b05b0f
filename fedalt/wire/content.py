"""Flower records that cost little where the process is shared, and encode as Flower's do.

Flower checks every entry of every record as it is set, which is dearer than a small client's
whole training. What is known to be sound is put in as it is; what is not goes Flower's way.
A :class:`ReportRecord` makes its protobuf bytes only if something asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedalt.wire.report import ClientReport, decode_report, encode_report

REPORT = "report"
Record = ArrayRecord | MetricRecord | ConfigRecord
Some = TypeVar("Some")

# Flower's ``copy`` makes a record in a fifth of the time of its constructor.
_ARRAYS, _METRICS, _CONFIG, _EMPTY = ArrayRecord(), MetricRecord(), ConfigRecord(), RecordDict()
_ARRAY_VIEW, _METRIC_VIEW = _EMPTY.array_records, _EMPTY.metric_records


def array_record(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of arrays under names that are texts."""
    record = _ARRAYS.copy()
    record.__dict__["_data"] = dict(arrays)
    return record


def metric_record(metrics: Mapping[str, Any]) -> MetricRecord:
    """Return a record of metrics; raises ``TypeError`` as Flower does for what is no number."""
    for name, value in metrics.items():
        if type(name) is not str or (type(value) is not float and type(value) is not int):
            return MetricRecord(dict(metrics))
    record = _METRICS.copy()
    record.__dict__["_data"] = dict(metrics)
    return record


def report_record(report: ClientReport) -> ConfigRecord:
    """Return a record of a report, encoded on demand.

    A report that protobuf would change or refuse is encoded at once, so that it fails here.
    """
    if _survives(report):
        return ReportRecord(report)
    return ConfigRecord({REPORT: encode_report(report)})


def report_of(record: ConfigRecord) -> ClientReport | None:
    """Return the report that a record holds, or ``None``.

    Raises :class:`WireError` for bytes that are no report.
    """
    if isinstance(record, ReportRecord) and record.report is not None:
        return record.report
    data = record.get(REPORT)
    return decoded_once(record, data, decode_report) if isinstance(data, bytes) else None


def decoded_once(holder: object, data: bytes, decode: Callable[[bytes], Some]) -> Some:
    """Decode what ``holder`` holds, and keep the result with it for as long as it holds it."""
    kept: tuple[bytes, Some] | None = holder.__dict__.get("_decoded")
    if kept is None or kept[0] is not data:
        kept = holder.__dict__["_decoded"] = (data, decode(data))
    return kept[1]


def _survives(report: ClientReport) -> bool:
    """Say whether protobuf gives the report back as it is."""
    small = _fits(report.round, 32) and _fits(report.site, 32)
    counted = _fits(report.num_examples, 64) and _fits(report.steps, 64)
    texts = type(report.run_id) is str and type(report.phase) is str
    if not (small and counted and texts and type(report.seconds) is float):
        return False
    # Of other texts some have no UTF-8.
    return report.run_id.isascii() and report.phase.isascii()


def _fits(value: object, bits: int) -> bool:
    return type(value) is int and not value >> bits


class ReportRecord(ConfigRecord):
    """A ``ConfigRecord`` with one entry, the report's bytes, made when an entry is asked for."""

    def __init__(self, report: ClientReport) -> None:
        self.__dict__.update(_CONFIG.__dict__, _data={}, _report=report)

    @property
    def report(self) -> ClientReport | None:
        """The report, for as long as nobody has changed the record."""
        report: ClientReport | None = self.__dict__["_report"]
        return report

    def _entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = self.__dict__["_data"]
        if not entries and self.report is not None:
            entries[REPORT] = encode_report(self.report)
        return entries

    def __setitem__(self, key: str, value: Any) -> None:
        self._entries()
        super().__setitem__(key, value)
        self.__dict__["_report"] = None

    def __delitem__(self, key: str) -> None:
        self._entries()
        super().__delitem__(key)
        self.__dict__["_report"] = None

    def __getitem__(self, key: str) -> Any:
        return self._entries()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())

    def __contains__(self, key: object) -> bool:
        return key in self._entries()

    def __eq__(self, other: object) -> bool:
        self._entries()
        if isinstance(other, ReportRecord):
            other._entries()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._entries())

    def keys(self) -> KeysView[str]:
        """Return the entries' names."""
        return self._entries().keys()

    def values(self) -> ValuesView[Any]:
        """Return the entries' values."""
        return self._entries().values()

    def items(self) -> ItemsView[str, Any]:
        """Return the entries."""
        return self._entries().items()

    def copy(self) -> Self:
        """Return a copy, of which either may be changed."""
        new = super().copy()
        new.__dict__["_report"] = self.report
        return new

    def deflate(self) -> bytes:
        """Encode as the ``ConfigRecord`` that it is to the other side."""
        return ConfigRecord(dict(self._entries())).deflate()


class Content(RecordDict):
    """A ``RecordDict`` whose views by kind cost little: stock strategies take many a reply."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self.__dict__.update(_EMPTY.__dict__, _data=dict(records))

    @property
    def array_records(self) -> Any:
        """The records of arrays; what is set or deleted there is so here."""
        return self._view(_ARRAY_VIEW, ArrayRecord)

    @property
    def metric_records(self) -> Any:
        """The records of metrics, likewise."""
        return self._view(_METRIC_VIEW, MetricRecord)

    def _view(self, empty: Any, kind: type) -> Any:
        view = empty.copy()
        records = self.__dict__["_data"]
        found = {key: record for key, record in records.items() if isinstance(record, kind)}
        view.__dict__.update(_data=found, recorddict=self, allowed_type=kind)
        return view

    def deflate(self) -> bytes:
        """Encode as the ``RecordDict`` that it is to the other side."""
        return RecordDict(dict(self.items())).deflate()
