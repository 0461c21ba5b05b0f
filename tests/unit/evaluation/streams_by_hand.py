"""Metrics of continual learning as plain loops over lists, and random streams to try them on."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

NAN = float("nan")
WORKED = [[0.8, 0.1, 0.2], [0.6, 0.9, 0.3], [0.5, 0.6, 0.7]]
"""Three tasks in order; every metric of it is worked out in the tests."""


def last_new(order: list[int], task: int, until: int) -> int:
    """The last experience, of 0 to ``until``, in which a task was new; −1 if there is none."""
    return max((e for e in range(until + 1) if order[e] == task), default=-1)


def mean(values: list[float]) -> float:
    """The mean of what is a number."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else NAN


def loops(matrix: list[list[float]], order: list[int], initial: list[float]) -> dict[str, float]:
    """Every metric by its equation."""
    end, tasks = len(matrix) - 1, range(len(matrix[0]))
    met = [j for j in tasks if j in order]
    past = [j for j in met if last_new(order, j, end) < end]
    best = {
        j: max((row[j] for row in matrix[:-1] if not math.isnan(row[j])), default=NAN) for j in past
    }
    need = {
        j: 1 / (end - last_new(order, j, end) + 1) for j in met if not math.isnan(matrix[end][j])
    }
    later = [j for j in met if order.index(j) > 0]
    return {
        "acc": mean([matrix[end][j] for j in met]),
        "aia": mean(
            [mean([matrix[i][j] for j in tasks if j in order[: i + 1]]) for i in range(end + 1)]
        ),
        "bwt": mean([matrix[end][j] - matrix[last_new(order, j, end)][j] for j in past]),
        "forgetting": mean([best[j] - matrix[end][j] for j in past]),
        "fwt": mean([matrix[order.index(j) - 1][j] - initial[j] for j in later]),
        "need_weighted": sum(need[j] * matrix[end][j] for j in need) / sum(need.values())
        if need
        else NAN,
        "worst_task": min((matrix[end][j] for j in need), default=NAN),
        "learning": mean([matrix[i][order[i]] for i in range(end + 1)]),
    }


@st.composite
def streams(draw: st.DrawFn, *, holes: bool = False) -> tuple[np.ndarray, list[int], list[float]]:
    """A matrix (experiences, tasks), an order in which tasks may come again, and R_init."""
    tasks, experiences = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    order = draw(st.lists(st.integers(0, tasks - 1), min_size=experiences, max_size=experiences))
    accuracy = st.floats(0, 1)
    cell = accuracy | st.just(NAN) if holes else accuracy
    cells = draw(st.lists(cell, min_size=tasks * experiences, max_size=tasks * experiences))
    initial = draw(st.lists(accuracy, min_size=tasks, max_size=tasks))
    return np.array(cells).reshape(experiences, tasks), order, initial
