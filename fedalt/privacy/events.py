"""Mechanisms as dp-accounting's events, and events as plain data for the ledger.

Only the kinds named here are read back, so that a ledger's text can build nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import dp_accounting as dp
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from scipy.stats import binom  # type: ignore[import-untyped]

from fedalt.errors import ConfigError

NOTHING = dp.NoOpDpEvent()
EVERYTHING = dp.NonPrivateDpEvent()
"""A release that no mechanism protects: ε is infinite."""


def gaussian(noise: float) -> dp.DpEvent:
    """Return the Gaussian mechanism whose noise is ``noise`` times its sensitivity.

    Raises :class:`ConfigError` for a negative noise multiplier or one that is no number.
    """
    return dp.GaussianDpEvent(_noise(noise))


def sampled(rate: float, event: dp.DpEvent) -> dp.DpEvent:
    """Return an event of a Poisson sample; a rate of 1 is no sample.

    Raises :class:`ConfigError` for a negative rate or one that is no number.
    """
    _rate(rate)
    return event if rate >= 1.0 else dp.PoissonSampledDpEvent(float(rate), event)


def user_sampled(rate: float, contributions: int, noise: float) -> dp.DpEvent:
    """Return a step that draws rows by Poisson sampling, of users with so many rows at most.

    How many of a user's k rows are drawn is binomial, so that a mixture of Gaussians dominates
    (Ganesh 2024, "Tight group-level DP guarantees for DP-SGD with sampling via mixture of
    Gaussians mechanisms"); without a sample all k are there. Raises :class:`ConfigError` for
    numbers that none of these can have.
    """
    _rate(rate)
    if contributions < 1:
        raise ConfigError(f"privacy: a user with {contributions} rows: at least 1 expected")
    if rate >= 1.0:
        return gaussian(noise / contributions)
    drawn = range(contributions + 1)
    chances = binom.pmf(drawn, contributions, rate)
    return MixtureOfGaussiansDpEvent(
        _noise(noise), tuple(map(float, drawn)), tuple(map(float, chances / chances.sum()))
    )


def fixed_sample(size: int, of: int, event: dp.DpEvent) -> dp.DpEvent:
    """Return an event of ``size`` of ``of`` units drawn without replacement (replace-one only)."""
    return event if size >= of else dp.SampledWithoutReplacementDpEvent(of, size, event)


def times(event: dp.DpEvent, count: int) -> dp.DpEvent:
    """Return an event that happens so often."""
    return event if count == 1 else dp.SelfComposedDpEvent(event, int(count))


def inside(event: dp.DpEvent) -> dp.DpEvent:
    """Return what a client's mechanism costs someone inside the client.

    One record turns a clipped update into another, up to twice the bound away, in a client that
    takes part in both worlds: half the multiplier, and nothing that a draw of clients would save.
    """
    if isinstance(event, dp.GaussianDpEvent):
        return gaussian(event.noise_multiplier / 2.0)
    if isinstance(event, dp.PoissonSampledDpEvent):
        return inside(event.event)
    if isinstance(event, dp.SelfComposedDpEvent):
        return times(inside(event.event), event.count)
    return EVERYTHING


def to_plain(event: dp.DpEvent) -> dict[str, Any]:
    """Return an event as plain JSON data that :func:`from_plain` reads."""
    if isinstance(event, dp.NoOpDpEvent):
        return {"kind": "nothing"}
    if isinstance(event, dp.NonPrivateDpEvent):
        return {"kind": "unprotected"}
    if isinstance(event, dp.GaussianDpEvent):
        return {"kind": "gaussian", "noise": event.noise_multiplier}
    if isinstance(event, dp.PoissonSampledDpEvent):
        inner = to_plain(event.event)
        return {"kind": "poisson", "rate": event.sampling_probability, "of": inner}
    if isinstance(event, MixtureOfGaussiansDpEvent):
        return {
            "kind": "mixture",
            "noise": event.standard_deviation,
            "sensitivities": list(event.sensitivities),
            "chances": list(event.sampling_probs),
        }
    if isinstance(event, dp.SampledWithoutReplacementDpEvent):
        inner = to_plain(event.event)
        n, m = event.source_dataset_size, event.sample_size
        return {"kind": "without_replacement", "size": m, "population": n, "of": inner}
    if isinstance(event, dp.SelfComposedDpEvent):
        return {"kind": "times", "count": event.count, "of": to_plain(event.event)}
    if isinstance(event, dp.ComposedDpEvent):
        return {"kind": "all", "of": [to_plain(part) for part in event.events]}
    raise ConfigError(f"privacy: {type(event).__name__} cannot be written into a ledger")


def from_plain(data: Mapping[str, Any]) -> dp.DpEvent:
    """Read what :func:`to_plain` returned; raises :class:`ConfigError` for anything else."""
    try:
        kind = data["kind"]
        if kind == "nothing":
            return NOTHING
        if kind == "unprotected":
            return EVERYTHING
        if kind == "gaussian":
            return gaussian(float(data["noise"]))
        if kind == "mixture":
            return _mixture(data["noise"], data["sensitivities"], data["chances"])
        if kind == "all":
            return dp.ComposedDpEvent(tuple(from_plain(part) for part in data["of"]))
        inner = from_plain(data["of"])
        if kind == "poisson":
            return dp.PoissonSampledDpEvent(_rate(float(data["rate"])), inner)
        if kind == "without_replacement":
            return fixed_sample(int(data["size"]), int(data["population"]), inner)
        if kind == "times":
            return dp.SelfComposedDpEvent(inner, _count(data["count"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"privacy: {data!r} is no event of a ledger: {error}") from error
    raise ConfigError(f"privacy: '{kind}' is no kind of event that this version knows")


def _noise(noise: float) -> float:
    if not 0.0 <= noise < math.inf:
        raise ConfigError(f"privacy: a noise multiplier of {noise}: a number from 0 expected")
    return float(noise)


def _rate(rate: float) -> float:
    if not 0.0 <= rate < math.inf:
        raise ConfigError(f"privacy: a sampling rate of {rate}: a number from 0 expected")
    return rate


def _count(count: Any) -> int:
    if int(count) < 0:
        raise ConfigError(f"privacy: an event that happened {count} times")
    return int(count)


def _mixture(noise: Any, sensitivities: Any, chances: Any) -> dp.DpEvent:
    moved, weights = tuple(map(float, sensitivities)), tuple(map(float, chances))
    if len(moved) != len(weights) or not math.isclose(sum(weights), 1.0, rel_tol=1e-9):
        raise ConfigError(
            f"privacy: a mixture of {len(moved)} sensitivities, its {len(weights)} chances add up "
            f"to {sum(weights):g}: one each and a sum of 1 expected"
        )
    if not all(value >= 0.0 for value in (*moved, *weights)):
        raise ConfigError("privacy: a mixture with a negative sensitivity or chance")
    return MixtureOfGaussiansDpEvent(_noise(float(noise)), moved, weights)
