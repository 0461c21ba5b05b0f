"""The aggregation loop: everything downstream of the plan is derived from it.

A round is: plan → reserve → configure, send, admit, aggregate (each phase) → merge → evaluate
→ ledger commit → checkpoint. A round that a privacy budget forbids does not begin. Nothing a
round did is visible before its commit; a run killed anywhere goes on from the last one, and
without privacy, whose noise is never the same twice, it ends on the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.serverapp import Grid

from fedalt.alternation import History, Phase, Planner, RoundSchedule, Site
from fedalt.errors import BudgetError, CheckpointError
from fedalt.hashing import arrays_hash
from fedalt.privacy.ledger import Ledger
from fedalt.privacy.release import Release
from fedalt.runs.checkpoint import Snapshot
from fedalt.runs.commit import Committer
from fedalt.runs.events import EventLog
from fedalt.runs.folder import RunFolder
from fedalt.runs.segments import SegmentRef
from fedalt.server.admission import Admitted, Refused
from fedalt.server.round import (
    Dispatch,
    Federation,
    Named,
    PhaseResult,
    aggregate,
    aggregate_secure,
    check_quorum,
    collect,
    dispatch,
    is_secure,
    plain_metrics,
    releases_noise,
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
        self.reason = ""
        """What a run that ended before its time ended by."""

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
        """Run to the end; return why it ended: ``schedule``, ``max_rounds`` or ``budget``."""
        parts = self._parts
        while self._now.round < parts.max_rounds:
            number, before = self._now.round + 1, parts.planner.state_dict()
            with parts.watch.span("plan"):
                plan = parts.planner.plan(number, self._now.history)
            if plan is None:
                return "schedule"
            try:
                with parts.watch.span("ledger"):
                    plan = parts.ledger.reserve(plan)
            except BudgetError as error:
                # The round has not been: a budget that is raised later lets it be planned again.
                parts.planner.load_state_dict(before)
                self.reason = str(error)
                parts.log.emit("budget", round=number, text=self.reason)
                return "budget"
            self._round(plan)
        return "max_rounds"

    def _round(self, plan: RoundSchedule) -> None:
        parts, start = self._parts, time.perf_counter()
        counts = {part.phase.name: len(part.cohort) for part in plan.parts}
        parts.log.emit("planned", round=plan.round, sites=counts)
        results = self._train(plan)
        metrics = self._merge(results)
        self._now.round = plan.round
        with parts.watch.span("judgement"):
            metrics |= self._judge(plan.round)
        with parts.watch.span("evaluation"):
            metrics |= self._evaluate(plan)
        releases = [Release(result.phase, result.sites, result.applied) for result in results]
        with parts.watch.span("ledger"):
            metrics |= parts.ledger.commit(plan.round, releases)
        self._now.history = self._now.history.append(metrics)
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
        # A secret draw of nobody is told apart from others by no one: noise is released for it.
        active = [part for part in plan.parts if part.cohort or releases_noise(part.phase)]
        try:
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
                for part in active
            ]
        except BaseException as error:
            for part in plan.parts:
                parts.ledger.abort(plan.round, part.phase.name, f"nothing was sent: {error}")
            raise
        parts.log.emit(
            "dispatched", round=plan.round, messages=sum(len(w.messages) for w in waiting)
        )
        return self._results(plan, waiting)

    def _results(self, plan: RoundSchedule, waiting: Sequence[Dispatch]) -> list[PhaseResult]:
        """Collect what was sent for, and let each phase's strategy aggregate it."""
        parts = self._parts
        open_ = [part for part in waiting if not is_secure(part.phase)]
        answers, strangers = collect(parts.federation, open_, parts.watch)
        found: dict[str, PhaseResult] = {}
        admitted = sum(len(some) for some, _ in answers)
        for part in waiting:
            if is_secure(part.phase):
                found[part.phase.name] = self._secure(plan, part)
                admitted += len(found[part.phase.name].sites)
        parts.log.emit("collected", round=plan.round, admitted=admitted)
        self._tell(plan.round, "", strangers)
        for (some, refused), part in zip(answers, open_, strict=True):
            self._tell(plan.round, part.phase.name, refused)
            # Noise is released whatever came: one client's failure must not decide about the run.
            if not part.expected.bounded:
                check_quorum(parts.federation, part, some, refused)
        for (some, refused), part in zip(answers, open_, strict=True):
            found[part.phase.name] = aggregate(part, some, refused, parts.watch)
        parts.log.emit("aggregated", round=plan.round)
        return [found[part.phase.name] for part in waiting]

    def _secure(self, plan: RoundSchedule, part: Dispatch) -> PhaseResult:
        """Aggregate a phase whose updates nobody sees.

        One that fails stays charged: shares that came too late, or with a false commitment, may
        still unmask its sum.
        """
        parts = self._parts
        result = aggregate_secure(parts.federation, part, parts.watch)
        self._tell(plan.round, part.phase.name, result.refused)
        return result

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
        parts.ledger.unprotected(plan.round, EVALUATE, parts.sites)
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
        grown = {
            "history": {"rounds": list(now.history.rounds[self._told :])},
            "ledger": parts.ledger.growth(),
        }
        vouched = parts.ledger.facts()
        if vouched:
            facts["ledger_file"] = vouched
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
    parts.ledger.load_state_dict(facts["ledger"], facts.get("ledger_file"))
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
