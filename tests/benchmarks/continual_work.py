"""The work of a continual stream: one client, a new task in every round; numpy alone.

Round n (from 1) is experience n − 1: all N₀ = 2000 images under a permutation of pixels that is
new, and ⌊0.1·N₀⌋ rows of earlier permutations, shared by 1/lag. Six epochs of as many steps as
N₀ rows make, batch 64, Adam 0.001 that begins anew. Rows and batches are drawn as fedalt draws
them for this seed and a phase named ``train``, which a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from images import load_images
from work import PHASE, SEED, Arrays, Shapes, generator

ROWS, REHEARSAL, EPOCHS, BATCH, LR = 2000, 0.1, 6, 64, 1e-3
TEST_ROWS = 2000
SHAPES: Shapes = {
    "body.0.weight": (200, 196), "body.0.bias": (200,),
    "body.2.weight": (200, 200), "body.2.bias": (200,),
    "head.weight": (10, 200), "head.bias": (10,),
}  # fmt: skip


@dataclass(frozen=True)
class Continual:
    """Images x (n, 196) float32 in [0, 1], labels y; ``pixels`` (rounds, 196) by task."""

    rounds: int
    source: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    test_x: np.ndarray = field(repr=False)
    test_y: np.ndarray = field(repr=False)

    name = "continual"
    cohort = 1

    @property
    def steps(self) -> int:
        """Steps of a round."""
        return EPOCHS * -(-len(self.y) // BATCH)

    def rows(self, number: int) -> dict[int, np.ndarray]:
        """Return the rows of each task in a round, the new one first, then by age."""
        new = number - 1
        found = {new: np.arange(len(self.y))}
        for task, count in enumerate(shares(int(REHEARSAL * len(self.y) + 1e-9), new)):
            if count:
                rng = generator("stream", 0, "rehearse", new, task)
                found[task] = np.sort(rng.choice(len(self.y), count, replace=False))
        return found

    def batches(self, number: int) -> list[np.ndarray]:
        """Return the places, within a round's rows one after the other, that each step reads."""
        rng = generator("round", number, "phase", PHASE, "client", 0, "batches")
        count = sum(map(len, self.rows(number).values()))
        found: list[np.ndarray] = []
        while len(found) < self.steps:
            order = rng.permutation(count)
            found += np.split(order, range(BATCH, count, BATCH))
        return found[: self.steps]

    def initial(self) -> Arrays:
        """Return He-initialised weights and zero biases, float32."""
        rng = np.random.default_rng([SEED, 1])
        return {
            name: (np.sqrt(2.0 / shape[-1]) * (len(shape) > 1) * rng.standard_normal(shape)).astype(
                np.float32
            )
            for name, shape in SHAPES.items()
        }

    def accuracy(self, arrays: Mapping[str, np.ndarray]) -> float:
        """Return the share of test images told right, a mean over all tasks."""
        right = []
        for pixels in self.pixels:
            hidden = self.test_x[:, pixels]
            for layer in ("body.0", "body.2"):
                hidden = np.maximum(_dense(hidden, arrays, layer), 0)
            right.append((_dense(hidden, arrays, "head").argmax(1) == self.test_y).mean())
        return float(np.mean(right))


def shares(total: int, past: int) -> list[int]:
    """Share ``total`` rows among past tasks, oldest first, by 1/lag and largest remainders."""
    if not past:
        return []
    weights = 1.0 / np.arange(past, 0, -1)
    exact = total * weights / weights.sum()
    found = np.floor(exact + 1e-9).astype(int)
    rest = np.round(exact - found, 9)
    # Of equal remainders the newer task comes first.
    for place in sorted(range(past), key=lambda i: (-rest[i], -i))[: total - found.sum()]:
        found[place] += 1
    return [int(count) for count in found]


def load(rounds: int | None = None) -> Continual:
    """Return the stream with its data, for so many rounds (by default 20)."""
    rounds, images = rounds or 20, load_images()
    rng = np.random.default_rng([SEED, 0])
    chosen = rng.permutation(len(images.train_y))[:ROWS]
    pixels = np.stack([rng.permutation(196) for _ in range(rounds)])
    return Continual(
        rounds,
        images.source,
        _halved(images.train_x[chosen]),
        images.train_y[chosen],
        pixels,
        _halved(images.test_x[:TEST_ROWS]),
        images.test_y[:TEST_ROWS],
    )


def _halved(images: np.ndarray) -> np.ndarray:
    """Return means of 2 × 2 pixels (n, 196) in [0, 1]."""
    mean = images.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32)
    return (mean / np.float32(255)).reshape(len(images), 196)


def _dense(x: np.ndarray, arrays: Mapping[str, np.ndarray], layer: str) -> np.ndarray:
    return x @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]
