"""Metrics of continual learning, from the accuracy matrix R (experiences, tasks).

Every function takes R as an array with the ``order`` of its tasks, or an
:class:`~fedalt.evaluation.matrix.AccuracyMatrix`. Written with E experiences, i an experience,
j a task, f_j and s_j the experiences in which j was new first and last (both j in a stream
that brings each task once, in order), and l = i − s_j + 1 its lag, so that the newest task has
lag 1. Means are over what was measured; NaN where nothing was.

Lopez-Paz and Ranzato 2017 (GEM, arXiv:1706.08840): ACC, BWT, FWT. Chaudhry et al. 2018
(arXiv:1801.10112): forgetting. Rebuffi et al. 2017 (iCaRL, arXiv:1611.07725): average
incremental accuracy. Riemer et al. 2019 (arXiv:1810.11910): learning accuracy. Surveys: De
Lange et al. 2021 (arXiv:1909.08383); van de Ven, Tuytelaars and Tolias 2022 (Nature Machine
Intelligence 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import ConfigError, DataError
from fedalt.evaluation.matrix import AccuracyMatrix, Matrix, accuracy_matrix


class Worst(NamedTuple):
    """Which task or client does worst, and its accuracy; −1 and NaN if none was measured."""

    which: int
    accuracy: float


@dataclass(frozen=True)
class Facilitation:
    """Accuracy on new tasks after a few steps: its trend, and early against late experiences.

    ``slope`` is per experience; ``early`` and ``late`` are means of the first and last third.
    """

    slope: float
    early: float
    late: float


def average_accuracy(matrix: Matrix, order: ArrayLike | None = None) -> float:
    """ACC = mean_j R[E−1, j] over the tasks met (Lopez-Paz and Ranzato 2017)."""
    return _mean(accuracy_matrix(matrix, order).final)


def average_incremental_accuracy(matrix: Matrix, order: ArrayLike | None = None) -> float:
    """AIA = mean_i mean_{j met by i} R[i, j] (Rebuffi et al. 2017, by task)."""
    read = accuracy_matrix(matrix, order)
    met = np.where(read.met, read.values, np.nan)
    return _mean(np.array([_mean(row) for row in met]))


def backward_transfer(matrix: Matrix, order: ArrayLike | None = None) -> float:
    """BWT = mean_j (R[E−1, j] − R[s_j, j]) over tasks last new before the last experience.

    Lopez-Paz and Ranzato 2017, equation of section 2. A task that came again is compared with
    what it was when it came last. Never below −forgetting where all of R is measured.
    """
    read = accuracy_matrix(matrix, order)
    past = _past(read)
    return _mean(read.values[-1, past] - read.values[read.last[-1, past], past])


def forgetting(matrix: Matrix, order: ArrayLike | None = None) -> float:
    """F = mean_j (max_{i<E−1} R[i, j] − R[E−1, j]) over the tasks of BWT (Chaudhry et al. 2018)."""
    read = accuracy_matrix(matrix, order)
    past = _past(read)
    # NaN has no order: below every accuracy, it is the maximum only of what was not measured.
    before = np.where(np.isnan(read.values[:-1]), -1.0, read.values[:-1])
    best = before.max(axis=0, initial=-1.0)[past]
    return _mean(np.where(best < 0, np.nan, best) - read.values[-1, past])


def forward_transfer(matrix: Matrix, initial: ArrayLike, order: ArrayLike | None = None) -> float:
    """FWT = mean_j (R[f_j − 1, j] − R_init[j]) over the tasks not met in the first experience.

    ``initial`` (tasks,) is R_init, the accuracy of the untrained model of the same seed
    (Lopez-Paz and Ranzato 2017). Raises :class:`DataError` where it does not fit R.
    """
    read = accuracy_matrix(matrix, order)
    begin = _accuracies(initial, "initial accuracy", "tasks")
    if len(begin) != read.tasks:
        raise DataError(
            f"initial accuracy: it has {len(begin)} tasks, but the accuracy matrix has {read.tasks}"
        )
    later = np.flatnonzero(read.first > 0)
    return _mean(read.values[read.first[later] - 1, later] - begin[later])


def need_weighted(
    matrix: Matrix,
    order: ArrayLike | None = None,
    *,
    exponent: float = 1.0,
    offset: float = 0.0,
) -> float:
    """Accuracy weighted by need: Σ_j (l_j + τ)^(−d) R[E−1, j] / Σ_j (l_j + τ)^(−d).

    ``exponent`` is d ≥ 0, ``offset`` τ ≥ 0, in experiences; d = 0 gives ACC. The probability
    that a memory is needed falls as a power of the time since it was needed last (Anderson and
    Schooler 1991). Raises :class:`ConfigError` for a negative setting.
    """
    for name, value in (("exponent", exponent), ("offset", offset)):
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"need-weighted accuracy: {name} is {value:g}, but must be 0 or more")
    read = accuracy_matrix(matrix, order)
    measured = np.flatnonzero(~np.isnan(read.final))
    if not len(measured):
        return float("nan")
    lags = read.lags[-1, measured] + offset
    # Divided by the least: of a large exponent not every weight may come out as 0.
    return float(np.average(read.final[measured], weights=(lags / lags.min()) ** -exponent))


def worst_task(matrix: Matrix, order: ArrayLike | None = None) -> Worst:
    """min_j R[E−1, j] over the tasks met."""
    return _worst(accuracy_matrix(matrix, order).final)


def worst_client(
    matrices: ArrayLike | Sequence[AccuracyMatrix], orders: ArrayLike | None = None
) -> Worst:
    """min_k ACC_k over clients: the minimum that agnostic federated learning looks at.

    Mohri, Sivek and Suresh 2019 (arXiv:1902.00146). ``matrices`` and ``orders`` as in
    :func:`client_matrices`.
    """
    read = client_matrices(matrices, orders)
    return _worst(np.array([average_accuracy(each) for each in read]))


def learning_accuracy(matrix: Matrix, order: ArrayLike | None = None) -> float:
    """LA = mean_i R[i, task new in i]: how well tasks are learnt at all (Riemer et al. 2019)."""
    read = accuracy_matrix(matrix, order)
    return _mean(read.values[read.new])


def oldest_accuracy(matrix: Matrix, order: ArrayLike | None = None, *, k: int = 3) -> float:
    """Mean of R[E−1, j] over the k tasks that were new longest ago."""
    read = accuracy_matrix(matrix, order)
    return _mean(read.final[_ages(read, k)[:k]])


def newest_accuracy(matrix: Matrix, order: ArrayLike | None = None, *, k: int = 3) -> float:
    """Mean of R[E−1, j] over the k tasks that were new last."""
    read = accuracy_matrix(matrix, order)
    return _mean(read.final[_ages(read, k)[-k:]])


def accuracy_by_lag(matrix: Matrix, order: ArrayLike | None = None) -> np.ndarray:
    """Return mean accuracy (experiences,) over all R[i, j] with i − s_j = 0, 1, 2, ….

    The spacing curve: s_j is the last time that j was new before i, place 0 a task just learnt.
    """
    read = accuracy_matrix(matrix, order)
    return np.array([_mean(read.values[read.lags == lag + 1]) for lag in range(read.experiences)])


def forward_facilitation(few_steps: ArrayLike, order: ArrayLike | None = None) -> Facilitation:
    """Return how accuracy after a fixed few steps on the new task changes over experiences.

    ``few_steps`` (experiences,) is that accuracy, NaN where not measured. With ``order`` only
    experiences whose task was never met before count. The slope is of the least-squares line;
    thirds have ⌊E/3⌋ experiences, at least one.
    """
    found = _accuracies(few_steps, "accuracy after few steps", "experiences")
    if order is not None:
        numbers = np.asarray(order)
        if numbers.shape != found.shape:
            raise ConfigError(
                f"order: its shape is {numbers.shape}, but must be {found.shape}, one task an "
                "experience"
            )
        _, firsts = np.unique(numbers, return_index=True)
        fresh = np.isin(np.arange(len(found)), firsts) & (numbers >= 0)
        found = np.where(fresh, found, np.nan)
    third = max(1, len(found) // 3)
    time = np.flatnonzero(~np.isnan(found))
    slope = float("nan")
    if len(time) > 1:
        centred = time - time.mean()
        slope = float(centred @ found[time] / (centred @ centred))
    return Facilitation(slope, _mean(found[:third]), _mean(found[-third:]))


def client_matrices(
    matrices: ArrayLike | Sequence[AccuracyMatrix], orders: ArrayLike | None = None
) -> list[AccuracyMatrix]:
    """Read matrices (clients, experiences, tasks) with orders (experiences,) or one a client.

    Raises :class:`DataError` or :class:`ConfigError`, naming the client.
    """
    if isinstance(matrices, Sequence) and matrices:
        given = [each for each in matrices if isinstance(each, AccuracyMatrix)]
        if len(given) == len(matrices):
            if orders is not None:
                raise ConfigError("orders: the accuracy matrices have theirs; leave them out")
            return given
    try:
        stacked = np.asarray(matrices, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"clients' accuracy matrices: not one array ({error})") from error
    if stacked.ndim != 3 or not len(stacked):
        raise DataError(
            f"clients' accuracy matrices: the shape is {stacked.shape}, but must be (clients, "
            "experiences, tasks)"
        )
    each: list[ArrayLike | None] = [orders] * len(stacked)
    if orders is not None and np.ndim(orders) == 2:
        each = list(np.asarray(orders))
    if len(each) != len(stacked):
        raise ConfigError(f"orders: {len(each)} clients, but there are {len(stacked)} matrices")
    found = []
    for client, (values, order) in enumerate(zip(stacked, each, strict=True)):
        try:
            found.append(accuracy_matrix(values, order))
        except (ConfigError, DataError) as error:
            raise type(error)(f"client {client}: {error}") from error
    return found


def _past(read: AccuracyMatrix) -> np.ndarray:
    """Return the tasks met that were not new in the last experience."""
    return np.flatnonzero(read.lags[-1] > 1)


def _ages(read: AccuracyMatrix, k: int) -> np.ndarray:
    if not 1 <= k <= len(read.by_age):
        raise ConfigError(
            f"k is {k}, but must lie between 1 and the {len(read.by_age)} tasks that were met"
        )
    return read.by_age


def _accuracies(values: ArrayLike, what: str, axis: str) -> np.ndarray:
    """Read a list of accuracies, NaN allowed."""
    try:
        found = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: not a list of numbers ({error})") from error
    if found.ndim != 1 or not len(found):
        raise DataError(f"{what}: its shape is {found.shape}, but must be ({axis},)")
    if np.any((found < 0) | (found > 1 + 1e-6)):
        raise DataError(f"{what}: it ranges to {np.nanmax(np.abs(found)):g}, beyond [0, 1]")
    return found


def _mean(values: np.ndarray) -> float:
    """Return the mean of what was measured; NaN, without a warning, if nothing was."""
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")


def _worst(values: np.ndarray) -> Worst:
    if np.isnan(values).all():
        return Worst(-1, float("nan"))
    which = int(np.nanargmin(values))
    return Worst(which, float(values[which]))
