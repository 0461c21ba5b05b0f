"""One round's training: configure, send, admit, aggregate, phase by phase.

The four hooks of a Flower strategy are called as Flower calls them; everything around them
(who is in the cohort, what is sent, which replies count, in which order) comes from the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import AdmissionError, QuorumError
from fedalt.seeds import Seeds
from fedalt.server.admission import Admitted, Expected, Refused, admit
from fedalt.server.cohort import CohortGrid, seeded_sampling
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.plan import RoundPlan
from fedalt.wire.records import complete_instruction

Named = dict[str, np.ndarray]


@dataclass(frozen=True)
class Federation:
    """What does not change from round to round."""

    run_id: str
    seed: int
    grid: Grid
    nodes: Mapping[int, int]
    """Site index to node id."""
    blocks: BlockMap
    quorum: float
    timeout: float | None

    @property
    def seeds(self) -> Seeds:
        """The run's seeds."""
        return Seeds(self.seed)


@dataclass(frozen=True)
class Dispatch:
    """A phase on its way: its messages, and what each reply must look like."""

    phase: Phase
    strategy: Strategy
    messages: list[Message]
    expected: Expected


@dataclass(frozen=True)
class PhaseResult:
    """What a phase brought: new arrays, metrics, and which sites counted or were refused."""

    phase: Phase
    arrays: Named
    metrics: dict[str, float]
    sites: tuple[int, ...]
    refused: tuple[Refused, ...] = field(default=())
    bytes_down: int = 0
    bytes_up: int = 0


def dispatch(
    federation: Federation,
    round_number: int,
    phase: Phase,
    cohort: Sequence[Site],
    strategy: Strategy,
    model: Mapping[str, np.ndarray],
    kind: str = "train",
) -> Dispatch:
    """Let the strategy configure a phase, and complete its messages with the plan."""
    where = f"phase '{phase.name}'"
    evaluate = kind == "evaluate"
    trained = () if evaluate else federation.blocks.select(phase.train, where)
    sent = federation.blocks.select(phase.send, where)
    target = sent if evaluate else trained
    grid = CohortGrid(federation.grid, [federation.nodes[s.index] for s in cohort], phase.name)
    arrays = record_of({name: model[name] for name in target})
    configure = strategy.configure_evaluate if evaluate else strategy.configure_train
    with seeded_sampling(federation.seeds.at("strategy", round_number, phase.name)):
        messages = list(configure(round_number, arrays, ConfigRecord(), grid))
    plan = RoundPlan(federation.run_id, round_number, federation.seed, phase, trained)
    completed: dict[int, RecordDict] = {}
    for message in messages:
        original = message.content
        if id(original) not in completed:
            shipped = {name: model[name] for name in sent}
            completed[id(original)] = complete_instruction(original, plan, shipped)
        message.content = completed[id(original)]
        message.metadata.group_id = f"{round_number}/{phase.name}"
    order = {node: site for site, node in federation.nodes.items()}
    messages.sort(key=lambda message: order[message.metadata.dst_node_id])
    wanted = {name: model[name] for name in trained}
    expected = Expected(federation.run_id, round_number, phase.name, wanted)
    return Dispatch(phase, strategy, messages, expected)


def collect(
    federation: Federation, dispatches: Sequence[Dispatch]
) -> list[tuple[list[Admitted], list[Refused]]]:
    """Send all phases' messages at once and admit each phase's replies, sorted by site."""
    everything = [message for part in dispatches for message in part.messages]
    replies = list(federation.grid.send_and_receive(everything, timeout=federation.timeout))
    asked = {
        m.metadata.message_id: (i, m) for i, part in enumerate(dispatches) for m in part.messages
    }
    order = {node: site for site, node in federation.nodes.items()}
    grouped: list[list[tuple[int, Message]]] = [[] for _ in dispatches]
    for reply in replies:
        known = asked.get(reply.metadata.reply_to_message_id)
        if known is not None:
            part, message = known
            grouped[part].append((order[message.metadata.dst_node_id], reply))
    return [admit(found, part.expected) for found, part in zip(grouped, dispatches, strict=True)]


def check_quorum(
    federation: Federation,
    part: Dispatch,
    admitted: Sequence[Admitted],
    refused: Sequence[Refused],
) -> None:
    """Raise :class:`QuorumError` with the offenders if too few replies count."""
    asked = len(part.messages)
    needed = max(1, int(np.ceil(federation.quorum * asked))) if asked else 0
    if len(admitted) >= needed:
        return
    silent = asked - len(admitted) - len(refused)
    reasons = "\n".join(f"  site {r.site} ({r.rule}): {r.reason.strip()}" for r in refused[:3])
    raise QuorumError(
        f"round {part.expected.round}, phase '{part.phase.name}': {len(admitted)} of {asked} "
        f"replies count, the quorum is {needed} (quorum={federation.quorum:g}); {len(refused)} "
        f"refused, {silent} silent\n{reasons}".rstrip()
    )


def aggregate(
    part: Dispatch, admitted: Sequence[Admitted], refused: Sequence[Refused]
) -> PhaseResult:
    """Let the strategy aggregate the admitted replies, and check what it made of them."""
    messages = [item.message for item in admitted]
    # Before aggregation: some stock strategies empty the replies as they go.
    bytes_up = sum(_size(message.content) for message in messages)
    record, metrics = part.strategy.aggregate_train(part.expected.round, messages)
    arrays = arrays_of(record) if record is not None else {}
    return PhaseResult(
        phase=part.phase,
        arrays={name: _conform(part, name, values) for name, values in arrays.items()},
        metrics={key: float(value) for key, value in (metrics or {}).items()},  # type: ignore[arg-type]
        sites=tuple(item.site for item in admitted),
        refused=tuple(refused),
        bytes_down=sum(_size(message.content) for message in part.messages),
        bytes_up=bytes_up,
    )


def _conform(part: Dispatch, name: str, values: np.ndarray) -> np.ndarray:
    """Keep the model's type and shape (some stock strategies return float64), and finite."""
    where = f"round {part.expected.round}, phase '{part.phase.name}'"
    wanted = part.expected.arrays.get(name)
    if wanted is None:
        raise AdmissionError(f"{where}: the strategy returned array '{name}', not trained here")
    if values.shape != wanted.shape:
        raise AdmissionError(
            f"{where}: the strategy returned '{name}' as {values.shape}, "
            f"the model has {wanted.shape}"
        )
    if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
        raise AdmissionError(
            f"{where}: the aggregate of '{name}' is not finite; round not committed"
        )
    if np.issubdtype(wanted.dtype, np.integer) and np.issubdtype(values.dtype, np.inexact):
        values = np.rint(values)
    return np.asarray(values.astype(wanted.dtype, copy=False), order="C")


def _size(content: RecordDict) -> int:
    """Bytes of the arrays of a message, without encoding them."""
    return sum(
        int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
