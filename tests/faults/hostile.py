"""Clients that misbehave on purpose, and grids that carry their replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federations import federate
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict

from fedalt.clients.app import SiteApp
from fedalt.grids.local import LocalGrid
from fedalt.runs import simulate as engine
from fedalt.runs.checkpoint import Snapshot
from fedalt.runs.events import read_events
from fedalt.wire.records import ARRAYS, METRICS, OURS, WEIGHT, read_reply, record_of
from fedalt.wire.report import encode_report

Tamper = Callable[[RecordDict], RecordDict]
Carry = Callable[[Sequence[Message], list[Message]], Iterable[Message]]
HOSTILE = 2
"""The site that misbehaves."""


class Tampering(SiteApp):
    """The real client, but one site's training replies are changed on their way out."""

    tamper: Tamper = staticmethod(lambda content: content)
    rounds: frozenset[int] = frozenset({2})

    def _reply(self, message: Message, context: Context, *work: Any) -> Message:
        reply = super()._reply(message, context, *work)
        mine = context.node_config["partition-id"] == HOSTILE
        if mine and read_reply(reply.content).report.round in self.rounds:
            reply.content = type(self).tamper(reply.content)
        return reply


def tampering(monkeypatch: pytest.MonkeyPatch, tamper: Tamper, rounds: set[int]) -> None:
    """Let the hostile site change its replies in some rounds."""

    class Chosen(Tampering):
        pass

    Chosen.tamper, Chosen.rounds = staticmethod(tamper), frozenset(rounds)
    serve(monkeypatch, Chosen)


def serve(monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]) -> None:
    """Let simulations use another ClientApp."""
    load = engine._load
    monkeypatch.setattr(engine, "_load", lambda name: made if name == engine.CLIENT else load(name))


def carry(monkeypatch: pytest.MonkeyPatch, change: Carry) -> None:
    """Let simulations use a grid that changes what comes back for training messages."""

    class Carrying(LocalGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            batch = list(messages)
            replies = list(super().send_and_receive(batch, timeout=timeout))
            trained = batch and batch[0].metadata.message_type == "train"
            return change(batch, replies) if trained else replies

    monkeypatch.setattr(engine, "LocalGrid", Carrying)


def with_arrays(content: RecordDict, **arrays: Any) -> RecordDict:
    """Replace arrays of a reply by name."""
    kept = {**read_reply(content).arrays, **arrays}
    return RecordDict({**content, ARRAYS: record_of(kept)})


def with_weight(content: RecordDict, weight: Any, told: int | None = None) -> RecordDict:
    """Replace the number of examples, in the report too if ``told``."""
    metrics = MetricRecord({**content.metric_records[METRICS], WEIGHT: weight})
    changed = RecordDict({**content, METRICS: metrics})
    return changed if told is None else with_report(changed, num_examples=told)


def with_report(content: RecordDict, **facts: Any) -> RecordDict:
    """Change what the report says."""
    report = replace(read_reply(content).report, **facts)
    return RecordDict({**content, OURS: ConfigRecord({"report": encode_report(report)})})


def failed(message: Message) -> Message:
    """The reply of a client that raised."""
    return Message(Error(1, "a bad day"), reply_to=message)


def refusals(folder: Path) -> list[dict[str, Any]]:
    """Return a run's refusals as its event log tells them."""
    return [event for event in read_events(folder / "events.jsonl") if event["event"] == "refused"]


def without_the_site(task: Any, folder: Path, **changes: Any) -> Snapshot:
    """Run with a selector that leaves the hostile site out of every cohort."""
    phases = {
        name: {**phase, "clients": {"unless": {"tag": "hostile"}}}
        for name, phase in changes.pop("phases").items()
    }
    return federate(task, folder, phases=phases, **changes)[1]
