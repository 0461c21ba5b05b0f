"""Rounds whose clients train nothing: replies are at hand, in stacks or apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.grids.local import LocalGrid
from fedalt.seeds import Seeds
from fedalt.server.admission import Refused
from fedalt.server.round import Federation, aggregate, collect, dispatch
from fedalt.server.stopwatch import OFF, Stopwatch
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.wire.messages import reply_with
from fedalt.wire.records import make_reply
from fedalt.wire.report import ClientReport

SHAPES = {"w": (3, 40), "b": (1,), "scalar": ()}
SITES = 23
PHASE = Phase("train")
Rows = Sequence[dict[str, np.ndarray]]


def stacks(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """One array a name, a row a site, over many magnitudes: the order of a sum shows."""
    rng = np.random.default_rng(3)
    scale = np.exp(rng.normal(0.0, 6.0, SITES))
    return {
        name: (rng.standard_normal((SITES, *shape)).T * scale).T.astype(dtype)
        for name, shape in SHAPES.items()
    }


def rows_of(made: Mapping[str, np.ndarray]) -> Rows:
    """Views of the stacks; the last array is a scalar, which indexing would copy."""
    return [{name: stack[k, ...] for name, stack in made.items()} for k in range(SITES)]


def apart(rows: Rows) -> Rows:
    return [{name: values.copy() for name, values in row.items()} for row in rows]


class Replies(ClientApp):
    """A cohort that answers with arrays at hand, by site; ``change`` may spoil a reply."""

    def __init__(self, rows: Rows, change: Callable[[int, RecordDict], RecordDict]) -> None:
        super().__init__()
        self.rows, self.change = rows, change

    def cohort(self, messages: Sequence[Message], contexts: Sequence[Any]) -> list[Message]:
        replies = []
        for message, context in zip(messages, contexts, strict=True):
            site = int(context.node_config["partition-id"])
            report = ClientReport("run", 1, PHASE.name, site, 3 * site + 1, 6, 0.0)
            content = make_reply(report, self.rows[site], {"loss": 0.1 * site})
            replies.append(reply_with(self.change(site, content), message))
        return replies


class Shuffled(LocalGrid):
    """A grid whose replies come in another order each time."""

    order = random.Random(0)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        replies = list(super().send_and_receive(messages, timeout=timeout))
        self.order.shuffle(replies)
        return replies


def encoded(site: int, content: RecordDict) -> RecordDict:
    """The reply as it comes from another process."""
    arrays = {k: Array(v.numpy()) for k, v in content["arrays"].items()}  # type: ignore[union-attr]
    return RecordDict(
        {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord(dict(content["metrics"])),  # type: ignore[arg-type]
            "fedalt": ConfigRecord(dict(content["fedalt"])),  # type: ignore[arg-type]
        }
    )


Round = tuple[dict[str, np.ndarray], dict[str, float], tuple[Refused, ...]]


def one_round(
    rows: Rows,
    rule: str = "mean",
    change: Callable[[int, RecordDict], RecordDict] = lambda site, content: content,
    grid: type[LocalGrid] = LocalGrid,
    cohort: Sequence[int] = range(SITES),
    watch: Stopwatch = OFF,
) -> Round:
    """Run one round's training with a Blockwise strategy through the real steps."""
    model = {name: np.zeros_like(values) for name, values in rows[0].items()}
    blocks = BlockMap.of(tuple(model), ())
    engine = grid(Replies(rows, change), SITES, {}, Seeds(0))
    nodes = dict(enumerate(engine.get_node_ids()))
    federation = Federation("run", 0, engine, nodes, blocks, quorum=0.1, timeout=None)
    phase = Phase(PHASE.name, aggregate={"all": rule})
    strategy = Blockwise()
    strategy.enter_phase(phase, blocks, [Site(i, f"client-{i}", 1) for i in range(SITES)])
    sites = [Site(i, f"client-{i}", 1) for i in cohort]
    part = dispatch(federation, 1, phase, sites, strategy, model, watch=watch)
    ((admitted, refused),), strangers = collect(federation, [part], watch)
    assert not strangers
    result = aggregate(part, admitted, refused, watch)
    return result.arrays, result.metrics, result.refused


def by_hand(rule: str, rows: Rows, sites: Sequence[int] = range(SITES)) -> dict[str, np.ndarray]:
    """The rule as a loop over the sites in their order, one float64 addition after another."""
    made = {}
    counts = np.array([3.0 * site + 1.0 for site in sites])
    for name in rows[0]:
        if rule == "median":
            made[name] = np.median(np.stack([rows[site][name] for site in sites]), axis=0)
            continue
        weights = counts / counts.sum() if rule == "mean" else np.ones(len(counts))
        total = np.zeros(rows[0][name].shape)
        for weight, site in zip(weights, sites, strict=True):
            total = total + weight * rows[site][name].astype(np.float64)
        made[name] = total.astype(rows[0][name].dtype)
    return made


def same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> bool:
    assert list(found) == list(wanted)
    return all(
        found[k].tobytes() == np.asarray(wanted[k]).tobytes() and found[k].dtype == wanted[k].dtype
        for k in found
    )
