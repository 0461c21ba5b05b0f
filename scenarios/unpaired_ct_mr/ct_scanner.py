"""CT: tissues' Hounsfield units, blurred by a point spread function, with correlated noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.unpaired_ct_mr.tissues import Properties

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""
PHASES = ("portal", "unenhanced")


@dataclass(frozen=True)
class CTScanner:
    """A CT scanner and protocol: images in HU.

    ``psf_mm`` is the full width at half maximum of the Gaussian point spread; ``noise_hu`` the
    noise's standard deviation, correlated as reconstruction makes it, by the same spread. A
    vendor's calibration is ``scale`` · (HU + 1000) - 1000 + ``shift_hu``: air stays air.
    """

    phase: str = "portal"
    psf_mm: float = 3.0
    noise_hu: float = 12.0
    shift_hu: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ConfigError(f"CT: no phase '{self.phase}'{nearest(self.phase, PHASES)}")
        bounded = (self.psf_mm, self.noise_hu, self.scale, abs(self.shift_hu))
        if not all(0 <= value < math.inf for value in bounded) or not self.scale:
            raise ConfigError(
                "CT: psf_mm and noise_hu must be finite and not negative, scale above 0"
            )

    def image(
        self,
        tissues: np.ndarray,
        values: Properties,
        spacing: Sequence[float],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the image (x, y[, z]) float32 in HU of tissue ids (x, y[, z])."""
        table = values.hu_portal if self.phase == "portal" else values.hu
        hu = point_spread(table[tissues], self.psf_mm, spacing)
        noise = correlated_noise(hu.shape, self.psf_mm, spacing, rng)
        made = self.scale * (hu + 1000) - 1000 + self.shift_hu + self.noise_hu * noise
        return made.astype(np.float32)


def point_spread(image: np.ndarray, fwhm_mm: float, spacing: Sequence[float]) -> np.ndarray:
    """Blur by a Gaussian of a width at half maximum in mm; the border goes on as it is."""
    sigma = [fwhm_mm / FWHM / mm for mm in spacing]
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest"))


def correlated_noise(
    size: Sequence[int], fwhm_mm: float, spacing: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Return Gaussian noise of standard deviation 1 that a point spread has correlated."""
    noise = rng.standard_normal(tuple(size))
    for axis, mm in enumerate(spacing):
        sigma = fwhm_mm / FWHM / mm
        if sigma == 0:
            continue
        # Round the border, so that the noise is as strong there as in the middle.
        noise = ndimage.gaussian_filter1d(noise, sigma, axis, mode="wrap")
        impulse = np.zeros(size[axis])
        impulse[0] = 1
        kernel = ndimage.gaussian_filter1d(impulse, sigma, mode="wrap")
        noise /= np.sqrt((kernel**2).sum())
    return np.asarray(noise)
