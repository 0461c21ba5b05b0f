"""Accuracy matrices from a run's rounds: what was measured at the end of each experience."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.errors import DataError

Rounds = Sequence[Mapping[str, Any]]
"""Events with a round's number, as :attr:`fedalt.runs.report.Finished.rounds` has them."""
Experiences = Sequence[Sequence[int]]
"""The numbers of the rounds of each experience."""


@dataclass(frozen=True, eq=False)
class ClientMatrices:
    """Accuracy matrices of clients: their names in order, and (clients, experiences, tasks)."""

    sites: tuple[str, ...]
    values: np.ndarray

    def of(self, sites: Sequence[str]) -> np.ndarray:
        """Return R (sites, experiences, tasks) of these sites, NaN for one not measured."""
        places = {name: place for place, name in enumerate(self.sites)}
        found = np.full((len(sites), *self.values.shape[1:]), np.nan)
        for row, name in enumerate(sites):
            if name in places:
                found[row] = self.values[places[name]]
        return found


def matrix_from_rounds(
    rounds: Rounds,
    experiences: Experiences,
    *,
    prefix: str = "server/accuracy/",
    tasks: int | None = None,
) -> np.ndarray:
    """Return R (experiences, tasks) from the last round of each experience that was measured.

    ``experiences`` holds the numbers of each one's rounds. Accuracy on task j is the metric
    ``prefix`` + j; a task without one is NaN, and so is an experience in which nothing was
    measured. ``tasks`` is their number (default: the highest found, plus one). Raises
    :class:`DataError` where nothing was measured at all, or a task out of range was.
    """
    by_number = {
        int(event["round"]): _accuracies(event["metrics"], prefix, f"round {event['round']}")
        for event in rounds
    }
    found = [_last(by_number, numbers) for numbers in experiences]
    if not any(found):
        raise _unmeasured(f"metric '{prefix}0', '{prefix}1', …", "evaluate.server_every")
    return _table(found, _count(found, tasks))


def clients_from_rounds(
    rounds: Rounds,
    experiences: Experiences,
    *,
    field: str = "sites",
    prefix: str = "accuracy/",
    tasks: int | None = None,
) -> ClientMatrices:
    """Return every client's R from the last round of each experience that was measured.

    ``rounds`` are a run's events ``clients``: in each, ``field`` is a mapping of sites to their
    metrics, ``{site: {"accuracy/3": 0.8}}``; a site that is missing from it is NaN there. The
    rest as in :func:`matrix_from_rounds`.
    """
    by_number = {int(event["round"]): _by_site(event, field, prefix) for event in rounds}
    measured = {n: row for n, row in by_number.items() if any(row.values())}
    by_end = [_last(measured, numbers) for numbers in experiences]
    if not any(by_end):
        raise _unmeasured(f"'{field}' with '{prefix}0', '{prefix}1', …", "evaluate.clients_every")
    names = sorted({name for row in by_end for name in row}, key=_natural)
    count = _count((each for row in by_end for each in row.values()), tasks)
    values = [_table([row.get(name, {}) for row in by_end], count) for name in names]
    return ClientMatrices(tuple(names), np.stack(values))


def _last(measured: Mapping[int, Mapping[Any, Any]], numbers: Sequence[int]) -> Mapping[Any, Any]:
    """Return what the last of some rounds measured, of those that measured anything."""
    return next((measured[n] for n in sorted(numbers, reverse=True) if measured.get(n)), {})


def _by_site(event: Mapping[str, Any], field: str, prefix: str) -> dict[str, dict[int, float]]:
    found, where = {}, f"round {event['round']}"
    for site, metrics in (event.get(field) or {}).items():
        if not isinstance(metrics, Mapping):
            raise DataError(
                f"{where}: '{field}' has {metrics!r} for {site!r}, not a mapping of metrics; "
                "take the events 'clients', not 'round'"
            )
        found[str(site)] = _accuracies(metrics, prefix, f"{where}, site {site}")
    return found


def _accuracies(metrics: Mapping[str, Any], prefix: str, where: str) -> dict[int, float]:
    """Return accuracy by task, of the metrics that are a prefix and a number."""
    found = {}
    for name, value in metrics.items():
        task = name.removeprefix(prefix)
        if name.startswith(prefix) and task.isascii() and task.isdigit():
            try:
                # A log has non-finite numbers as text.
                found[int(task)] = float(value)
            except (TypeError, ValueError) as error:
                raise DataError(f"{where}: metric '{name}' is {value!r}, no number") from error
    return found


def _count(found: Iterable[Mapping[int, float]], tasks: int | None) -> int:
    highest = max(task for row in found for task in row)
    if tasks is not None and highest >= tasks:
        raise DataError(
            f"accuracy of task {highest} was measured, but the stream has {tasks} tasks, 0 to "
            f"{tasks - 1}"
        )
    return highest + 1 if tasks is None else tasks


def _table(rows: Sequence[Mapping[int, float]], tasks: int) -> np.ndarray:
    table = np.full((len(rows), tasks), np.nan)
    for place, row in enumerate(rows):
        for task, value in row.items():
            table[place, task] = value
    return table


def _unmeasured(what: str, setting: str) -> DataError:
    return DataError(f"no round has {what}; set {setting} to 1, or to the rounds of an experience")


def _natural(name: str) -> tuple[int, int, str]:
    """Sort site 2 before site 10, and numbers before names."""
    return (0, int(name), "") if name.isascii() and name.isdigit() else (1, 0, name)
