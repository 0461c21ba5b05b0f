"""Blockwise aggregation: every block of the model by its own rule.

A Flower ``Strategy`` that reads a phase's ``aggregate`` (block to rule, ``mean`` where it
says nothing) and hands each block's replies to that rule. Rules may keep arrays of their own
between rounds, such as a server table of every client's last reply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedalt.alternation.block import ALL, BlockMap
from fedalt.alternation.local import LOCAL
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import ScheduleError
from fedalt.server.strategies.rules import rule
from fedalt.server.strategies.rules.base import Contribution, RuleContext
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.messages import broadcast
from fedalt.wire.records import OURS, WEIGHT, Reply, read_records, read_reply
from fedalt.wire.report import ClientReport

DEFAULT_RULE = "mean"


class Blockwise(Strategy):
    """Aggregates each trained block by the rule its phase names.

    The loop calls :meth:`enter_phase` before each round; outside it, call it once.
    """

    def __init__(self) -> None:
        self._phase = Phase("train")
        self._groups: list[tuple[str, str, tuple[str, ...]]] = []
        self._sites: Sequence[Site] = ()
        self._current: dict[str, np.ndarray] = {}
        self._states: dict[str, dict[str, np.ndarray]] = {}
        self._places: dict[int, int] = {}

    def enter_phase(self, phase: Phase, blocks: BlockMap, sites: Sequence[Site]) -> None:
        """Take up a phase: which arrays belong to which rule."""
        self._phase, self._sites = phase, sites
        self._groups = group_by_rule(phase, blocks)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the arrays to every node of the phase."""
        self._current = arrays_of(arrays)
        self._places = {node: place for place, node in enumerate(grid.get_node_ids())}
        return self._broadcast(server_round, arrays, config, grid, MessageType.TRAIN)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the arrays to every node for evaluation."""
        return self._broadcast(server_round, arrays, config, grid, MessageType.EVALUATE)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply each block's rule; return the blocks' new arrays and the pooled metrics."""
        return self.aggregate_decoded(server_round, self._read(replies))

    def aggregate_decoded(
        self, server_round: int, answers: Sequence[Reply]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Do as :meth:`aggregate_train`, of replies that are decoded and ordered by site."""
        if not answers:
            return None, None
        reported = pool_metrics(answers)
        metrics: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        for key, name, members in self._groups:
            result = rule(name)(
                RuleContext(
                    round=server_round,
                    phase=self._phase,
                    current={member: self._current[member] for member in members},
                    sites=self._sites,
                    state=self._states.setdefault(key, {}),
                    metrics=reported,
                ),
                _contributions(answers, members),
            )
            arrays.update(result.arrays)
            metrics.update(result.metrics)
        return record_of(arrays), MetricRecord({**reported, **metrics})

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pool the clients' metrics."""
        answers = self._read(replies)
        return MetricRecord(dict(pool_metrics(answers))) if answers else None

    def summary(self) -> None:
        """Nothing to log: the phase in the plan says it all."""

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the rules' arrays for the checkpoint, as ``group|name``."""
        return {
            f"{key}|{name}": values
            for key, state in self._states.items()
            for name, values in state.items()
        }

    def load_state_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up the rules' arrays from a checkpoint."""
        self._states = {}
        for full, values in arrays.items():
            key, _, name = full.partition("|")
            self._states.setdefault(key, {})[name] = values

    def _read(self, replies: Iterable[Message]) -> list[Reply]:
        """Decode replies and order them by site.

        A Flower client that is not ours sends no report: its site is its node's place.
        """
        answers = []
        for message in replies:
            if not message.has_content():
                continue
            if OURS in message.content:
                answers.append(read_reply(message.content))
                continue
            arrays, metrics = read_records(message.content)
            site = self._places.get(message.metadata.src_node_id, len(self._places))
            rows = int(metrics[WEIGHT])
            report = ClientReport("", 0, self._phase.name, site, rows, steps=0, seconds=0.0)
            answers.append(Reply(report, arrays, metrics))
        return sorted(answers, key=lambda answer: answer.report.site)

    def _broadcast(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, kind: str
    ) -> list[Message]:
        settings = ConfigRecord({**config, "server-round": server_round})
        content = RecordDict({"arrays": arrays, "config": settings})
        return broadcast(content, kind, grid.get_node_ids())


def group_by_rule(phase: Phase, blocks: BlockMap) -> list[tuple[str, str, tuple[str, ...]]]:
    """Split a phase's trained arrays into (block, rule, arrays).

    Raises :class:`ScheduleError` for a rule on a block that is not trained, and for an array
    that two rules claim.
    """
    trained = phase.train or (ALL,)
    for block in phase.aggregate:
        if block not in trained:
            raise ScheduleError(
                f"phase '{phase.name}': aggregate names block '{block}', which it does not train "
                f"(trained: {', '.join(trained)})"
            )
    groups, owner = [], dict[str, str]()
    for block in trained:
        if phase.aggregate.get(block) == LOCAL:
            continue
        members = blocks.select([block], f"phase '{phase.name}'")
        for array in members:
            if array in owner:
                raise ScheduleError(
                    f"phase '{phase.name}': array '{array}' belongs to both '{owner[array]}' "
                    f"and '{block}', which are trained together"
                )
            owner[array] = block
        groups.append((block, phase.aggregate.get(block, DEFAULT_RULE), members))
    return groups


def pool_metrics(answers: Sequence[Reply]) -> dict[str, float]:
    """Return each metric's mean weighted by examples, and its ``.min`` and ``.max``.

    A metric that some client did not report, or has no number for, is pooled over the others.
    """
    pooled: dict[str, float] = {}
    names = sorted({name for answer in answers for name in answer.metrics if name != WEIGHT})
    for name in names:
        values = [
            (a.metrics[name], a.metrics[WEIGHT])
            for a in answers
            if not math.isnan(a.metrics.get(name, math.nan))
        ]
        if not values:
            continue
        total = sum(weight for _, weight in values)
        if total > 0:
            pooled[name] = sum(value * weight for value, weight in values) / total
        pooled[f"{name}.min"] = min(value for value, _ in values)
        pooled[f"{name}.max"] = max(value for value, _ in values)
    return pooled


def _contributions(answers: Sequence[Reply], members: Sequence[str]) -> list[Contribution]:
    return [
        Contribution(
            site=answer.report.site,
            weight=answer.metrics[WEIGHT],
            arrays={member: answer.arrays[member] for member in members},
        )
        for answer in answers
    ]
