"""Synthetic 64 × 64 images of bright ellipses under noise, and where the ellipses are."""

from __future__ import annotations

import numpy as np

SIDE = 64


def draw_segments(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return images and masks, both (count, 1, 64, 64) float32; a mask holds 0 and 1."""
    line = np.arange(SIDE, dtype=np.float32)
    rows, columns = line[None, :, None], line[None, None, :]
    centre = rng.uniform(16, 48, (2, count, 1, 1))
    radius = rng.uniform(6, 16, (2, count, 1, 1))
    inside = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1
    noise = 0.3 * rng.standard_normal(inside.shape, dtype=np.float32)
    images = inside * rng.uniform(0.4, 1.0, (count, 1, 1)) + noise
    return images[:, None].astype(np.float32), inside[:, None].astype(np.float32)
