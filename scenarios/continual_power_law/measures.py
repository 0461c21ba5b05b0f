"""What a run on a stream of tasks is judged by: the accuracy matrix, and the scores read off it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedalt.alternation import History, Preview, RoundSchedule, preview_schedule
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
    tasks) on the held-out rows of each client of the plan, or None where clients did not
    measure; ``few_steps`` (experiences,) is accuracy on new tasks at the first look at them.
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
        of them: only to a client is a task a thing of the past. A client that was not measured,
        or has no past, does not count.
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
            name: float(np.nanmean(values))
            for name, values in found.items()
            if not np.isnan(values).all()
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
        for experience in {experience for _, experience, _ in _parts(planned)}:
            numbers[experience].append(planned.round)
    initial = task.evaluate(task.initial_arrays(seeds.at("initial")))
    clients = None
    if run.clients:
        told = clients_from_rounds(run.clients, numbers, prefix="accuracy/", tasks=len(plan.tasks))
        # Every client is judged, but one that never trains has no stream.
        clients = told.of([str(site) for site in plan.sites])
    return StreamRun(
        plan=plan,
        matrix=matrix_from_rounds(run.rounds, numbers, tasks=len(plan.tasks)),
        initial=np.array([initial[f"accuracy/{j}"] for j in range(len(plan.tasks))]),
        few_steps=_few_steps(run, preview, plan),
        clients=clients,
        steps=sum(sum(event["steps"].values()) for event in run.rounds),
        rows=sum(
            len(rows)
            for site in plan.sites.values()
            for meeting in site.meetings.values()
            for rows in meeting.rows.values()
        ),
    )


def _parts(planned: RoundSchedule) -> Iterator[tuple[str, int, list[int]]]:
    """Return the phases of a round that view a stream: name, experience, sites that take part."""
    for part in planned.parts:
        if part.phase.view.stream is not None:
            sites = [site.index for site in part.cohort]
            yield part.phase.name, part.phase.view.stream.experience, sites


def _few_steps(run: Finished, preview: Preview, plan: StreamPlan) -> np.ndarray | None:
    """Return accuracy (experiences,) on new tasks after each experience's first look at them.

    The mean over the clients that looked and met a task for the first time; NaN where there is
    none, or the server did not judge that round. None where nothing was looked at.
    """
    metrics = {int(event["round"]): event["metrics"] for event in run.rounds}
    found, looked = np.full(plan.experiences, np.nan), set[int]()
    for planned in preview.rounds:
        for name, experience, sites in _parts(planned):
            if name != FIRST_LOOK or experience in looked:
                continue
            looked.add(experience)
            since = (plan.sites[site].seen.since for site in sites)
            new = [task for each in since for task, first in each.items() if first == experience]
            judged = metrics.get(planned.round, {})
            values = [float(judged.get(f"server/accuracy/{task}", "nan")) for task in new]
            found[experience] = np.mean(values) if values else np.nan
    return None if np.isnan(found).all() else found


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
