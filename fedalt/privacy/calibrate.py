"""From a wanted ε back to noise, and to rounds.

Every bound is an upper one, so the quick bound gives a first answer that is already safe; the
tight bound then improves on it from there, and is never asked where ε is far above the target:
there it takes longest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq  # type: ignore[import-untyped]

from fedalt.errors import ConfigError
from fedalt.privacy.accounting import Accountant, History

RELATIVE = 1e-4
"""How near the smallest sufficient noise is met."""
LEAST, MOST = 1e-3, 1e5
METHODS = ("tight", "fast")
Epsilon = Callable[[float], float]


def noise_for(
    target: float,
    delta: float,
    history_at: Callable[[float], History],
    relation: str = "add_remove",
    method: str = "tight",
) -> float:
    """Return the smallest noise multiplier whose ε at δ is at most ``target``, to 1e-4.

    ``history_at`` says what happens at a multiplier; more noise must not cost more. ``method``
    is ``tight`` or ``fast``. Raises :class:`ConfigError` where no noise reaches the target.
    """
    if not (target > 0.0 and math.isfinite(target)):
        raise ConfigError(f"the target ε is {target:g}, but must be a number above 0")
    if method not in METHODS:
        raise ConfigError(f"unknown method '{method}' (known: {', '.join(METHODS)})")
    accountant = Accountant(relation)

    def quick(noise: float) -> float:
        return accountant.fast(history_at(noise), delta).epsilon

    def tight(noise: float) -> float:
        return accountant.tight(history_at(noise), delta).epsilon

    enough = _enough(quick, target, delta)
    if method == "fast":
        return _smallest(quick, target, enough / 2.0, enough)
    enough = _smallest(quick, target, enough / 2.0, enough, RELATIVE * 100.0)
    part = 0.97
    while enough > LEAST and tight(part * enough) <= target:
        enough, part = part * enough, max(part**2, 0.5)
    return _smallest(tight, target, part * enough, enough)


def _enough(epsilon: Epsilon, target: float, delta: float) -> float:
    """Return a noise that reaches a target, and half of which does not."""
    noise = 1.0
    while epsilon(noise) > target:
        noise *= 2.0
        if noise > MOST:
            raise ConfigError(f"no noise up to {MOST:g} brings ε to {target:g} at δ={delta:g}")
    while noise > LEAST and epsilon(noise / 2.0) <= target:
        noise /= 2.0
    return noise


def _smallest(
    epsilon: Epsilon, target: float, low: float, high: float, relative: float = RELATIVE
) -> float:
    """Return the smallest noise in (low, high] that reaches a target; ``high`` does."""
    values = {}

    def excess(log_noise: float) -> float:
        if log_noise not in values:
            found = min(max(epsilon(math.exp(log_noise)), 1e-12), 1e12)
            values[log_noise] = math.log(found / target)
        return values[log_noise]

    start, end = math.log(low), math.log(high)
    if excess(start) <= 0.0:
        return math.exp(start)
    # A steep function of few turns: interpolation takes half as many steps as halving does.
    if excess(end) < 0.0:
        brentq(excess, start, end, xtol=relative / 4.0, rtol=1e-12, maxiter=100)
    while True:
        end = min((at for at, value in values.items() if value <= 0.0), default=end)
        start = max(at for at, value in values.items() if value > 0.0 and at < end)
        if end - start <= relative:
            return min(high, math.exp(end))
        excess(0.5 * (start + end))


def rounds_within(
    budget: float,
    delta: float,
    history_after: Callable[[int], History],
    most: int,
    relation: str = "add_remove",
) -> int:
    """Return the largest number of rounds, up to ``most``, whose tight ε stays within a budget.

    ``history_after`` says what has happened after so many rounds; more must not cost less.
    """
    accountant = Accountant(relation)

    def quick(rounds: int) -> bool:
        return accountant.fast(history_after(rounds), delta).epsilon <= budget

    def tight(rounds: int) -> bool:
        history = history_after(rounds)
        return (
            accountant.coarse(history, delta).epsilon <= budget
            or accountant.tight(history, delta).epsilon <= budget
        )

    low = _last(quick, 0, most + 1)
    step = max(1, low // 32)
    while low + step <= most and tight(low + step):
        low, step = low + step, 2 * step
    return _last(tight, low, min(low + step, most + 1))


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the last number for which something holds; for ``low`` it does, for ``high`` not."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
