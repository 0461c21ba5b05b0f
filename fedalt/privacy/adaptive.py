"""Adaptive clipping: the bound follows a quantile of the updates' norms.

    b̄ = ½ + (Σ_i (1[‖Δ_i‖ ≤ C] − ½) + N(0, σ_b²))/m        C ← C·exp(−η(b̄ − γ))

for the quantile γ at rate η, of m expected clients (Andrew, Thakkar, McMahan and Ramaswamy 2021,
"Differentially private learning with adaptive clipping"). One client moves the centred count by
½, so that counting costs a Gaussian of multiplier 2σ_b. For z in total the update gets

    z_Δ = (z⁻² − (2σ_b)⁻²)^(−½)

times the C that clipped; the new C holds from the next round on.
"""

from __future__ import annotations

import math

from fedalt.errors import ConfigError

_SMALLEST, _LARGEST = 1e-30, 1e30
_FARTHEST = 50.0


def update_multiplier(noise: float, count_noise: float) -> float:
    """Return z_Δ, the noise multiplier of the update beside a count with noise σ_b.

    Raises :class:`ConfigError` where the count alone would spend more than z allows.
    """
    left = noise**-2 - (2.0 * count_noise) ** -2 if count_noise > 0.0 else -1.0
    if left <= 0.0:
        raise ConfigError(
            f"privacy.count_noise is {count_noise:g}, but must be above noise/2 = {noise / 2:g}"
        )
    return float(left**-0.5)


def share_within(within: int, replies: int, expected: float, noise: float) -> float:
    """Return b̄: the share of ``expected`` clients whose norms were within the bound.

    ``within`` of the ``replies`` were; ``noise`` is what was drawn from N(0, σ_b²). With it the
    share may lie outside [0, 1].
    """
    return 0.5 + (within - 0.5 * replies + noise) / expected


def next_clip(clip: float, share: float, quantile: float, rate: float) -> float:
    """Return the bound for the next round, which the share's error moves by a factor."""
    step = max(-_FARTHEST, min(_FARTHEST, -rate * (share - quantile)))
    return min(max(clip * math.exp(step), _SMALLEST), _LARGEST)
