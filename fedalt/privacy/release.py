"""What a phase of a round gave away, as the ledger is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from fedalt.alternation.phase import Phase


@dataclass(frozen=True)
class Protection:
    """What a mechanism really did.

    ``noise_std`` is the standard deviation of the noise added, ``clip`` the L2 bound that
    clipped, ``sensitivity`` how far one unit can move what was noised, and ``noise_multiplier``
    the first over the last, for all blocks together.
    """

    noise_std: float
    clip: float
    sensitivity: float
    noise_multiplier: float
    weights: str = "uniform"
    denominator: float = 0.0
    rng: str = ""


@dataclass(frozen=True)
class Release:
    """A phase whose result enters the model: the sites that count, and what was applied.

    ``applied`` is None where no mechanism was.
    """

    phase: Phase
    sites: tuple[int, ...]
    applied: Protection | None = None
