"""What does not fit is refused, by name and place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streams_by_hand import WORKED

from fedalt import evaluation as ev
from fedalt.errors import ConfigError, DataError, FedaltError


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ev.average_accuracy([0.1, 0.2]), DataError, r"shape is \(2,\)"),
        (lambda: ev.average_accuracy(np.zeros((0, 3))), DataError, r"shape is \(0, 3\)"),
        (lambda: ev.average_accuracy([["a"]]), DataError, "not an array of numbers"),
        (lambda: ev.average_accuracy([[0.1, 0.2], [0.3]]), DataError, "not an array of numbers"),
        (lambda: ev.average_accuracy([[0.1, 80.0]]), DataError, r"R\[0, 1\] is 80.*by 100"),
        (lambda: ev.average_accuracy([[0.1], [-0.2]], [0, 0]), DataError, r"R\[1, 0\] is -0.2"),
        (lambda: ev.average_accuracy([[float("inf")]]), DataError, r"R\[0, 0\] is inf"),
        (lambda: ev.average_accuracy([[0.1], [0.2]]), ConfigError, "2 experiences of 1 tasks"),
        (lambda: ev.average_accuracy(WORKED, [0, 1]), ConfigError, "order: it has 2 experiences"),
        (lambda: ev.average_accuracy(WORKED, [0, 3, 1]), ConfigError, "task 3 in experience 1"),
        (lambda: ev.average_accuracy(WORKED, [0, -2, 1]), ConfigError, "task -2 in experience 1"),
        (lambda: ev.average_accuracy(WORKED, [0.0, 1.0, 2.0]), ConfigError, "order: shape"),
        (lambda: ev.average_accuracy(WORKED, [[0, 1], [2]]), ConfigError, "order: not an array"),
        (
            lambda: ev.average_accuracy(ev.accuracy_matrix(WORKED), [0, 1, 2]),
            ConfigError,
            "has its own",
        ),
        (lambda: ev.forward_transfer(WORKED, [0.1]), DataError, "initial accuracy: it has 1 tasks"),
        (lambda: ev.forward_transfer(WORKED, [0.1, 2.0, 0.1]), DataError, "initial accuracy: .* 2"),
        (lambda: ev.need_weighted(WORKED, exponent=-1.0), ConfigError, "exponent is -1"),
        (lambda: ev.need_weighted(WORKED, offset=-0.5), ConfigError, "offset is -0.5"),
        (lambda: ev.oldest_accuracy(WORKED, k=4), ConfigError, "k is 4.* 3 tasks"),
        (lambda: ev.newest_accuracy(WORKED, k=0), ConfigError, "k is 0"),
        (lambda: ev.forward_facilitation([]), DataError, "few steps: its shape"),
        (lambda: ev.forward_facilitation([0.1, 0.2], [0]), ConfigError, "order: its shape"),
        (lambda: ev.worst_client(WORKED), DataError, r"shape is \(3, 3\)"),
        (lambda: ev.worst_client([WORKED, [[0.1]]]), DataError, "not one array"),
        (lambda: ev.worst_client([WORKED] * 3, [[0, 1, 2]] * 2), ConfigError, "2 clients.* 3"),
        (lambda: ev.worst_client([WORKED] * 2, [[0, 1, 2], [0, 9, 2]]), ConfigError, "client 1: "),
        (lambda: ev.interval([]), DataError, "must be"),
        (lambda: ev.interval([1.0], band="spred"), ConfigError, "did you mean 'spread'"),
        (lambda: ev.interval([1.0], level=95), ConfigError, "level is 95"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[FedaltError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_a_mean_of_ones_in_single_precision_passes() -> None:
    assert ev.average_accuracy([[np.float32(1.0000001)]]) == 1.0
