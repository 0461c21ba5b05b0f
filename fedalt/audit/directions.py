"""Random directions of canaries, made anew from a seed whenever one is needed.

A direction has an independent sign in each coordinate, so that it has the same norm on every
array and a bit of memory a coordinate; it is never held for all canaries at once. Directions of
d coordinates meet each other by about 1/√d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedalt.seeds import Seeds


@dataclass(frozen=True)
class Directions:
    """The directions of one audit, by canary and array."""

    seeds: Seeds

    def bits(self, canary: int, name: str, size: int) -> np.ndarray:
        """Return a canary's signs on an array as 0 and 1 (size,)."""
        rng = self.seeds.at("direction", canary, name).numpy()
        raw = np.frombuffer(rng.bytes(-(-size // 8)), np.uint8)
        return np.unpackbits(raw, count=size)

    def signs(self, canary: int, name: str, size: int) -> np.ndarray:
        """Return a canary's signs on an array as −1 and 1 (size,), int8."""
        return 2 * self.bits(canary, name, size).astype(np.int8) - 1

    def products(self, canaries: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the inner product of each canary's signs with named arrays (len(canaries),)."""
        flat = {n: np.ascontiguousarray(v, np.float32).ravel() for n, v in arrays.items()}
        total = sum(float(values.sum(dtype=np.float64)) for values in flat.values())
        found = np.zeros(len(canaries))
        for place, canary in enumerate(canaries.tolist()):
            for name, values in flat.items():
                found[place] += self.bits(canary, name, len(values)).astype(np.float32) @ values
        return 2.0 * found - total
