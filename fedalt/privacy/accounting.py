"""From a history of mechanisms to ε: the smallest of the sound bounds, with its name.

    gaussian   exact, for Gaussians without a sample: they compose as 1/z² = Σ 1/z_i²
               (Balle and Wang 2018, "Improving the Gaussian mechanism for differential privacy")
    pld        privacy loss distributions (Doroshenko et al. 2022, "Connect the dots")
    rdp        Rényi divergences (Mironov 2017), their curves kept by event

dp-accounting computes the latter two, but for users' mixtures (``rdp_curves``, ``losses``). Its
Gaussian accountant of central limits is not used: it printed less than PLD does. Under
replace-one a unit moves a sum by twice its bound, so every Gaussian counts with z/2 there;
dp-accounting's RDP leaves that to its caller.
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
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, nearest
from fedalt.privacy.leaves import joint_gaussian, leaves_of
from fedalt.privacy.losses import loss_distribution
from fedalt.privacy.rdp_curves import mixture_curve

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
SAME = 1e-3
"""A finer step that changed ε by less was fine enough."""

History = Mapping[dp.DpEvent, int]
"""An event to how often it happened."""


@dataclass(frozen=True)
class Bound:
    """An ε, at least 0, and the bound it is: ``pld``, ``rdp``, ``gaussian``, ``none`` (nothing
    happened) or ``unprotected`` (something was released without a mechanism, ε is infinite).
    """

    epsilon: float
    method: str


MEANINGLESS = 100.0
"""An ε above which it does not matter by which bound."""
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

        A Poisson sample under replace-one has no curve: it takes as long as :meth:`tight`.
        """
        leaves = leaves_of(history)
        exact = self._exact(leaves, delta)
        if exact is not None:
            return exact
        return self._rdp(leaves, delta) or self.tight(history, delta)

    def tight(self, history: History, delta: float, adaptive: bool = False) -> Bound:
        """Return the smallest of all sound bounds.

        With ``adaptive``, where parameters were chosen from a running ε, only RDP is sound
        (Feldman and Zrnic 2021). Raises :class:`ConfigError` for events that no bound covers,
        and for a δ outside (0, 1).
        """
        leaves = leaves_of(history)
        exact = self._exact(leaves, delta)
        if exact is not None and not (adaptive and exact.method == "gaussian"):
            return exact
        found = [self._rdp(leaves, delta)]
        # At tiny noise losses spread over hundreds: laying them out takes minutes, for nothing.
        hopeless = found[0] is not None and found[0].epsilon > MEANINGLESS
        if not adaptive and not hopeless:
            composed = self._settled(leaves, [delta])
            found.append(None if composed is None else _pld_bound(composed, delta))
        return self._smallest(found, leaves, adaptive)

    def coarse(self, history: History, delta: float) -> Bound:
        """Return a bound that is sound and, over many rounds, up to a few per cent above tight.

        It takes a tenth of the time of :meth:`tight`.
        """
        leaves = leaves_of(history)
        exact = self._exact(leaves, delta)
        if exact is not None:
            return exact
        composed = self._composed(leaves, INTERVALS[0])
        return self.tight(history, delta) if composed is None else _pld_bound(composed, delta)

    def curve(self, history: History, deltas: Sequence[float]) -> list[Bound]:
        """Return the tight bound at each δ, from one composition."""
        leaves = leaves_of(history)
        exact = [self._exact(leaves, delta) for delta in deltas]
        if None not in exact:
            return [bound for bound in exact if bound is not None]
        composed = self._settled(leaves, deltas)
        found = []
        for delta in deltas:
            pld = None if composed is None else _pld_bound(composed, delta)
            found.append(self._smallest([self._rdp(leaves, delta), pld], leaves))
        return found

    def rdp_curve(self, history: History) -> np.ndarray | None:
        """Return the Rényi divergences (orders,) of a history; None where some event has none."""
        total = np.zeros(len(ORDERS))
        for leaf, count in leaves_of(history).items():
            curve = self._curve(leaf)
            if curve is None:
                return None
            total += count * curve
        return total

    def _exact(self, leaves: History, delta: float) -> Bound | None:
        """Return the ε where a formula has it: of nothing, of everything and of Gaussians."""
        if not 0.0 < delta < 1.0:
            raise ConfigError(f"privacy: ε at δ={delta:g}: δ must lie between 0 and 1")
        if any(isinstance(leaf, dp.NonPrivateDpEvent) for leaf in leaves):
            return UNPROTECTED
        if not leaves:
            return NOTHING
        noise = joint_gaussian(leaves)
        if noise is None:
            return None
        return Bound(exact_gaussian(noise / self._moves, delta), "gaussian")

    def _smallest(
        self, found: Sequence[Bound | None], leaves: History, adaptive: bool = False
    ) -> Bound:
        sound = [bound for bound in found if bound is not None]
        if sound:
            return min(sound, key=lambda bound: bound.epsilon)
        fixed = any(isinstance(leaf, dp.SampledWithoutReplacementDpEvent) for leaf in leaves)
        hint = (
            "; a sample of fixed size needs privacy.relation=replace_one, no Poisson sample beside"
        )
        raise ConfigError(
            f"no bound covers {', '.join(map(repr, leaves))} under '{self.relation}'"
            + (" with parameters chosen from a running ε" if adaptive else "")
            + (hint if fixed else "")
        )

    def _rdp(self, leaves: History, delta: float) -> Bound | None:
        from dp_accounting.rdp import rdp_privacy_accountant as rdp

        total = self.rdp_curve(leaves)
        if total is None:
            return None
        epsilon, _ = rdp.compute_epsilon(ORDERS, total, delta)
        return Bound(_clamped(epsilon), "rdp")

    def _curve(self, leaf: dp.DpEvent) -> np.ndarray | None:
        if leaf not in self._curves:
            self._curves[leaf] = self._new_curve(leaf)
        return self._curves[leaf]

    def _new_curve(self, leaf: dp.DpEvent) -> np.ndarray | None:
        from dp_accounting.rdp import RdpAccountant

        if isinstance(leaf, MixtureOfGaussiansDpEvent):
            if self.relation == "replace_one":
                return None
            return mixture_curve(
                leaf.standard_deviation, leaf.sensitivities, leaf.sampling_probs, ORDERS
            )
        accountant = RdpAccountant(np.asarray(ORDERS, float), self._neighbours)
        halved = self._seen(leaf)
        if not accountant.supports(halved):
            return None
        with _quiet():
            accountant.compose(halved)
        # The curve has no public name; an ε at one δ would not add up.
        return np.asarray(accountant._rdp)

    def _settled(self, leaves: History, deltas: Sequence[float]) -> Any:
        """Return the loss distribution laid out as finely as the smallest of its ε need."""
        best, former = None, [math.inf] * len(deltas)
        for interval in INTERVALS[sum(leaves.values()) > FEW :]:
            composed = self._composed(leaves, interval)
            if composed is None:
                return None
            epsilons = [_clamped(composed.get_epsilon_for_delta(delta)) for delta in deltas]
            if all(now <= before for now, before in zip(epsilons, former, strict=True)):
                best = composed
            if all(map(_is_settled, epsilons, former)):
                break
            former = epsilons
        return best

    def _composed(self, leaves: History, interval: float) -> Any:
        """Return a history's loss distribution; None where some event has none."""
        gaussians = {e: n for e, n in leaves.items() if isinstance(e, dp.GaussianDpEvent)}
        parts = {event: count for event, count in leaves.items() if event not in gaussians}
        if gaussians:
            # Exact, where composing their losses step by step is not.
            parts[dp.GaussianDpEvent(joint_gaussian(gaussians))] = 1
        total = None
        for event, count in parts.items():
            single = loss_distribution(event, self._neighbours, interval)
            if single is None:
                return None
            several = single.self_compose(count) if count > 1 else single
            total = several if total is None else total.compose(several)
        return total

    @property
    def _moves(self) -> float:
        """By how many of its bounds a unit moves a sum."""
        return 2.0 if self.relation == "replace_one" else 1.0

    @property
    def _neighbours(self) -> Any:
        relations = dp.NeighboringRelation
        return {
            "add_remove": relations.ADD_OR_REMOVE_ONE,
            "zero_out": relations.REPLACE_SPECIAL,
            "replace_one": relations.REPLACE_ONE,
        }[self.relation]

    def _seen(self, leaf: dp.DpEvent) -> dp.DpEvent:
        """Return a mechanism with its sensitivity as RDP has to be told of it."""
        if isinstance(leaf, dp.GaussianDpEvent):
            return dp.GaussianDpEvent(leaf.noise_multiplier / self._moves)
        if isinstance(leaf, dp.SampledWithoutReplacementDpEvent):
            size, of = leaf.sample_size, leaf.source_dataset_size
            return dp.SampledWithoutReplacementDpEvent(of, size, self._seen(leaf.event))
        return leaf


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

    if math.isinf(noise) or excess(0.0) <= 0.0:
        return 0.0
    high = 1.0
    while excess(high) > 0.0:
        high *= 2.0
    return float(brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-13))


def joint_noise(ratios: Sequence[float]) -> float:
    """Return z of several releases at once: 1/z² = Σ (Δ_b/σ_b)²; ``ratios`` are σ_b/Δ_b.

    Raises :class:`ConfigError` where there are none, or one without noise.
    """
    if not ratios or not all(ratio > 0.0 for ratio in ratios):
        raise ConfigError(
            f"privacy: noise over sensitivity {list(ratios)}: numbers above 0 expected"
        )
    return 1.0 / math.sqrt(sum(1.0 / ratio**2 for ratio in ratios))


def _is_settled(epsilon: float, former: float) -> bool:
    """Say whether a finer step would hardly change an ε, seeing what this one changed."""
    return epsilon > FINE or epsilon == 0.0 or former - epsilon < max(SAME, 0.05 * former)


def _pld_bound(composed: Any, delta: float) -> Bound:
    return Bound(_clamped(composed.get_epsilon_for_delta(delta)), "pld")


def _clamped(epsilon: float) -> float:
    return max(0.0, float(epsilon))
