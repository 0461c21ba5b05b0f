"""Evaluation of what a federation learnt: metrics of continual learning, and their pictures."""

from fedalt.evaluation.continual import (
    Facilitation,
    Worst,
    accuracy_by_lag,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    client_matrices,
    forgetting,
    forward_facilitation,
    forward_transfer,
    learning_accuracy,
    need_weighted,
    newest_accuracy,
    oldest_accuracy,
    worst_client,
    worst_task,
)
from fedalt.evaluation.continual_plots import (
    forgetting_matrix,
    oldest_newest,
    spacing_curves,
    task_timeline,
)
from fedalt.evaluation.intervals import Interval, interval
from fedalt.evaluation.matrix import AccuracyMatrix, accuracy_matrix
from fedalt.evaluation.rounds import ClientMatrices, clients_from_rounds, matrix_from_rounds
from fedalt.evaluation.scores import Scores, mean_scores, summary

__all__ = [
    "AccuracyMatrix",
    "ClientMatrices",
    "Facilitation",
    "Interval",
    "Scores",
    "Worst",
    "accuracy_by_lag",
    "accuracy_matrix",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "client_matrices",
    "clients_from_rounds",
    "forgetting",
    "forgetting_matrix",
    "forward_facilitation",
    "forward_transfer",
    "interval",
    "learning_accuracy",
    "matrix_from_rounds",
    "mean_scores",
    "need_weighted",
    "newest_accuracy",
    "oldest_accuracy",
    "oldest_newest",
    "spacing_curves",
    "summary",
    "task_timeline",
    "worst_client",
    "worst_task",
]
