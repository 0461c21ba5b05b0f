"""Accuracy matrices from what a run's rounds told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fedalt.errors import DataError
from fedalt.evaluation import clients_from_rounds, matrix_from_rounds


def told(number: int, **accuracies: Any) -> dict[str, Any]:
    """A round's event; ``t3`` is the accuracy on task 3."""
    metrics = {f"server/accuracy/{name[1:]}": value for name, value in accuracies.items()}
    return {"round": number, "metrics": {"server/accuracy": 0.5, "server/loss/0": 2.0, **metrics}}


ROUNDS = [
    told(1, t0=0.1, t1=0.1),
    told(2, t0=0.8, t1=0.2),
    told(3),
    told(4, t0=0.7, t10="nan", t1=0.9),
    told(5, t0=0.0),
]


def test_the_last_round_of_an_experience_that_was_measured_counts() -> None:
    found = matrix_from_rounds(ROUNDS, [[1, 2], [3, 4]])
    assert found.shape == (2, 11)
    np.testing.assert_array_equal(found[:, :2], [[0.8, 0.2], [0.7, 0.9]])
    assert np.isnan(found[:, 2:]).all()
    by_number = matrix_from_rounds(json.loads(json.dumps(ROUNDS[::-1])), [[2, 1], [3, 4]])
    np.testing.assert_array_equal(found, by_number)
    earlier = matrix_from_rounds(ROUNDS, [[1, 2, 3]], tasks=2)
    np.testing.assert_array_equal(earlier, [[0.8, 0.2]])


def test_experiences_may_be_of_unlike_length_begin_later_or_lack_a_measurement() -> None:
    found = matrix_from_rounds(ROUNDS[:3], [[2], [3], []], tasks=3)
    nan = np.nan
    np.testing.assert_array_equal(found, [[0.8, 0.2, nan], [nan] * 3, [nan] * 3])


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match=r"no round has metric .*; set evaluate\.server_every to 1"):
        matrix_from_rounds(ROUNDS, [[3]])
    with pytest.raises(DataError, match="no round has metric"):
        matrix_from_rounds([], [[1]])
    with pytest.raises(DataError, match="task 10 was measured, but the stream has 3 tasks"):
        matrix_from_rounds(ROUNDS, [[1, 2], [3, 4]], tasks=3)
    with pytest.raises(DataError, match=r"round 1: metric 'server/accuracy/0' is \[\]"):
        matrix_from_rounds([told(1, t0=[])], [[1]])


def test_clients_matrices_stand_in_the_sites_order() -> None:
    events = [
        {"round": 2, "sites": {"10": {"accuracy/0": 0.4}, "2": {"accuracy/0": 0.3, "loss": 1.0}}},
        {"round": 4, "sites": {"2": {"accuracy/0": 0.2, "accuracy/1": 0.6}}},
    ]
    found = clients_from_rounds(events, [[1, 2], [3, 4]])
    assert found.sites == ("2", "10")
    nan = np.nan
    first, second = [[0.3, nan], [0.2, 0.6]], [[0.4, nan], [nan, nan]]
    np.testing.assert_array_equal(found.values, [first, second])
    picked = found.of(["10", "7", "2"])
    np.testing.assert_array_equal(picked, [second, [[nan] * 2] * 2, first])


def test_clients_that_told_nothing_are_named() -> None:
    with pytest.raises(DataError, match=r"no round has 'sites' .*; set evaluate\.clients_every"):
        clients_from_rounds([{"round": 1, "sites": {"0": {"loss": 1.0}}}], [[1]])
    with pytest.raises(DataError, match="no round has 'each'"):
        clients_from_rounds([{"round": 1}], [[1]], field="each")
    with pytest.raises(DataError, match="take the events 'clients'"):
        clients_from_rounds([{"round": 1, "sites": {"train": 4}}], [[1]])
