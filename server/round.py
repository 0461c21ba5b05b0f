"""One round's training: configure, send, admit, aggregate, phase by phase.

The four hooks of a Flower strategy are called as Flower calls them; everything around them
(who is in the cohort, what is sent, which replies count, in which order) comes from the plan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import AdmissionError, ConfigError, QuorumError
from fedalt.privacy.noise import NAMES
from fedalt.privacy.release import Protection
from fedalt.seeds import Seeds
from fedalt.server.admission import Admitted, Expected, Refused, admit, protections_of
from fedalt.server.cohort import CohortGrid, seeded_sampling
from fedalt.server.stopwatch import OFF, Stopwatch
from fedalt.server.strategies.blockwise import Blockwise
from fedalt.server.strategies.book import rebase
from fedalt.wire.arrays import arrays_of, record_of
from fedalt.wire.plan import RoundPlan
from fedalt.wire.records import complete_instruction

Named = dict[str, np.ndarray]
NOBODY = -1
"""In place of a site's index: the sender is no site of this federation."""


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
    local: frozenset[str] = frozenset()
    """Names of the arrays that stay at the sites."""

    @property
    def seeds(self) -> Seeds:
        """The run's seeds."""
        return Seeds(self.seed)


@dataclass(frozen=True)
class Dispatch:
    """A phase on its way: its messages, by site, and what each reply must look like."""

    phase: Phase
    strategy: Strategy
    messages: list[Message]
    expected: Expected
    places: Mapping[int, int]
    """Node id to site index, of the cohort."""


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
    steps: int = 0
    """Local steps that the admitted clients took, all together."""
    applied: Protection | None = None
    """What protected the people behind it, where something did."""


def dispatch(
    federation: Federation,
    round_number: int,
    phase: Phase,
    cohort: Sequence[Site],
    strategy: Strategy,
    model: Mapping[str, np.ndarray],
    kind: str = "train",
    watch: Stopwatch = OFF,
) -> Dispatch:
    """Let the strategy configure a phase, and complete its messages with the plan."""
    with watch.span("dispatch"):
        return _dispatch(federation, round_number, phase, cohort, strategy, model, kind)


def _dispatch(
    federation: Federation,
    round_number: int,
    phase: Phase,
    cohort: Sequence[Site],
    strategy: Strategy,
    model: Mapping[str, np.ndarray],
    kind: str,
) -> Dispatch:
    where = f"phase '{phase.name}'"
    evaluate = kind == "evaluate"
    chosen = () if evaluate else federation.blocks.select(phase.train, where)
    keeps = tuple(name for name in chosen if name in federation.local)
    trained = tuple(name for name in chosen if name not in federation.local)
    sent = federation.blocks.select(phase.send, where)
    sent = tuple(name for name in sent if name not in federation.local)
    target = sent if evaluate else trained
    places = {federation.nodes[site.index]: site.index for site in cohort}
    grid = CohortGrid(federation.grid, list(places), phase.name)
    arrays = record_of({name: model[name] for name in target})
    configure = strategy.configure_evaluate if evaluate else strategy.configure_train
    rebase(strategy, arrays)
    with seeded_sampling(federation.seeds.at("strategy", round_number, phase.name)):
        messages = list(configure(round_number, arrays, ConfigRecord(), grid))
    _check_addressees(messages, places, f"round {round_number}, {where}")
    plan = RoundPlan(federation.run_id, round_number, federation.seed, phase, trained, keeps)
    _complete(messages, plan, {name: model[name] for name in sent})
    wanted = {name: model[name] for name in trained}
    protections = {} if evaluate else {s.index: protections_of(phase, s) for s in cohort}
    expected = Expected(
        federation.run_id,
        round_number,
        phase.name,
        wanted,
        protections,
        bounded=not evaluate and releases_noise(phase),
    )
    messages.sort(key=lambda message: places[message.metadata.dst_node_id])
    return Dispatch(phase, strategy, messages, expected, places)


def _check_addressees(messages: Sequence[Message], places: Mapping[int, int], where: str) -> None:
    """Raise :class:`ConfigError` where a strategy asks a site twice, or one not in the cohort.

    The ledger has reserved for the cohort, once each, and for nobody else.
    """
    asked = Counter(message.metadata.dst_node_id for message in messages)
    for node in places:
        if asked.pop(node, 1) > 1:
            raise ConfigError(f"{where}: the strategy sends node {node} more than one message")
    if asked:
        raise ConfigError(
            f"{where}: the strategy sends to nodes {sorted(asked)}, which the schedule did not "
            "select; sample from grid.get_node_ids()"
        )


def _complete(
    messages: Sequence[Message], plan: RoundPlan, shipped: Mapping[str, np.ndarray]
) -> None:
    """Put the plan and the blocks sent into the messages; a broadcast stays one content."""
    # By identity, so each original is held for as long as the table: no address comes twice.
    completed: dict[int, tuple[RecordDict, RecordDict]] = {}
    for message in messages:
        original = message.content
        if id(original) not in completed:
            completed[id(original)] = original, complete_instruction(original, plan, shipped)
        message.content = completed[id(original)][1]
        message.metadata.group_id = f"{plan.round}/{plan.phase.name}"


def collect(
    federation: Federation, dispatches: Sequence[Dispatch], watch: Stopwatch = OFF
) -> tuple[list[tuple[list[Admitted], list[Refused]]], list[Refused]]:
    """Send all phases' messages at once and admit each phase's replies, sorted by site.

    The second list holds replies that nobody was asked for, or that another node was.
    """
    everything = [message for part in dispatches for message in part.messages]
    with watch.span("compute"):
        replies = list(federation.grid.send_and_receive(everything, timeout=federation.timeout))
    with watch.span("admission"):
        grouped, strangers = _sort_out(federation, dispatches, replies)
        pairs = zip(grouped, dispatches, strict=True)
        return [admit(found, part.expected) for found, part in pairs], strangers


def _sort_out(
    federation: Federation, dispatches: Sequence[Dispatch], replies: Sequence[Message]
) -> tuple[list[list[tuple[int, Message]]], list[Refused]]:
    """Give each phase its replies, with their sites; tell apart those that nobody was asked for."""
    asked: dict[str, tuple[int, int]] = {}
    for i, part in enumerate(dispatches):
        for message in part.messages:
            sent = message.metadata
            asked[sent.message_id] = i, sent.dst_node_id
    grouped: list[list[tuple[int, Message]]] = [[] for _ in dispatches]
    strangers = []
    for reply in replies:
        told = reply.metadata
        sender, known = told.src_node_id, asked.get(told.reply_to_message_id)
        if known is None:
            reason = f"node {sender} answers a message that was not sent in this round"
            strangers.append(Refused(_site_of(federation, sender), "asked", reason))
        elif reply.has_content() and sender != known[1]:
            reason = f"node {sender} answers for node {known[1]}"
            strangers.append(Refused(_site_of(federation, sender), "asked", reason))
        else:
            number, node = known
            grouped[number].append((dispatches[number].places[node], reply))
    return grouped, strangers


def _site_of(federation: Federation, node: int) -> int:
    """Find a sender's site among all, which only a stranger is worth."""
    return next((site for site, known in federation.nodes.items() if known == node), NOBODY)


def check_quorum(
    federation: Federation,
    part: Dispatch,
    admitted: Sequence[Admitted],
    refused: Sequence[Refused],
) -> None:
    """Raise :class:`QuorumError` with the offenders if too few replies count."""
    asked = len(part.messages)
    # 0.07 · 100 is 7.000000000000001 in floating point and still means 7.
    needed = max(1, math.ceil(federation.quorum * asked - 1e-9)) if asked else 0
    if len(admitted) >= needed:
        return
    silent = asked - len({item.site for item in admitted} | {item.site for item in refused})
    # The first trace whole, of others only what they end in: they tend to be alike.
    told = [
        r.reason.strip() if i == 0 else r.reason.strip().splitlines()[-1]
        for i, r in enumerate(refused[:3])
    ]
    reasons = "\n".join(
        f"  site {r.site} ({r.rule}): {text}" for r, text in zip(refused, told, strict=False)
    )
    raise QuorumError(
        f"round {part.expected.round}, phase '{part.phase.name}': {len(admitted)} of {asked} "
        f"replies count, the quorum is {needed} (quorum={federation.quorum:g}); {len(refused)} "
        f"refused, {silent} silent\n{reasons}".rstrip()
    )


def aggregate(
    part: Dispatch,
    admitted: Sequence[Admitted],
    refused: Sequence[Refused],
    watch: Stopwatch = OFF,
) -> PhaseResult:
    """Let the strategy aggregate the admitted replies, and check what it made of them."""
    with watch.span("aggregation"):
        return _aggregate(part, admitted, refused)


def _aggregate(
    part: Dispatch, admitted: Sequence[Admitted], refused: Sequence[Refused]
) -> PhaseResult:
    # Before aggregation: some stock strategies empty the messages as they go.
    bytes_down = _bytes(part.messages)
    bytes_up = sum(v.nbytes for item in admitted for v in item.reply.arrays.values())
    # Who was drawn in secret would follow from how many steps there were.
    steps = 0 if part.expected.bounded else sum(i.reply.report.steps for i in admitted)
    where = f"round {part.expected.round}, phase '{part.phase.name}'"
    try:
        answer = _ask(part, admitted)
    except AppExitException as error:
        name = type(part.strategy).__name__
        raise AdmissionError(f"{where}: {name} cannot aggregate the replies: {error}") from error
    record, metrics = answer if answer is not None else (None, None)
    arrays = arrays_of(record) if record is not None else {}
    return PhaseResult(
        phase=part.phase,
        arrays={name: _conform(part, where, name, values) for name, values in arrays.items()},
        metrics=plain_metrics(metrics, where),
        sites=tuple(item.site for item in admitted),
        refused=tuple(refused),
        bytes_down=bytes_down,
        bytes_up=bytes_up,
        steps=steps,
        applied=_applied(part, admitted),
    )


def _applied(part: Dispatch, admitted: Sequence[Admitted]) -> Protection | None:
    """Return what the server did, or what sites that add their noise themselves say they did."""
    spec = part.phase.privacy
    if spec is not None and spec.trust == "central":
        done: Protection | None = getattr(part.strategy, "applied", None)
        return done
    stated = [item for reply in admitted for item in reply.reply.report.applied]
    if not stated:
        return None
    # Admission has seen to it that each did what the phase asks, or more.
    least = min(stated, key=lambda item: item.noise_multiplier)
    clip = max(item.clip for item in stated)
    std = min(item.noise_std for item in stated)
    return Protection(std, clip, clip, least.noise_multiplier, rng=least.rng)


def releases_noise(phase: Phase) -> bool:
    """Say whether a phase releases noise even of a draw that nobody is in."""
    spec = phase.privacy
    return spec is not None and spec.unit == "client" and spec.trust == "central"


def is_secure(phase: Phase) -> bool:
    """Say whether a phase's updates are summed without anyone seeing one."""
    return phase.privacy is not None and phase.privacy.trust == "distributed"


def aggregate_secure(federation: Federation, part: Dispatch, watch: Stopwatch = OFF) -> PhaseResult:
    """Sum a phase's updates by secure aggregation, and let the strategy take the sum.

    Raises :class:`QuorumError` below the phase's threshold: then nothing was unmasked.
    """
    from fedalt.server.secure import collect_secure

    done = collect_secure(federation, part, watch)
    where = f"round {part.expected.round}, phase '{part.phase.name}'"
    with watch.span("aggregation"):
        record, metrics = part.strategy.aggregate_sum(  # type: ignore[attr-defined]
            part.expected.round, done.total, len(done.sites)
        )
    spec = part.phase.privacy
    return PhaseResult(
        phase=part.phase,
        arrays={n: _conform(part, where, n, v) for n, v in arrays_of(record).items()},
        metrics=plain_metrics(metrics, where),
        sites=done.sites,
        refused=done.refused,
        bytes_down=done.bytes_down,
        bytes_up=done.bytes_up,
        steps=done.steps,
        applied=Protection(
            noise_std=done.noise_std,
            clip=spec.clip if spec is not None else 0.0,
            sensitivity=done.sensitivity,
            noise_multiplier=done.noise_multiplier,
            rng=NAMES[spec.rng] if spec is not None else "",
        ),
    )


def _ask(
    part: Dispatch, admitted: Sequence[Admitted]
) -> tuple[ArrayRecord | None, MetricRecord | None] | None:
    strategy, number = part.strategy, part.expected.round
    if isinstance(strategy, Blockwise):
        # Of a subclass with a method of its own, that one is asked: it may change the messages.
        asked = getattr(strategy.aggregate_train, "__func__", None)
        if asked is Blockwise.aggregate_train:
            return strategy.aggregate_decoded(number, [item.reply for item in admitted])
    return strategy.aggregate_train(number, [item.message for item in admitted])


def plain_metrics(record: MetricRecord | None, where: str) -> dict[str, float]:
    """Return a strategy's metrics as numbers; raises :class:`ConfigError` for a list of them."""
    found: dict[str, float] = {}
    for key, value in (record or {}).items():
        if isinstance(value, list):
            raise ConfigError(f"{where}: the strategy's metric '{key}' is a list, not a number")
        found[key] = float(value)
    return found


def _conform(part: Dispatch, where: str, name: str, values: np.ndarray) -> np.ndarray:
    """Keep the model's type and shape (some stock strategies return float64), and finite."""
    wanted = part.expected.arrays.get(name)
    if wanted is None:
        raise AdmissionError(f"{where}: the strategy returned array '{name}', not trained here")
    if values.shape != wanted.shape:
        raise AdmissionError(
            f"{where}: the strategy returned '{name}' as {values.shape}, "
            f"the model has {wanted.shape}"
        )
    fits = np.isfinite(values).all()
    if np.issubdtype(wanted.dtype, np.integer) and np.issubdtype(values.dtype, np.inexact):
        values = np.rint(values)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.asarray(values.astype(wanted.dtype, copy=False), order="C")
    # A finite float64 may be beyond what the model's type holds.
    if not fits or not np.isfinite(cast).all():
        raise AdmissionError(
            f"{where}: the aggregate of '{name}' is not finite as {wanted.dtype}; "
            "round not committed"
        )
    return cast


def _bytes(messages: Sequence[Message]) -> int:
    """Bytes of the arrays of messages; a content that a broadcast shares is measured once."""
    known: dict[int, int] = {}
    total = 0
    for message in messages:
        content = message.content
        if id(content) not in known:
            known[id(content)] = _size(content)
        total += known[id(content)]
    return total


def _size(content: RecordDict) -> int:
    """Bytes of the arrays of a message, without encoding them."""
    return sum(
        math.prod(array.shape) * np.dtype(array.dtype).itemsize
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
