"""From a wanted ε back to noise, and to rounds."""

from __future__ import annotations

from collections.abc import Callable

from fedalt.errors import ConfigError
from fedalt.privacy.accounting import Accountant, History

RELATIVE = 1e-4
"""How near the smallest sufficient noise is met."""
LEAST, MOST = 1e-2, 1e5


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
    if not target > 0.0:
        raise ConfigError(f"the target ε is {target:g}, but must be above 0")
    accountant = Accountant(relation)

    def reaches(noise: float) -> bool:
        # Quick bounds are upper bounds too: most of the search needs no other.
        quick = accountant.fast(history_at(noise), delta).epsilon <= target
        return quick or (
            method == "tight" and accountant.tight(history_at(noise), delta).epsilon <= target
        )

    low, high = LEAST, 1.0
    while not reaches(high):
        low, high = high, 2.0 * high
        if high > MOST:
            raise ConfigError(f"no noise up to {MOST:g} brings ε to {target:g} at δ={delta:g}")
    while high > low * (1.0 + RELATIVE):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


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

    def fits(rounds: int) -> bool:
        history = history_after(rounds)
        return (
            accountant.fast(history, delta).epsilon <= budget
            or accountant.tight(history, delta).epsilon <= budget
        )

    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
