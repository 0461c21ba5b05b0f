"""Environments: how much of each past task a client meets again while it learns a new one.

With N₀ rows of the new task, lag l ≥ 1 since a past task was introduced and a budget of
⌊r·N₀⌋ rows of all past tasks together, the budget is shared by the weights

    uniform        1                    none      0
    power_law      (l + τ)^(−d)         last      1 for the newest past task, else 0
    exponential    exp(−l / β)

and rounded by largest remainders, so that counts sum to the budget exactly. Two have no
budget: ``upper`` takes all that was seen of every past task, ``unrestricted`` takes
N₀·(1 + l/τ)^(−d) of each. ``hazard`` is the stochastic form: an experience is one task, new
with probability p_new, else a seen one with probability ∝ (t − last + τ)^(−d).

Power-law environments: Anderson and Schooler 1991 ("Reflections of the environment in
memory") for the law; here for continual learning, where the natural rate of recurrence takes
the place of a rehearsal policy. Largest remainders: Hamilton's method of apportionment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.alternation import entry
from fedalt.errors import ScheduleError, nearest

_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "last": (),
    "uniform": (),
    "upper": (),
    "exponential": ("scale",),
    "power_law": ("exponent", "scale"),
    "unrestricted": ("exponent", "scale"),
    "hazard": ("exponent", "scale", "p_new"),
}
KINDS = tuple(_SETTINGS)
_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "exponential": {"scale": 1.0},
    "power_law": {"exponent": 1.0, "scale": 0.0},
    "unrestricted": {"exponent": 5.6, "scale": 10.0},
    "hazard": {"exponent": 0.5, "scale": 0.0, "p_new": 0.1},
}


@dataclass(frozen=True)
class Environment:
    """A law of recurrence; settings that a kind does not have are 0.

    ``exponent`` is d, ``scale`` τ of a power law or β of an exponential, in experiences.
    """

    kind: str = "none"
    exponent: float = 0.0
    scale: float = 0.0
    p_new: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _SETTINGS:
            raise ScheduleError(
                f"environment: unknown kind '{self.kind}'{nearest(self.kind, (*KINDS, *PRESETS))}"
            )
        used = _SETTINGS[self.kind]
        for key in ("exponent", "scale", "p_new"):
            value = getattr(self, key)
            if not math.isfinite(value) or (key not in used and value):
                raise ScheduleError(
                    f"environment '{self.kind}': {key} is {value:g}, but "
                    + ("it has no such setting" if key not in used else "must be finite")
                )
        if "exponent" in used and self.exponent <= 0:
            raise ScheduleError(
                f"environment '{self.kind}': exponent is {self.exponent:g}, but must be above 0; "
                "use 'uniform' for no decay"
            )
        least = "above 0" if self.kind in ("exponential", "unrestricted") else "0 or more"
        if "scale" in used and (self.scale < 0 or (least == "above 0" and not self.scale)):
            raise ScheduleError(
                f"environment '{self.kind}': scale is {self.scale:g}, but must be {least}"
            )
        if "p_new" in used and not 0.0 < self.p_new <= 1.0:
            raise ScheduleError(
                f"environment '{self.kind}': p_new is {self.p_new:g}, but must lie in (0, 1]"
            )

    @property
    def stochastic(self) -> bool:
        """Whether each experience is one task, drawn."""
        return self.kind == "hazard"

    def weights(self, lags: Sequence[int]) -> np.ndarray:
        """Return the shares (past tasks,) of a budget, not scaled; lags are 1 or more."""
        lag = np.asarray(lags, np.float64)
        found: np.ndarray
        if self.kind in ("uniform", "upper"):
            return np.ones(len(lag))
        if not len(lag) or self.kind in ("none", "hazard"):
            return np.zeros(len(lag))
        least = lag.min()
        if self.kind == "last":
            found = (lag == least).astype(np.float64)
        elif self.kind == "exponential":
            # Relative to the newest, so that a long stream does not underflow to nothing.
            found = np.exp(-(lag - least) / self.scale)
        else:
            found = ((lag + self.scale) / (least + self.scale)) ** -self.exponent
        return found

    def counts(
        self, lags: Sequence[int], new: int, rehearsal: float, seen: Sequence[int]
    ) -> list[int]:
        """Return how many rows of each past task an experience holds.

        ``new`` is N₀, ``rehearsal`` r, ``seen`` the rows seen of each past task. Raises
        :class:`ScheduleError` where more would be rehearsed than was seen.
        """
        if self.kind == "upper":
            return list(seen)
        if self.kind == "unrestricted":
            lag = np.asarray(lags, np.float64)
            exact = new * (1.0 + lag / self.scale) ** -self.exponent
            found = [int(count) for count in np.rint(exact)]
        else:
            # 0.07·100 is 7.000000000000001 in floating point, and 0.29·100 is 28.999999999999996.
            found = apportion(math.floor(rehearsal * new + 1e-9), self.weights(lags))
        for place, (count, there) in enumerate(zip(found, seen, strict=True)):
            if count > there:
                raise ScheduleError(
                    f"environment '{self.kind}' rehearses {count} rows of the task met "
                    f"{lags[place]} experiences ago, of which {there} were seen; lower "
                    "rehearsal, or let every task have as many rows"
                )
        return found

    def to_data(self) -> Any:
        """Return plain data that :func:`read_environment` reads."""
        used = _SETTINGS[self.kind]
        return {self.kind: {key: getattr(self, key) for key in used}} if used else self.kind


PRESETS: Mapping[str, Environment] = {
    "inverse_lag": Environment("power_law", exponent=1.0, scale=0.0),
    "power_5.6": Environment("power_law", exponent=5.6, scale=10.0),
}
"""Laws with names of their own: w ∝ l⁻¹, and w ∝ (1 + l/10)^(−5.6)."""


def apportion(total: int, weights: Sequence[float] | np.ndarray) -> list[int]:
    """Share ``total`` by weights in whole numbers that sum to it, by largest remainders.

    Of equal remainders the later place comes first: the task met more recently. Without any
    weight above 0 every share is 0.
    """
    share = np.asarray(weights, np.float64)
    if not share.sum() > 0:
        return [0] * len(share)
    exact = total * share / share.sum()
    # Floors of what rounding put just below a whole number would lose one.
    found = np.floor(exact + 1e-9).astype(np.int64)
    rest = np.round(exact - found, 9)
    order = sorted(range(len(share)), key=lambda place: (-rest[place], -place))
    for place in order[: total - int(found.sum())]:
        found[place] += 1
    return [int(count) for count in found]


def read_environment(data: Any, where: str = "environment") -> Environment:
    """Read a name, or one kind with its settings: ``{power_law: {exponent: 1, scale: 0}}``."""
    if isinstance(data, Environment):
        return data
    if isinstance(data, str) and data in PRESETS:
        return PRESETS[data]
    body: Any = {}
    if isinstance(data, str) and data in _SETTINGS:
        kind = data
    elif isinstance(data, str):
        raise ScheduleError(
            f"{where}: unknown environment '{data}'{nearest(data, (*KINDS, *PRESETS))}"
        )
    else:
        kind, body = entry.single(data, where, "environment", KINDS)
    body = entry.keys(body or {}, f"{where}.{kind}", [], _SETTINGS[kind])
    given = {key: entry.number(value, f"{where}.{kind}.{key}") for key, value in body.items()}
    try:
        return Environment(kind, **{**_DEFAULTS.get(kind, {}), **given})
    except ScheduleError as error:
        raise ScheduleError(f"{where}: {error}") from error
