"""From a history of mechanisms to ε: the smallest of the sound bounds, with its name.

    gaussian   exact, for Gaussians without a sample: they compose as 1/z² = Σ 1/z_i²
               (Balle and Wang 2018, "Improving the Gaussian mechanism for differential privacy")
    pld        privacy loss distributions (Doroshenko et al. 2022, "Connect the dots")
    rdp        Rényi divergences (Mironov 2017), their curves kept by event

dp-accounting computes the latter two. Its Gaussian accountant of central limits is not used: it
printed less than PLD does. Under replace-one a unit moves a sum by twice its bound, so every
Gaussian counts with z/2 there; dp-accounting's RDP leaves that to its caller.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dp_accounting as dp
import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, nearest

RELATIONS = ("add_remove", "zero_out", "replace_one")
ORDERS = (
    *(1.5, 1.75, 2.25, 2.5, 2.75, 3.25, 3.5, 3.75, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5),
    *range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256, 512, 1024,
)  # fmt: skip
"""Rényi orders of a curve: few, since each costs a sum over the order for every event."""
INTERVALS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Steps at which losses are laid out; small losses over many rounds need fine ones."""
FEW = 500
"""Up to so many releases the coarsest step is exact to four digits (measured)."""
FINE = 0.5
"""Below this ε a coarse step may be most of it, so that the next finer one is tried."""

History = Mapping[dp.DpEvent, int]
"""An event to how often it happened."""


@dataclass(frozen=True)
class Bound:
    """An ε, at least 0, and the bound it is: ``pld``, ``rdp``, ``gaussian``, ``none`` (nothing
    happened) or ``unprotected`` (something was released without a mechanism, ε is infinite).
    """

    epsilon: float
    method: str


NOTHING = Bound(0.0, "none")
UNPROTECTED = Bound(math.inf, "unprotected")


@dataclass
class Accountant:
    """Bounds ε under one neighbouring relation; keeps each event's Rényi curve."""

    relation: str = "add_remove"
    _curves: dict[dp.DpEvent, np.ndarray | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ConfigError(
                f"privacy.relation: unknown relation '{self.relation}'"
                f"{nearest(self.relation, RELATIONS)}"
            )

    def fast(self, history: History, delta: float) -> Bound:
        """Return a bound in under a millisecond, once each event's curve is known.

        Events that have no curve (users' mixtures) take as long as :meth:`tight` does.
        """
        simple = _simple(history)
        if simple is not None:
            return simple
        noise = self._joint(history)
        if noise is not None:
            return Bound(exact_gaussian(noise, delta), "gaussian")
        return self._rdp(history, delta) or self.tight(history, delta)

    def tight(self, history: History, delta: float, adaptive: bool = False) -> Bound:
        """Return the smallest of all sound bounds.

        With ``adaptive``, where parameters were chosen from a running ε, only RDP is sound
        (Feldman and Zrnic 2021). Raises :class:`ConfigError` for events that no bound covers.
        """
        simple = _simple(history)
        if simple is not None:
            return simple
        found = [self._rdp(history, delta)]
        if not adaptive:
            noise = self._joint(history)
            if noise is not None:
                return Bound(exact_gaussian(noise, delta), "gaussian")
            found.append(self._pld(history, delta))
        sound = [bound for bound in found if bound is not None]
        if not sound:
            raise ConfigError(
                f"no bound covers {', '.join(map(repr, history))} under '{self.relation}'"
                + (" with parameters chosen from a running ε" if adaptive else "")
            )
        return min(sound, key=lambda bound: bound.epsilon)

    def coarse(self, history: History, delta: float) -> Bound:
        """Return a bound that is sound and, over many rounds, up to a few per cent above tight.

        It takes a tenth of the time of :meth:`tight`.
        """
        if _simple(history) is not None or self._joint(history) is not None:
            return self.tight(history, delta)
        composed = self._composed(history, INTERVALS[0])
        found = None if composed is None else Bound(_clamped(composed.get_epsilon(delta)), "pld")
        return found or self.tight(history, delta)

    def curve(self, history: History, deltas: Sequence[float]) -> list[Bound]:
        """Return the tight bound at each δ, from one composition."""
        if _simple(history) is not None or self._joint(history) is not None:
            return [self.tight(history, delta) for delta in deltas]
        composed = self._composed(history, INTERVALS[_releases(history) > FEW])
        found = []
        for delta in deltas:
            bounds = [self._rdp(history, delta)]
            if composed is not None:
                bounds.append(Bound(_clamped(composed.get_epsilon(delta)), "pld"))
            found.append(min((b for b in bounds if b is not None), key=lambda b: b.epsilon))
        return found

    def rdp_curve(self, history: History) -> np.ndarray | None:
        """Return the Rényi divergences (orders,) of a history; None where some event has none."""
        total = np.zeros(len(ORDERS))
        for event, count in history.items():
            curve = self._curve(event)
            if curve is None:
                return None
            total += count * curve
        return total

    def _rdp(self, history: History, delta: float) -> Bound | None:
        from dp_accounting.rdp import rdp_privacy_accountant as rdp

        total = self.rdp_curve(history)
        if total is None:
            return None
        epsilon, _ = rdp.compute_epsilon(ORDERS, total, delta)
        return Bound(_clamped(epsilon), "rdp")

    def _curve(self, event: dp.DpEvent) -> np.ndarray | None:
        if event not in self._curves:
            from dp_accounting.rdp import RdpAccountant

            accountant = RdpAccountant(np.asarray(ORDERS, float), self._neighbours)
            halved = self._seen(event)
            known = accountant.supports(halved)
            if known:
                with _quiet():
                    accountant.compose(halved)
            # The curve has no public name; an ε at one δ would not add up.
            self._curves[event] = np.asarray(accountant._rdp) if known else None
        return self._curves[event]

    def _pld(self, history: History, delta: float) -> Bound | None:
        best: float | None = None
        for interval in INTERVALS[_releases(history) > FEW :]:
            composed = self._composed(history, interval)
            if composed is None:
                return None
            epsilon = _clamped(composed.get_epsilon(delta))
            settled = best is not None and epsilon > 0.95 * best
            best = epsilon if best is None else min(best, epsilon)
            if best > FINE or settled:
                break
        return None if best is None else Bound(best, "pld")

    def _composed(self, history: History, interval: float) -> Any:
        from dp_accounting.pld import PLDAccountant

        accountant = PLDAccountant(self._neighbours, interval)
        for event, count in history.items():
            if not accountant.supports(event):
                return None
            accountant.compose(event, count)
        return accountant

    @property
    def _neighbours(self) -> Any:
        relations = dp.NeighboringRelation
        return {
            "add_remove": relations.ADD_OR_REMOVE_ONE,
            "zero_out": relations.REPLACE_SPECIAL,
            "replace_one": relations.REPLACE_ONE,
        }[self.relation]

    def _joint(self, history: History) -> float | None:
        """Return the one multiplier that Gaussians without a sample come to; None for others."""
        total = 0.0
        for event, count in history.items():
            squares = _inverse_squares(event)
            if squares is None:
                return None
            total += count * squares
        scale = 2.0 if self.relation == "replace_one" else 1.0
        return 1.0 / (scale * math.sqrt(total))

    def _seen(self, event: dp.DpEvent) -> dp.DpEvent:
        """Return an event with its sensitivity as RDP has to be told of it."""
        if self.relation != "replace_one":
            return event
        if isinstance(event, dp.GaussianDpEvent):
            return dp.GaussianDpEvent(event.noise_multiplier / 2.0)
        if isinstance(event, dp.SampledWithoutReplacementDpEvent):
            size, of = event.sample_size, event.source_dataset_size
            return dp.SampledWithoutReplacementDpEvent(of, size, self._seen(event.event))
        if isinstance(event, dp.SelfComposedDpEvent):
            return dp.SelfComposedDpEvent(self._seen(event.event), event.count)
        if isinstance(event, dp.ComposedDpEvent):
            return dp.ComposedDpEvent([self._seen(part) for part in event.events])
        return event


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dp-accounting from telling which orders it could not compute: they are left out."""
    logger = logging.getLogger("absl")
    former = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(former)


def exact_gaussian(noise: float, delta: float) -> float:
    """Return the ε of the Gaussian mechanism with multiplier ``noise`` at δ, exactly.

    δ(ε) = Φ(1/2z − εz) − e^ε Φ(−1/2z − εz)
    """

    def excess(epsilon: float) -> float:
        first = math.exp(log_ndtr(0.5 / noise - epsilon * noise))
        second = math.exp(epsilon + log_ndtr(-0.5 / noise - epsilon * noise))
        return first - second - delta

    if excess(0.0) <= 0.0:
        return 0.0
    high = 1.0
    while excess(high) > 0.0:
        high *= 2.0
    return float(brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-13))


def joint_noise(ratios: Sequence[float]) -> float:
    """Return z of several releases at once: 1/z² = Σ (Δ_b/σ_b)²; ``ratios`` are σ_b/Δ_b."""
    return 1.0 / math.sqrt(sum(1.0 / ratio**2 for ratio in ratios))


def _simple(history: History) -> Bound | None:
    happened = [event for event, count in history.items() if count > 0]
    if any(isinstance(event, dp.NonPrivateDpEvent) for event in happened):
        return UNPROTECTED
    if all(isinstance(event, dp.NoOpDpEvent) for event in happened):
        return NOTHING
    return None


def _inverse_squares(event: dp.DpEvent) -> float | None:
    """Return Σ 1/z² of Gaussians without a sample; None for anything else."""
    if isinstance(event, dp.NoOpDpEvent):
        return 0.0
    if isinstance(event, dp.GaussianDpEvent):
        return float(event.noise_multiplier) ** -2
    if isinstance(event, dp.SelfComposedDpEvent):
        inner = _inverse_squares(event.event)
        return None if inner is None else event.count * inner
    if isinstance(event, dp.ComposedDpEvent):
        parts = [_inverse_squares(part) for part in event.events]
        return None if None in parts else sum(part for part in parts if part is not None)
    return None


def _releases(history: History) -> int:
    """Return how many releases a history holds."""
    return sum(count * getattr(event, "count", 1) for event, count in history.items())


def _clamped(epsilon: float) -> float:
    return max(0.0, float(epsilon))
