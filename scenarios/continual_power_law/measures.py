"""What a run on a stream of tasks is judged by: the accuracy matrix, and the scores read off it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedalt.alternation import History, RoundSchedule, StreamView, preview_schedule
from fedalt.alternation.parse import parse_schedule
from fedalt.errors import ConfigError
from fedalt.evaluation import (
    AccuracyMatrix,
    Scores,
    average_accuracy,
    backward_transfer,
    client_matrices,
    clients_from_rounds,
    forgetting,
    matrix_from_rounds,
    summary,
)
from fedalt.runs.report import Finished
from fedalt.runs.streams import StreamPlan, walk_streams
from fedalt.seeds import Seeds
from fedalt.task import Task

FIRST_LOOK = "first_look"
"""A phase of this name stands for the few steps after which forward facilitation is measured."""


@dataclass(frozen=True)
class StreamRun:
    """A finished run with its plan: what each client met, and what the model then knew.

    ``matrix`` is R (experiences, tasks) of the global model, ``clients`` (clients, experiences,
    tasks) on each client's own held-out rows, or None where clients did not measure.
    """

    plan: StreamPlan
    matrix: np.ndarray
    initial: np.ndarray
    few_steps: np.ndarray | None
    clients: np.ndarray | None
    steps: int
    rows: int

    @property
    def order(self) -> np.ndarray:
        """The tasks new to any client (experiences, clients)."""
        return self.plan.new_tasks().T

    def scores(self) -> Scores:
        """Return all metrics of the stream."""
        return summary(
            self.matrix,
            self.order,
            initial=self.initial,
            clients=self.client_matrices or None,
            few_steps=self.few_steps,
        )

    @cached_property
    def client_matrices(self) -> list[AccuracyMatrix]:
        """R of each client with the order in which it met the tasks; empty: not measured."""
        return [] if self.clients is None else client_matrices(self.clients, self.plan.new_tasks())

    def client_means(self) -> dict[str, float]:
        """Return ACC, BWT and forgetting as each client sees them, means over the clients.

        Where clients are at different tasks, the federation's model never stops learning any
        of them: only to a client is a task a thing of the past.
        """
        if not self.client_matrices:
            return {}
        measured = (
            ("client_acc", average_accuracy),
            ("client_bwt", backward_transfer),
            ("client_forgetting", forgetting),
        )
        found = {name: [f(each) for each in self.client_matrices] for name, f in measured}
        return {
            name: float(np.mean(values))
            for name, values in found.items()
            if not np.isnan(values).any()
        }


def read_run(task: Task, run: Finished) -> StreamRun:
    """Read a run's matrices from its events; raises :class:`ConfigError` without a stream."""
    config = run.config
    seeds = Seeds(config["seed"])
    schedule = parse_schedule(config["phases"], config["schedule"])
    # What was measured decides conditions, so that a replay goes the way the run went.
    history = History(tuple(event["metrics"] for event in run.rounds))
    preview = preview_schedule(
        schedule, seeds.at("schedule"), task.sites, len(run.rounds), history=history
    )
    plan = walk_streams(preview, task, config["seed"])
    if plan is None:
        raise ConfigError("this report is about a stream of tasks: the schedule has none")
    numbers: list[list[int]] = [[] for _ in range(plan.experiences)]
    for planned in preview.rounds:
        for experience in {view.experience for view in _streams(planned)}:
            numbers[experience].append(planned.round)
    initial = task.evaluate(task.initial_arrays(seeds.at("initial")))
    clients = None
    if run.clients:
        clients = clients_from_rounds(
            run.clients, numbers, prefix="accuracy/", tasks=len(plan.tasks)
        ).values
    return StreamRun(
        plan=plan,
        matrix=matrix_from_rounds(run.rounds, numbers, tasks=len(plan.tasks)),
        initial=np.array([initial[f"accuracy/{j}"] for j in range(len(plan.tasks))]),
        few_steps=_few_steps(run.rounds, plan),
        clients=clients,
        steps=sum(sum(event["steps"].values()) for event in run.rounds),
        rows=sum(
            len(rows)
            for site in plan.sites.values()
            for meeting in site.meetings.values()
            for rows in meeting.rows.values()
        ),
    )


def _streams(planned: RoundSchedule) -> Iterator[StreamView]:
    for part in planned.parts:
        if part.phase.view.stream is not None:
            yield part.phase.view.stream


def _few_steps(rounds: Sequence[Mapping[str, Any]], plan: StreamPlan) -> np.ndarray | None:
    """Return accuracy on the first client's new task after each first look, where there are."""
    looks = [event["metrics"] for event in rounds if FIRST_LOOK in event["phases"]]
    if len(looks) != plan.experiences:
        return None
    order = plan.new_tasks()[0]
    return np.array([m[f"server/accuracy/{j}"] for m, j in zip(looks, order, strict=True)])


def measure(task: Task, run: Finished) -> dict[str, float]:
    """Return a run's scores, the steps taken and the rows met, for a claim."""
    read = read_run(task, run)
    return {
        **read.scores().to_dict(),
        **read.client_means(),
        "steps": float(read.steps),
        "rows": float(read.rows),
        "rows_kept": float(read.plan.rows_kept().max()),
    }
