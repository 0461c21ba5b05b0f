"""Recurrence by a hazard: at each step a new task, or a seen one by a power law of its lag.

    P(new) = p_new while there are unseen tasks (1 in the first step),
    P(seen task j) ∝ (t − last_j + τ)^(−d)

For d of 1 or more the newest task keeps most of the weight whatever the number of others, so
that all but a few die out. :func:`alive` counts how many do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedalt.errors import ScheduleError
from fedalt.seeds import Seeds


@dataclass(frozen=True)
class Hazard:
    """The law of one stream: d, τ and p_new."""

    exponent: float
    offset: float
    p_new: float

    def __post_init__(self) -> None:
        if not 0.0 < self.p_new <= 1.0:
            raise ScheduleError(f"p_new is {self.p_new:g}, but must lie in (0, 1]")
        if not (self.exponent >= 0 and self.offset >= 0):
            raise ScheduleError("exponent and offset must not be negative")

    def draw(
        self, last: Sequence[int] | np.ndarray, time: int, tasks: int, rng: np.random.Generator
    ) -> int:
        """Return the task of step ``time``: ``len(last)``, a new one, or one seen before.

        ``last`` holds the step in which each seen task came last.
        """
        fresh = len(last) == 0 or rng.random() < self.p_new
        if fresh and len(last) < tasks:
            return len(last)
        lags = time - np.asarray(last) + self.offset
        # Divided by the least: of large exponents not every weight may come out as 0.
        cumulative = np.cumsum((lags / lags.min()) ** -float(self.exponent))
        found = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        return min(found, len(last) - 1)

    def warn_if_few_live(self, tasks: int, where: str, stacklevel: int = 2) -> None:
        """Warn of an exponent of 1 or more, naming how many tasks stay alive."""
        if self.exponent < 1:
            return
        count = alive(hazard_steps(self, tasks, _LONG, Seeds(0)))
        warnings.warn(
            f"{where}: with exponent {self.exponent:g} ≥ 1 only {count} of {tasks} tasks stay "
            f"alive (second half of {_LONG} steps), the others never come back; use an exponent "
            "below 1",
            stacklevel=stacklevel + 1,
        )


_LONG = 4000
"""Steps of the stream that the warning looks at."""


# One entry for each site of its own order, asked for again in every round.
@lru_cache(maxsize=4096)
def hazard_steps(law: Hazard, tasks: int, steps: int, seeds: Seeds) -> np.ndarray:
    """Return the task of each step (steps,); a longer stream begins with a shorter one."""
    rng = seeds.numpy()
    last = np.zeros(tasks, np.int64)
    found = np.zeros(steps, np.int64)
    seen = 0
    for time in range(1, steps + 1):
        task = law.draw(last[:seen], time, tasks, rng)
        seen = max(seen, task + 1)
        last[task] = time
        found[time - 1] = task
    found.flags.writeable = False
    return found


def alive(steps: np.ndarray) -> int:
    """Return how many tasks come in the second half of a stream."""
    return len(np.unique(steps[len(steps) // 2 :]))


def hazard_slope(steps: np.ndarray, offset: float = 0.0) -> float:
    """Return the measured slope of log hazard over log(lag + τ), by maximum likelihood.

    At every step but those that bring a new task, each seen task is at risk with its own lag
    and one of them comes. The estimate −d maximises the likelihood of those choices
    (conditional logit, McFadden 1974): Σ_t [log w(lag that came) − log Σ_j w(lag_j)].
    """
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    chosen, at_risk = _choices(steps, offset)
    logs = [np.log(lags) for lags in at_risk]
    picked = np.log(np.asarray(chosen, np.float64))

    def loss(exponent: float) -> float:
        norms = [np.log(np.exp(-exponent * (each - each[0])).sum()) for each in logs]
        firsts = np.array([each[0] for each in logs])
        return float(np.sum(exponent * (picked - firsts) + np.array(norms)))

    return -float(minimize_scalar(loss, bounds=(0.0, 10.0), method="bounded").x)


def _choices(steps: np.ndarray, offset: float) -> tuple[list[float], list[np.ndarray]]:
    """Return each returning step's lag + τ, and those of all tasks that were at risk then."""
    last: dict[int, int] = {}
    chosen: list[float] = []
    at_risk: list[np.ndarray] = []
    for time, task in enumerate(steps.tolist(), start=1):
        if task in last and len(last) > 1:
            chosen.append(time - last[task] + offset)
            at_risk.append(np.array([time - then + offset for then in last.values()]))
        last[task] = time
    return chosen, at_risk
