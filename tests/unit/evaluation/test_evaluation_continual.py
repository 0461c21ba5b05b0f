"""Metrics of continual learning: worked by hand, against plain loops, and what always holds."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams_by_hand import NAN, WORKED, loops, streams

from fedalt.errors import DataError
from fedalt.evaluation import (
    Scores,
    accuracy_by_lag,
    accuracy_matrix,
    average_accuracy,
    backward_transfer,
    client_matrices,
    forgetting,
    forward_facilitation,
    interval,
    learning_accuracy,
    mean_scores,
    need_weighted,
    newest_accuracy,
    oldest_accuracy,
    summary,
    worst_client,
    worst_task,
)


def test_three_tasks_worked_by_hand() -> None:
    scores = summary(WORKED, initial=[0.1, 0.2, 0.1], few_steps=[0.3, 0.5, 0.4], k=2)
    assert asdict(scores) == pytest.approx(
        {
            "acc": (0.5 + 0.6 + 0.7) / 3,
            "aia": (0.8 + 0.75 + 0.6) / 3,
            "bwt": ((0.5 - 0.8) + (0.6 - 0.9)) / 2,
            "forgetting": ((0.8 - 0.5) + (0.9 - 0.6)) / 2,
            "fwt": ((0.1 - 0.2) + (0.3 - 0.1)) / 2,
            "need_weighted": (0.7 / 1 + 0.6 / 2 + 0.5 / 3) / (1 + 1 / 2 + 1 / 3),
            "worst_task": 0.5,
            "worst_client": NAN,
            "learning": (0.8 + 0.9 + 0.7) / 3,
            "oldest": 0.55,
            "newest": 0.65,
            "facilitation_slope": 0.05,
            "facilitation_early": 0.3,
            "facilitation_late": 0.4,
        },
        nan_ok=True,
    )
    assert "worst_client" not in scores.to_dict()


def test_a_shuffled_order_is_the_same_stream_with_its_columns_named_otherwise() -> None:
    order, matrix = [2, 0, 1], np.array(WORKED)
    moved = np.empty_like(matrix)
    moved[:, order] = matrix
    assert asdict(summary(moved, order)) == pytest.approx(asdict(summary(matrix)), nan_ok=True)
    assert worst_task(moved, order) == (2, 0.5)


def test_a_task_that_comes_again_is_judged_from_its_last_time() -> None:
    order = [0, 1, 0, 1]
    matrix = [[0.9, 0.0], [0.5, 0.8], [0.7, 0.4], [0.6, 0.9]]
    assert backward_transfer(matrix, order) == pytest.approx(0.6 - 0.7)
    assert forgetting(matrix, order) == pytest.approx(0.9 - 0.6)
    assert need_weighted(matrix, order) == pytest.approx((0.9 + 0.6 / 2) / 1.5)
    assert accuracy_by_lag(matrix, order) == pytest.approx(
        [(0.9 + 0.8 + 0.7 + 0.9) / 4, (0.5 + 0.4 + 0.6) / 3, NAN, NAN], nan_ok=True
    )
    assert accuracy_matrix(matrix, order).lags.tolist() == [[1, 0], [2, 1], [1, 2], [2, 1]]


def test_a_federations_model_meets_several_tasks_at_once() -> None:
    """Two clients a task apart: in the last experience tasks 2 and 0 are new to one of them."""
    order = [[0, 1], [1, 2], [2, 0]]
    read = accuracy_matrix(WORKED, order)
    assert read.met.tolist() == [[True, True, False], [True] * 3, [True] * 3]
    assert backward_transfer(read) == pytest.approx(0.6 - 0.9)
    assert learning_accuracy(read) == pytest.approx((0.8 + 0.1 + 0.9 + 0.3 + 0.7 + 0.5) / 6)
    assert read.by_age.tolist() == [1, 0, 2]


def test_tasks_not_met_do_not_count() -> None:
    cut = np.array(WORKED)[:2]
    assert average_accuracy(cut) == pytest.approx(0.75)
    assert worst_task([[0.8, 0.1, 0.2]], [-1]) == pytest.approx((-1, NAN), nan_ok=True)
    with pytest.raises(DataError, match="no task was ever new"):
        summary([[0.8, 0.1]], [-1])


@given(streams(holes=True))
def test_metrics_are_those_of_plain_loops(
    stream: tuple[np.ndarray, list[int], list[float]],
) -> None:
    matrix, order, initial = stream
    found = asdict(summary(matrix, order, initial=initial))
    expected = loops(matrix.tolist(), order, initial)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@given(streams())
def test_no_task_loses_more_than_it_forgets(
    stream: tuple[np.ndarray, list[int], list[float]],
) -> None:
    matrix, order, _ = stream
    if len(set(order[:-1]) - {order[-1]}):
        assert backward_transfer(matrix, order) >= -forgetting(matrix, order) - 1e-12
    else:
        assert np.isnan([backward_transfer(matrix, order), forgetting(matrix, order)]).all()


@given(streams(holes=True), st.floats(0, 40))
def test_need_of_no_decay_is_plain_accuracy(
    stream: tuple[np.ndarray, list[int], list[float]], offset: float
) -> None:
    matrix, order, _ = stream
    plain = average_accuracy(matrix, order)
    for exponent in (0.0, 1e-12):
        found = need_weighted(matrix, order, exponent=exponent, offset=offset)
        assert found == pytest.approx(plain, nan_ok=True)


@given(streams())
def test_need_of_a_steep_decay_is_the_newest_task(
    stream: tuple[np.ndarray, list[int], list[float]],
) -> None:
    matrix, order, _ = stream
    assert need_weighted(matrix, order, exponent=2000.0) == pytest.approx(matrix[-1, order[-1]])


@given(st.floats(0, 1), streams())
def test_a_model_that_never_changes(
    level: float, stream: tuple[np.ndarray, list[int], list[float]]
) -> None:
    matrix, order, _ = stream
    scores = summary(np.full_like(matrix, level), order, initial=np.full(matrix.shape[1], level))
    for value in (scores.acc, scores.aia, scores.need_weighted, scores.oldest, scores.worst_task):
        assert value == pytest.approx(level)
    for value in (scores.bwt, scores.forgetting, scores.fwt):
        assert np.isnan(value) or value == pytest.approx(0.0, abs=1e-12)


@given(streams())
def test_oldest_and_newest_share_all_tasks(
    stream: tuple[np.ndarray, list[int], list[float]],
) -> None:
    matrix, order, _ = stream
    met, acc = len(set(order)), average_accuracy(matrix, order)
    for k in range(1, met):
        old, new = oldest_accuracy(matrix, order, k=k), newest_accuracy(matrix, order, k=met - k)
        assert (k * old + (met - k) * new) / met == pytest.approx(acc)
    assert newest_accuracy(matrix, order, k=1) == matrix[-1, order[-1]]


def test_facilitation_counts_first_meetings_only_if_told_the_order() -> None:
    steps = [0.2, 0.9, 0.3, 0.4, 0.9, 0.5]
    found = forward_facilitation(steps, [0, 0, 1, 2, 1, 3])
    x, y = np.array([0, 2, 3, 5]), np.array([0.2, 0.3, 0.4, 0.5])
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert (found.early, found.late) == (0.2, 0.5)
    assert forward_facilitation(steps).early == pytest.approx(0.55)
    assert np.isnan(forward_facilitation([0.4]).slope)


def test_worst_client_by_its_own_order() -> None:
    matrices = np.stack([WORKED, np.array(WORKED) * 0.5, WORKED])
    which, accuracy = worst_client(matrices)
    assert (which, accuracy) == (1, pytest.approx(0.3))
    # Client 2 stopped after its first task, which is its worst.
    orders = [[0, 1, 2], [0, 1, 2], [0, -1, -1]]
    assert worst_client(matrices, orders).accuracy == pytest.approx(0.3)
    matrices[2, 2, 0] = 0.05
    assert worst_client(matrices, orders) == (2, pytest.approx(0.05))
    scores = summary(WORKED, clients=matrices, client_orders=orders)
    assert scores.worst_client == pytest.approx(0.05)
    assert worst_client(client_matrices(matrices, orders)) == (2, pytest.approx(0.05))


def test_student_interval_and_spread() -> None:
    """Of 1, 2, 3 the mean is 2 and the 95 % interval 2 ± 4.3027/√3 (t with 2 degrees)."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - 2.4841377, 2 + 2.4841377))
    spread = interval(np.arange(101.0), band="spread", level=0.8)
    assert (spread.low, spread.high) == pytest.approx((10.0, 90.0))
    by_column = interval([[1.0, NAN], [3.0, NAN], [NAN, 4.0]])
    assert by_column.mean.tolist() == [2.0, 4.0]
    assert np.isnan(by_column.low[1])


def test_means_of_scores_over_seeds() -> None:
    runs = [summary(np.array(WORKED) * factor) for factor in (0.9, 1.0, 1.1)]
    found = mean_scores(runs)
    assert set(found) == set(asdict(runs[0])) == set(Scores.__dataclass_fields__)
    assert found["acc"].mean == pytest.approx(0.6)
    assert found["acc"].low < 0.54 and found["acc"].high > 0.66
    assert np.isnan(found["fwt"].mean)
