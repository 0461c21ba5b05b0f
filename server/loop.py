"""The aggregation loop: everything downstream of the plan is derived from it.

A round is: plan → reserve → configure, send, admit, aggregate (each phase) → merge → evaluate
→ ledger commit → checkpoint. Nothing a round did is visible before its commit; a run killed
anywhere goes on from the last one and ends on the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid

from fedalt.alternation import History, Phase, Planner, RoundSchedule, Site
from fedalt.errors import CheckpointError
from fedalt.hashing import arrays_hash
from fedalt.privacy.ledger import Ledger
from fedalt.runs.checkpoint import Snapshot
from fedalt.runs.commit import Committer
from fedalt.runs.events import EventLog
from fedalt.runs.folder import RunFolder
from fedalt.runs.segments import SegmentRef
from fedalt.server.admission import Admitted, Refused
from fedalt.server.round import (
    Federation,
    Named,
    PhaseResult,
    aggregate,
    check_quorum,
    collect,
    dispatch,
    plain_metrics,
)
from fedalt.server.stopwatch import OFF, Stopwatch
from fedalt.server.strategies.book import StrategyBook
from fedalt.task import Task
from fedalt.wire.records import WEIGHT

EVALUATE = Phase("evaluate", kernel="evaluate")


@dataclass(frozen=True)
class Parts:
    """What a run is made of; see the design's house for who owns which."""

    federation: Federation
    task: Task
    sites: Sequence[Site]
    planner: Planner
    strategies: StrategyBook
    ledger: Ledger
    folder: RunFolder
    log: EventLog
    max_rounds: int
    evaluate_every: int = 0
    """Clients judge the model every so many rounds; 0 never."""
    judge_every: int = 1
    """The server judges it every so many rounds; 0 never."""
    tell_each: bool = False
    """Whether the events hold what every single client measured."""
    commit_every: int = 1
    keep: int = 2
    watch: Stopwatch = OFF
    """Where a round's time goes; told as an event ``profile`` if it is on."""


@dataclass
class Progress:
    """What changes from round to round, and is committed with each."""

    model: Named
    round: int = 0
    history: History = field(default_factory=History)
    bank: dict[str, Named] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0


class Loop:
    """Runs rounds until the schedule ends or ``max_rounds`` is reached."""

    def __init__(self, parts: Parts, progress: Progress, before: Snapshot | None = None) -> None:
        self._parts = parts
        self._now = progress
        self._committed = -1
        self._committer = Committer(parts.folder.checkpoints, parts.keep, before)
        # Rounds whose metrics are in a commit; later ones are the next commit's to tell.
        self._told = len(progress.history)
        self._engine = copy.deepcopy(self.engine_facts)

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self._now

    @property
    def engine_facts(self) -> dict[str, Any]:
        """What the engine chose that a resumed run must take over, such as execution modes."""
        export: Callable[[], dict[str, Any]]
        export = getattr(self._parts.federation.grid, "export_facts", dict)
        return export()

    def run(self) -> str:
        """Run to the end; return why it ended: ``schedule`` or ``max_rounds``."""
        while self._now.round < self._parts.max_rounds:
            number = self._now.round + 1
            with self._parts.watch.span("plan"):
                plan = self._parts.planner.plan(number, self._now.history)
            if plan is None:
                return "schedule"
            self._round(plan)
        return "max_rounds"

    def _round(self, plan: RoundSchedule) -> None:
        parts, start = self._parts, time.perf_counter()
        sites = {part.phase.name: [s.index for s in part.cohort] for part in plan.parts}
        parts.log.emit("planned", round=plan.round, sites={k: len(v) for k, v in sites.items()})
        for part in plan.parts:
            parts.ledger.reserve(plan.round, part.phase, sites[part.phase.name])
        results = self._train(plan)
        metrics = self._merge(results)
        self._now.round = plan.round
        with parts.watch.span("judgement"):
            metrics |= self._judge(plan.round)
        with parts.watch.span("evaluation"):
            metrics |= self._evaluate(plan)
        self._now.history = self._now.history.append(metrics)
        for result in results:
            parts.ledger.commit(plan.round, result.phase, result.sites)
        parts.log.emit(
            "round",
            round=plan.round,
            phases=[part.phase.name for part in plan.parts],
            metrics=metrics,
            sites={r.phase.name: len(r.sites) for r in results},
            steps={r.phase.name: r.steps for r in results},
            bytes_down=self._now.bytes_down,
            bytes_up=self._now.bytes_up,
            seconds=round(time.perf_counter() - start, 4),
        )
        chosen = self.engine_facts
        if chosen != self._engine:
            parts.log.emit("engine", round=plan.round, facts=chosen)
            self._engine = copy.deepcopy(chosen)
        if plan.round % parts.commit_every == 0:
            with parts.watch.span("commit"):
                self.commit()
        spent = parts.watch.take()
        if spent:
            seconds = {name: round(value, 6) for name, value in spent.items()}
            parts.log.emit("profile", round=plan.round, seconds=seconds)

    def _train(self, plan: RoundSchedule) -> list[PhaseResult]:
        parts = self._parts
        waiting = [
            dispatch(
                parts.federation,
                plan.round,
                part.phase,
                part.cohort,
                parts.strategies(part.phase),
                self._now.model,
                watch=parts.watch,
            )
            for part in plan.parts
            if part.cohort
        ]
        parts.log.emit(
            "dispatched", round=plan.round, messages=sum(len(w.messages) for w in waiting)
        )
        answers, strangers = collect(parts.federation, waiting, parts.watch)
        parts.log.emit("collected", round=plan.round, admitted=sum(len(a) for a, _ in answers))
        self._tell(plan.round, "", strangers)
        for (admitted, refused), part in zip(answers, waiting, strict=True):
            self._tell(plan.round, part.phase.name, refused)
            check_quorum(parts.federation, part, admitted, refused)
        results = [
            aggregate(part, admitted, refused, parts.watch)
            for (admitted, refused), part in zip(answers, waiting, strict=True)
        ]
        parts.log.emit("aggregated", round=plan.round)
        return results

    def _tell(self, number: int, phase: str, refused: Sequence[Refused]) -> None:
        for item in refused:
            self._parts.log.emit(
                "refused",
                round=number,
                phase=phase,
                site=item.site,
                rule=item.rule,
                reason=item.reason,
            )

    def _merge(self, results: list[PhaseResult]) -> dict[str, float]:
        """Put the phases' arrays into the model, or into the bank for a branch."""
        metrics: dict[str, float] = {}
        model = dict(self._now.model)
        branches: dict[str, Named] = {}
        for result in results:
            if result.phase.branch:
                # A branch may have several phases in a round; all begin at the same snapshot.
                own = branches.setdefault(result.phase.branch, dict(self._now.model))
                own.update(result.arrays)
            else:
                model.update(result.arrays)
            metrics |= {f"{result.phase.name}/{key}": v for key, v in result.metrics.items()}
            self._now.bytes_down += result.bytes_down
            self._now.bytes_up += result.bytes_up
        self._now.bank |= branches
        self._now.model = model
        return metrics

    def _judge(self, number: int) -> dict[str, float]:
        every = self._parts.judge_every
        if not every or number % every:
            return {}
        scores = self._parts.task.evaluate(self._now.model)
        return {f"server/{key}": float(value) for key, value in scores.items()}

    def _evaluate(self, plan: RoundSchedule) -> dict[str, float]:
        parts, every = self._parts, self._parts.evaluate_every
        if not every or plan.round % every:
            return {}
        strategy = parts.strategies(EVALUATE)
        part = dispatch(
            parts.federation,
            plan.round,
            EVALUATE,
            parts.sites,
            strategy,
            self._now.model,
            kind="evaluate",
        )
        ((admitted, refused),), strangers = collect(parts.federation, [part])
        self._tell(plan.round, EVALUATE.name, [*refused, *strangers])
        check_quorum(parts.federation, part, admitted, refused)
        if parts.tell_each:
            told = {str(item.site): _measured(item) for item in admitted}
            parts.log.emit("clients", round=plan.round, sites=told)
        record = strategy.aggregate_evaluate(plan.round, [item.message for item in admitted])
        found = plain_metrics(record, f"round {plan.round}, evaluation")
        return {f"clients/{key}": value for key, value in found.items()}

    def commit(self) -> None:
        """Write everything the run needs to go on, in one atomic file; each round once.

        Raises :class:`CheckpointError` if the disk is full or read-only.
        """
        if self._committed == self._now.round:
            return
        try:
            self._write()
        except OSError as error:
            raise CheckpointError(
                f"round {self._now.round} cannot be committed to {self._parts.folder.path} "
                f"({error.strerror}); the last commit is intact: make room, then go on with "
                f"fedalt runs resume {self._parts.folder.path}"
            ) from error
        self._committed = self._now.round

    def _write(self) -> None:
        parts, now = self._parts, self._now
        parts.log.emit("committing", round=now.round)
        segments, clients = _client_states(parts.federation.grid)
        strategy_arrays, strategy_facts = parts.strategies.export_states()
        facts: dict[str, Any] = {
            "model_order": list(now.model),
            "planner": parts.planner.state_dict(),
            "strategies": strategy_facts,
            "bytes": [now.bytes_down, now.bytes_up],
            "engine": self.engine_facts,
            "events": parts.log.sync(),
        }
        grown: dict[str, Any] = {"history": {"rounds": list(now.history.rounds[self._told :])}}
        growth = getattr(parts.ledger, "growth", None)
        if growth is None:
            facts["ledger"] = parts.ledger.state_dict()
        else:
            grown["ledger"] = growth()
        snapshot = Snapshot(
            now.round, now.model, now.bank, clients, strategy_arrays, facts, segments
        )
        self._committer.commit(snapshot, grown)
        self._told = len(now.history)
        parts.log.emit("committed", round=now.round, weights=arrays_hash(now.model))


def _measured(item: Admitted) -> dict[str, float]:
    """Return a client's own metrics, as numbers to six digits."""
    metrics = item.reply.metrics
    return {k: float(f"{v:.6g}") for k, v in sorted(metrics.items()) if k != WEIGHT}


def _client_states(grid: Grid) -> tuple[tuple[SegmentRef, ...], Mapping[int, Named]]:
    """Let the engine write what changed of its clients' states, or take all of them from it."""
    save: Callable[[], tuple[SegmentRef, ...] | None]
    save = getattr(grid, "save_states", lambda: None)
    segments = save()
    if segments is not None:
        return segments, {}
    export: Callable[[], Mapping[int, Named]] = getattr(grid, "export_states", dict)
    return (), export()


def resume(parts: Parts, snapshot: Snapshot) -> Progress:
    """Bring every part to a snapshot's state, and return where the run stands."""
    facts = snapshot.facts
    parts.planner.load_state_dict(facts["planner"])
    parts.strategies.import_states(snapshot.strategies, facts["strategies"])
    parts.ledger.load_state_dict(facts["ledger"])
    restore = getattr(parts.federation.grid, "import_states", None)
    if restore is not None:
        restore(snapshot.clients)
    choose = getattr(parts.federation.grid, "import_facts", None)
    if choose is not None:
        choose(facts.get("engine", {}))
    down, up = facts["bytes"]
    return Progress(
        model=dict(snapshot.model),
        round=snapshot.round,
        history=History.from_dict(facts["history"]),
        bank={branch: dict(arrays) for branch, arrays in snapshot.bank.items()},
        bytes_down=down,
        bytes_up=up,
    )
