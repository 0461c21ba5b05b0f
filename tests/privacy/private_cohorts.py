"""Cohorts without a run: replies as clients send them, and a wrapped strategy that takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy
from flwr.supercore.task_identity import TaskIdentity

from fedalt.alternation import Phase, Selector
from fedalt.alternation.block import Block, BlockMap
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds
from fedalt.server.cohort import CohortGrid
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.server.strategies.private import Private
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.messages import broadcast
from fedalt.wire.records import make_reply
from fedalt.wire.report import ClientReport

Named = dict[str, np.ndarray]
SITES = Roster([Site(i, f"site-{i}", 10 + i, {}) for i in range(20)])
SEEDS = Seeds(11)

STRATEGIES: dict[str, Any] = {
    "FedAvg": lambda: FedAvg(),
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAvgM": lambda: FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
    "FedAdam": lambda: FedAdam(eta=0.1),
    "FedAdagrad": lambda: FedAdagrad(eta=0.1),
    "FedYogi": lambda: FedYogi(eta=0.1),
    "Blockwise": Blockwise,
}


def model(seed: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Named:
    """Arrays of two blocks, ``enc`` and ``head``, in float64."""
    rng = np.random.default_rng(seed)
    shapes = shapes or {"enc.w": (4, 3), "enc.b": (4,), "head.w": (2, 4), "head.s": ()}
    return {name: np.array(rng.standard_normal(shape)) for name, shape in shapes.items()}


def blocks_of(arrays: Named) -> BlockMap:
    return BlockMap.of(arrays, [Block("enc", ("enc/*",)), Block("head", ("head/*",))])


def phase_of(clients: Selector | None = None, **spec: Any) -> Phase:
    values = {"unit": "client", "rng": "seeded", "noise": 1e-3, **spec}
    return Phase("train", clients=clients or Selector(), privacy=PrivacySpec(**values))


def reply(
    site: int, arrays: Named, examples: int = 10, metrics: Mapping[str, float] | None = None
) -> Message:
    report = ClientReport("run", 1, "train", site, examples, steps=1, seconds=0.0)
    (message,) = broadcast(make_reply(report, arrays, metrics or {}), "train", [site])
    return message


def moved(arrays: Named, by: float, seed: int) -> Named:
    """Arrays moved in a random direction by an L2 distance."""
    rng = np.random.default_rng(seed)
    step = {name: np.asarray(rng.standard_normal(values.shape)) for name, values in arrays.items()}
    length = norm(step)
    return {
        name: np.asarray(values + step[name] * (by / length)) for name, values in arrays.items()
    }


def norm(arrays: Mapping[str, np.ndarray]) -> float:
    return float(
        np.sqrt(sum(np.square(np.asarray(v, np.longdouble)).sum() for v in arrays.values()))
    )


def identify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages be made outside a run: Flower stamps them with the process's task."""
    for key in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, key, 1)


class Shown:
    """Notes what a strategy is shown to aggregate."""

    def __init__(self, strategy: Strategy) -> None:
        self.replies: list[Named] = []
        self.examples: list[float] = []
        aggregate = strategy.aggregate_train

        def listen(server_round: int, replies: Any) -> Any:
            messages = list(replies)
            for message in messages:
                (record,) = message.content.array_records.values()
                (metrics,) = message.content.metric_records.values()
                self.replies.append({k: np.array(v) for k, v in arrays_of(record).items()})
                self.examples.append(float(metrics["num-examples"]))  # type: ignore[arg-type]
            return aggregate(server_round, messages)

        strategy.aggregate_train = listen  # type: ignore[method-assign]


def wrapped(
    arrays: Named, phase: Phase, inner: Strategy | None = None, seeds: Seeds = SEEDS
) -> Private:
    private = Private(inner or Blockwise(), seeds)
    private.enter_phase(phase, blocks_of(arrays), SITES)
    return private


def release(
    private: Strategy, arrays: Named, replies: Sequence[Message], number: int = 1
) -> tuple[Named, MetricRecord]:
    """Configure and aggregate one round."""
    nodes = [message.metadata.dst_node_id for message in replies]
    grid = CohortGrid(None, nodes, "train")  # type: ignore[arg-type]
    sent: ArrayRecord = record_of(arrays)
    messages = list(private.configure_train(number, sent, ConfigRecord(), grid))
    assert sorted(m.metadata.dst_node_id for m in messages) == sorted(nodes)
    record, metrics = private.aggregate_train(number, replies)
    assert record is not None
    return {k: np.array(v) for k, v in arrays_of(record).items()}, metrics or MetricRecord()
