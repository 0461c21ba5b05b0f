"""Accuracy matrices from a run's rounds: what was measured at the end of each experience."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.errors import ConfigError, DataError

Rounds = Sequence[Mapping[str, Any]]
"""Events with a round's number, as :attr:`fedalt.runs.report.Finished.rounds` has them."""


@dataclass(frozen=True, eq=False)
class ClientMatrices:
    """Accuracy matrices of clients: their names in order, and (clients, experiences, tasks)."""

    sites: tuple[str, ...]
    values: np.ndarray


def matrix_from_rounds(
    rounds: Rounds,
    rounds_per_experience: int,
    *,
    prefix: str = "server/accuracy/",
    tasks: int | None = None,
    first: int = 1,
) -> np.ndarray:
    """Return R (experiences, tasks) from the last round of each experience.

    Accuracy on task j is the metric ``prefix`` + j; a task without one is NaN. ``tasks`` is
    their number (default: the highest found, plus one), ``first`` the round in which the
    stream begins. Rounds after the last whole experience are left out. Raises
    :class:`DataError` for an experience of which nothing was measured, or a task out of range.
    """
    ends = _ends(rounds, rounds_per_experience, first)
    found = [_accuracies(event["metrics"], prefix, f"round {event['round']}") for event in ends]
    for experience, (event, row) in enumerate(zip(ends, found, strict=True)):
        if not row:
            raise _unmeasured(event, experience, f"metric '{prefix}0', '{prefix}1', …")
    return _table(found, _count(found, tasks))


def clients_from_rounds(
    rounds: Rounds,
    rounds_per_experience: int,
    *,
    field: str = "sites",
    prefix: str = "accuracy/",
    tasks: int | None = None,
    first: int = 1,
) -> ClientMatrices:
    """Return every client's R from the last round of each experience.

    ``rounds`` are those of ``Finished.clients``: in each, ``field`` is a mapping of sites to their
    metrics, ``{site: {"accuracy/3": 0.8}}``; a site that is missing from it is NaN there. The
    rest as in :func:`matrix_from_rounds`.
    """
    ends = _ends(rounds, rounds_per_experience, first)
    by_end: list[dict[str, dict[int, float]]] = []
    for experience, event in enumerate(ends):
        row = _by_site(event, field, prefix)
        if not any(row.values()):
            raise _unmeasured(event, experience, f"'{field}' with '{prefix}0', '{prefix}1', …")
        by_end.append(row)
    names = sorted({name for row in by_end for name in row}, key=_natural)
    count = _count((each for row in by_end for each in row.values()), tasks)
    values = [_table([row.get(name, {}) for row in by_end], count) for name in names]
    return ClientMatrices(tuple(names), np.stack(values))


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


def _ends(rounds: Rounds, per_experience: int, first: int) -> list[Mapping[str, Any]]:
    """Return the last round of each whole experience."""
    if per_experience < 1 or first < 0:
        raise ConfigError(
            f"rounds_per_experience is {per_experience} and first is {first}, but must be at "
            "least 1 and 0"
        )
    by_number = {int(event["round"]): event for event in rounds}
    count = max(0, max(by_number, default=0) - first + 1) // per_experience
    if not count:
        raise DataError(
            f"no experience is complete: there are {len(by_number)} rounds, but one takes "
            f"{per_experience} from round {first} on"
        )
    numbers = [first + (e + 1) * per_experience - 1 for e in range(count)]
    for experience, number in enumerate(numbers):
        if number not in by_number:
            raise DataError(f"round {number}, the last of experience {experience}, is missing")
    return [by_number[number] for number in numbers]


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


def _unmeasured(event: Mapping[str, Any], experience: int, what: str) -> DataError:
    return DataError(
        f"round {event['round']}, the last of experience {experience}, has no {what}; evaluate "
        "at least in the last round of every experience"
    )


def _natural(name: str) -> tuple[int, int, str]:
    """Sort site 2 before site 10, and numbers before names."""
    return (0, int(name), "") if name.isascii() and name.isdigit() else (1, 0, name)
