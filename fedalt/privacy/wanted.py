"""The noise for a wanted ε: one factor on every noise multiplier of a plan.

With all z scaled by the same s, an ε falls as s grows, whoever is looked at; s is the smallest
at which the costliest history of every unit keeps to the target by its tight bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import dp_accounting as dp
import numpy as np
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

from fedalt.errors import ConfigError
from fedalt.privacy.account import Account, Scope
from fedalt.privacy.accounting import Bound, History
from fedalt.privacy.calibrate import noise_for
from fedalt.privacy.summary import costliest


@dataclass(frozen=True)
class Wanted:
    """By what to multiply every noise multiplier, and the ε of each unit that this makes."""

    factor: float
    bounds: dict[str, Bound]


def noise_factor(account: Account, target: float, delta: float) -> Wanted:
    """Return the smallest factor with which every protected unit's tight ε is within a target.

    Raises :class:`ConfigError` for a target that no noise reaches.
    """
    if not (math.isfinite(target) and target > 0.0):
        raise ConfigError(f"target ε is {target:g}, but must be a number above 0")
    worst = {u: account.worst(Scope(u), delta).epsilon for u in account.units()}
    units = [unit for unit, epsilon in worst.items() if math.isfinite(epsilon)]
    if not units:
        raise ConfigError(
            "no noise reaches a target: something is released that no mechanism protects"
        )
    accountant, factor = account.accountant, 0.0
    for unit in units:
        for history in _from_costliest(account, Scope(unit), delta):
            enough = factor > 0.0 and _keeps(account, scale(history, factor), target, delta)
            if not enough:
                factor = _factor(history, target, delta, account.relation)
    bounds = {
        unit: accountant.tight(scale(costliest(account, Scope(unit), delta), factor), delta)
        for unit in units
    }
    return Wanted(factor, bounds)


def _from_costliest(account: Account, scope: Scope, delta: float) -> list[dict[dp.DpEvent, int]]:
    """Return the different histories of a scope, the costliest first."""
    found = {
        frozenset(history.items()): history
        for number in np.unique(account.profiles).tolist()
        for history in account.histories(number, scope)
        if history
    }
    quick = account.accountant.fast
    return sorted(found.values(), key=lambda history: -quick(history, delta).epsilon)


def _keeps(account: Account, history: History, target: float, delta: float) -> bool:
    quick = account.accountant.fast(history, delta).epsilon
    return quick <= target or account.accountant.tight(history, delta).epsilon <= target


def _factor(history: History, target: float, delta: float, relation: str) -> float:
    """Return the factor for one history: the noise of its quietest event, over what it has."""
    least = min(_noise(event) for event in history)
    wanted = noise_for(
        target, delta, lambda noise: scale(history, noise / least), relation=relation
    )
    return wanted / least


def scale(history: History, factor: float) -> dict[dp.DpEvent, int]:
    """Return a history with every noise multiplier times a factor."""
    return {scaled(event, factor): count for event, count in history.items()}


def scaled(event: dp.DpEvent, factor: float) -> dp.DpEvent:
    """Return an event with its noise times a factor."""
    if isinstance(event, dp.GaussianDpEvent):
        return dp.GaussianDpEvent(event.noise_multiplier * factor)
    if isinstance(event, dp.PoissonSampledDpEvent):
        inner = scaled(event.event, factor)
        return dp.PoissonSampledDpEvent(event.sampling_probability, inner)
    if isinstance(event, dp.SampledWithoutReplacementDpEvent | dp.SelfComposedDpEvent):
        return _with_inner(event, scaled(event.event, factor))
    if isinstance(event, MixtureOfGaussiansDpEvent):
        loud = event.standard_deviation * factor
        return MixtureOfGaussiansDpEvent(loud, event.sensitivities, event.sampling_probs)
    if isinstance(event, dp.ComposedDpEvent):
        return dp.ComposedDpEvent([scaled(part, factor) for part in event.events])
    return event


def _with_inner(event: dp.DpEvent, inner: dp.DpEvent) -> dp.DpEvent:
    """Return a sampled or repeated event of another one."""
    if isinstance(event, dp.SelfComposedDpEvent):
        return dp.SelfComposedDpEvent(inner, event.count)
    return dp.SampledWithoutReplacementDpEvent(event.source_dataset_size, event.sample_size, inner)


def _noise(event: dp.DpEvent) -> float:
    """Return the smallest noise multiplier in an event."""
    if isinstance(event, dp.GaussianDpEvent):
        return float(event.noise_multiplier)
    if isinstance(event, MixtureOfGaussiansDpEvent):
        return float(event.standard_deviation)
    if isinstance(event, dp.ComposedDpEvent):
        return min(_noise(part) for part in event.events)
    return _noise(event.event) if hasattr(event, "event") else math.inf
