"""The accuracy matrix of a stream: R[e, j], accuracy on task j after experience e.

All metrics of continual learning are read from R and from which task was new when. A task may
come several times (a stream drawn by a hazard), and for the model of a whole federation
several tasks may be new in one experience, each to some client.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import ConfigError, DataError

_ROUNDING = 1e-6
"""A mean of ones in single precision may come out this far above 1."""


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """R with its order; made by :func:`accuracy_matrix`.

    ``values`` (experiences, tasks) is R, NaN where it was not measured; ``new`` (experiences,
    tasks) says which tasks were new in an experience.
    """

    values: np.ndarray
    new: np.ndarray

    @property
    def experiences(self) -> int:
        """The number of experiences, E."""
        return int(self.values.shape[0])

    @property
    def tasks(self) -> int:
        """The number of tasks, T."""
        return int(self.values.shape[1])

    @cached_property
    def last(self) -> np.ndarray:
        """In which experience (experiences, tasks) a task was new last, as of each; −1: none."""
        steps = np.where(self.new, np.arange(self.experiences)[:, None], -1)
        return np.asarray(np.maximum.accumulate(steps, axis=0))

    @cached_property
    def met(self) -> np.ndarray:
        """Which tasks (experiences, tasks) had been met by an experience's end."""
        return self.last >= 0

    @cached_property
    def first(self) -> np.ndarray:
        """In which experience each task (tasks,) was new first; −1 if it never was."""
        return np.where(self.met[-1], self.met.argmax(axis=0), -1)

    @cached_property
    def lags(self) -> np.ndarray:
        """Lag l ≥ 1 (experiences, tasks): a task that is new has 1; 0 where it is not met yet."""
        return np.where(self.met, np.arange(self.experiences)[:, None] - self.last + 1, 0)

    @property
    def final(self) -> np.ndarray:
        """Accuracy (tasks,) after the last experience; NaN for a task that was never met."""
        return np.where(self.met[-1], self.values[-1], np.nan)

    @cached_property
    def by_age(self) -> np.ndarray:
        """The tasks met, from the one that was new longest ago to the newest.

        Of those that were new in one experience, the one met first comes first.
        """
        order = np.lexsort((np.arange(self.tasks), self.first, self.last[-1]))
        return np.asarray(order[self.met[-1][order]])


Matrix = ArrayLike | AccuracyMatrix
"""R as an array (experiences, tasks), or with its order."""


def accuracy_matrix(values: Matrix, order: ArrayLike | None = None) -> AccuracyMatrix:
    """Check R and its order.

    ``order`` (experiences,) is the number of the task that is new in each experience, −1 for
    none; or (experiences, m) with several, as the model of m clients meets them. Without one it
    is 0, 1, 2, …. Raises :class:`DataError` for a matrix that is none or holds what is no
    accuracy, :class:`ConfigError` for an order that does not fit it.
    """
    if isinstance(values, AccuracyMatrix):
        if order is not None:
            raise ConfigError("order: the accuracy matrix has its own; leave one of them out")
        return values
    checked = _checked(values)
    new = _new(order, *checked.shape)
    checked.flags.writeable = new.flags.writeable = False
    return AccuracyMatrix(checked, new)


def _checked(values: ArrayLike) -> np.ndarray:
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"accuracy matrix: not an array of numbers ({error})") from error
    if found.ndim != 2 or not found.size:
        raise DataError(
            f"accuracy matrix: its shape is {found.shape}, but must be (experiences, tasks), "
            "at least (1, 1)"
        )
    wrong = np.argwhere((found < -_ROUNDING) | (found > 1 + _ROUNDING) | np.isinf(found))
    if len(wrong):
        e, j = (int(place) for place in wrong[0])
        raise DataError(
            f"accuracy matrix: R[{e}, {j}] is {found[e, j]:g}, but an accuracy lies in [0, 1]; "
            "divide percentages by 100, and use NaN where nothing was measured"
        )
    return np.clip(found, 0.0, 1.0)


def _new(order: ArrayLike | None, experiences: int, tasks: int) -> np.ndarray:
    """Return which task was new when (experiences, tasks)."""
    if order is None:
        if experiences > tasks:
            raise ConfigError(
                f"order: {experiences} experiences of {tasks} tasks bring some of them again; "
                "say which task is new in each"
            )
        order = np.arange(experiences)
    numbers = read_order(order, tasks)
    if len(numbers) != experiences:
        raise ConfigError(
            f"order: it has {len(numbers)} experiences, but the accuracy matrix has {experiences}"
        )
    found = np.zeros((experiences, tasks), bool)
    rows, columns = np.nonzero(numbers >= 0)
    found[rows, numbers[rows, columns]] = True
    return found


def read_order(order: ArrayLike, tasks: int, what: str = "order") -> np.ndarray:
    """Return an order as numbers (experiences, m); raises :class:`ConfigError` naming a place."""
    try:
        numbers = np.asarray(order)
    except ValueError as error:
        raise ConfigError(f"{what}: not an array of whole numbers ({error})") from error
    if numbers.ndim not in (1, 2) or not numbers.size or numbers.dtype.kind not in "iu":
        raise ConfigError(
            f"{what}: shape {numbers.shape} of {numbers.dtype}, but it must be task numbers, one "
            "an experience or (experiences, m)"
        )
    numbers = numbers.reshape(len(numbers), -1).astype(np.int64)
    wrong = np.argwhere((numbers < -1) | (numbers >= tasks))
    if len(wrong):
        e, place = (int(index) for index in wrong[0])
        raise ConfigError(
            f"{what}: task {numbers[e, place]} in experience {e} is out of range: the tasks are "
            f"0 to {tasks - 1}, −1 for none"
        )
    return numbers
