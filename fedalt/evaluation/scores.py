"""All metrics of one stream together, and their means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from fedalt.errors import DataError
from fedalt.evaluation import continual
from fedalt.evaluation.intervals import Interval, interval
from fedalt.evaluation.matrix import AccuracyMatrix, Matrix, accuracy_matrix


@dataclass(frozen=True)
class Scores:
    """Metrics of one stream; :mod:`fedalt.evaluation.continual` defines each.

    NaN where a metric has nothing to be read from: BWT of one experience, FWT without the
    untrained model's accuracy, the worst client without clients' matrices.
    """

    acc: float
    aia: float
    bwt: float
    forgetting: float
    fwt: float
    need_weighted: float
    worst_task: float
    worst_client: float
    learning: float
    oldest: float
    newest: float
    facilitation_slope: float
    facilitation_early: float
    facilitation_late: float

    def to_dict(self) -> dict[str, float]:
        """Return the metrics that are numbers; those that are NaN are left out."""
        return {name: value for name, value in asdict(self).items() if not np.isnan(value)}


def summary(
    matrix: Matrix,
    order: ArrayLike | None = None,
    *,
    initial: ArrayLike | None = None,
    clients: ArrayLike | Sequence[AccuracyMatrix] | None = None,
    client_orders: ArrayLike | None = None,
    few_steps: ArrayLike | None = None,
    exponent: float = 1.0,
    offset: float = 0.0,
    k: int = 3,
) -> Scores:
    """Return all metrics of one stream.

    ``initial`` (tasks,) is R_init, for FWT; ``clients`` (clients, experiences, tasks) with
    ``client_orders`` for the worst client; ``few_steps`` (experiences,) for forward
    facilitation; ``exponent`` and ``offset`` the d and τ of need. ``k`` of the oldest and
    newest tasks is lowered to the number met.
    """
    read = accuracy_matrix(matrix, order)
    if not len(read.by_age):
        raise DataError("order: no task was ever new, so that there is nothing to score")
    k = min(k, len(read.by_age))
    nan = float("nan")
    early = continual.Facilitation(nan, nan, nan)
    if few_steps is not None:
        single = order if order is not None and np.ndim(order) == 1 else None
        early = continual.forward_facilitation(few_steps, single)
    worst = nan
    if clients is not None:
        worst = continual.worst_client(clients, client_orders).accuracy
    return Scores(
        acc=continual.average_accuracy(read),
        aia=continual.average_incremental_accuracy(read),
        bwt=continual.backward_transfer(read),
        forgetting=continual.forgetting(read),
        fwt=nan if initial is None else continual.forward_transfer(read, initial),
        need_weighted=continual.need_weighted(read, exponent=exponent, offset=offset),
        worst_task=continual.worst_task(read).accuracy,
        worst_client=worst,
        learning=continual.learning_accuracy(read),
        oldest=continual.oldest_accuracy(read, k=k),
        newest=continual.newest_accuracy(read, k=k),
        facilitation_slope=early.slope,
        facilitation_early=early.early,
        facilitation_late=early.late,
    )


def mean_scores(scores: Sequence[Scores], *, level: float = 0.95) -> dict[str, Interval]:
    """Return each metric's mean and Student's interval over runs, by its name in Scores."""
    names = [each.name for each in fields(Scores)]
    return {name: interval([getattr(each, name) for each in scores], level=level) for name in names}
