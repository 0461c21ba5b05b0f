"""MR: signal equations of two sequences, coil sensitivity and Rician noise.

Spoiled gradient echo (Ernst and Anderson 1966; Haase et al. 1986), with E1 = exp(-TR/T1):
    S = PD · sin α · (1 - E1) / (1 - E1 cos α) · exp(-TE/T2*)
Spin echo (TE much shorter than TR):
    S = PD · (1 - exp(-TR/T1)) · exp(-TE/T2)
Noise of a magnitude image (Gudbjartsson and Patz 1995): M = √((S + n₁)² + n₂²).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.unpaired_ct_mr.ct_scanner import point_spread
from fedalt.scenarios.unpaired_ct_mr.tissues import FIELDS, Properties

SEQUENCES = ("spgr", "se")
DEPHASING = 12.0
"""R2' in 1/s and tesla: 1/T2* = 1/T2 + R2', R2' in proportion to the field. It puts liver at a
T2* of 25 ms at 1.5 T and 15 ms at 3 T, near what is measured in livers without iron."""
FLOW_VOID = 0.9
"""Part of the spin echo of flowing blood that is lost: spins leave the slice between pulses."""


@dataclass(frozen=True)
class MRScanner:
    """An MR scanner and protocol: magnitude images in arbitrary units.

    ``tr_ms``, ``te_ms`` and ``flip_degrees`` (read by ``spgr`` alone) are the sequence's; ``field``
    in tesla. ``bias`` is the coil's: sensitivity lies between exp(-bias) and exp(bias). ``noise``
    is the standard deviation of each channel as a part of the mean signal of the body; ``gain``
    the vendor's scale; ``psf_mm`` the width at half maximum of the point spread.
    """

    sequence: str = "se"
    tr_ms: float = 2500.0
    te_ms: float = 80.0
    flip_degrees: float = 90.0
    field: float = 1.5
    bias: float = 0.3
    noise: float = 0.06
    gain: float = 1000.0
    psf_mm: float = 3.0

    def __post_init__(self) -> None:
        if self.sequence not in SEQUENCES:
            known = nearest(self.sequence, SEQUENCES)
            raise ConfigError(f"MR: no sequence '{self.sequence}'{known}")
        if self.field not in FIELDS:
            raise ConfigError(f"MR: relaxation times are known at {FIELDS} T, not {self.field}")
        if not all(0 < value < math.inf for value in (self.tr_ms, self.gain)):
            raise ConfigError("MR: tr_ms and gain must be finite and above 0")
        if not all(
            0 <= value < math.inf for value in (self.te_ms, self.bias, self.noise, self.psf_mm)
        ):
            raise ConfigError("MR: te_ms, bias, noise and psf_mm must be finite and not negative")
        if not 0 < self.flip_degrees <= 180:
            raise ConfigError(f"MR: flip_degrees {self.flip_degrees:g} must be in (0, 180]")

    def signals(self, values: Properties) -> np.ndarray:
        """Return tissues' signals (k,) before gain, blur, bias and noise."""
        at = FIELDS.index(self.field)
        t1, t2, density = values.t1[at], values.t2[at], values.proton_density
        if self.sequence == "se":
            signal = spin_echo(density, t1, t2, self.tr_ms, self.te_ms)
            return np.where(values.flows, (1 - FLOW_VOID) * signal, signal)
        t2_star = 1 / (1 / t2 + DEPHASING * self.field / 1000)
        return spoiled_gradient_echo(
            density, t1, t2_star, self.tr_ms, self.te_ms, np.radians(self.flip_degrees)
        )

    def image(
        self,
        tissues: np.ndarray,
        values: Properties,
        spacing: Sequence[float],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the image (x, y[, z]) float32 of tissue ids (x, y[, z])."""
        signal = self.signals(values)[tissues]
        body = values.proton_density[tissues] > 0
        sigma = self.noise * float(signal[body].mean()) if body.any() else self.noise
        clean = point_spread(signal, self.psf_mm, spacing)
        clean = clean * bias_field(clean.shape, self.bias, rng)
        return (self.gain * rician(clean, sigma, rng)).astype(np.float32)


def spoiled_gradient_echo(
    density: np.ndarray,
    t1: np.ndarray,
    t2_star: np.ndarray,
    tr_ms: float,
    te_ms: float,
    flip: float,
) -> np.ndarray:
    """Return the spoiled steady state's signal at an angle in radians; times in ms."""
    e1 = np.exp(-tr_ms / t1)
    steady = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    return np.asarray(density * steady * np.exp(-te_ms / t2_star))


def spin_echo(
    density: np.ndarray, t1: np.ndarray, t2: np.ndarray, tr_ms: float, te_ms: float
) -> np.ndarray:
    """Return the spin echo's signal; times in ms."""
    return np.asarray(density * (1 - np.exp(-tr_ms / t1)) * np.exp(-te_ms / t2))


def bias_field(size: Sequence[int], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return a smooth sensitivity (x, y[, z]), exp of a random quadratic within ± strength."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij", sparse=True)
    linear, square = rng.standard_normal((2, len(axes)))
    shape = sum(
        (a * axis + b * (axis**2 - 1 / 3) for a, b, axis in zip(linear, square, axes, strict=True)),
        np.zeros(tuple(size)),
    )
    return np.asarray(np.exp(strength * shape / np.abs(shape).max()))


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return the magnitude of a signal with Gaussian noise in both channels."""
    real = signal + sigma * rng.standard_normal(signal.shape)
    return np.hypot(real, sigma * rng.standard_normal(signal.shape))
