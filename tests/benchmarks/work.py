"""The work that every engine is given: the same data, cohorts and initial weights; numpy alone.

Clients of 50 to 100 samples, batch 10, one local epoch, SGD 0.1, federated averaging weighted
by samples. All arrays follow from a seed. The cohorts are drawn as fedalt draws them for this
seed and a phase named ``train``, since an engine of one's own is the easiest to ask; the
runner of fedalt checks that it still is so, and all others are handed the list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from images import load_images
from segments import draw_segments

SEED = 0
PHASE = "train"
BATCH, LR = 10, 0.1

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

LOGISTIC: Shapes = {"fc.weight": (10, 784), "fc.bias": (10,)}
MLP: Shapes = {
    "fc1.weight": (200, 784), "fc1.bias": (200,),
    "fc2.weight": (10, 200), "fc2.bias": (10,),
}  # fmt: skip
CNN: Shapes = {
    "conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3), "conv2.bias": (32,),
    "fc1.weight": (128, 1568), "fc1.bias": (128,),
    "fc2.weight": (10, 128), "fc2.bias": (10,),
}  # fmt: skip
UNET: Shapes = {
    f"{layer}.{kind}": shape
    for layer, out, into, size in (
        ("down1a", 8, 1, 3), ("down1b", 8, 8, 3), ("down2a", 16, 8, 3), ("down2b", 16, 16, 3),
        ("deep1", 32, 16, 3), ("deep2", 32, 32, 3), ("up2a", 16, 48, 3), ("up2b", 16, 16, 3),
        ("up1a", 8, 24, 3), ("up1b", 8, 8, 3), ("out", 1, 8, 1),
    )
    for kind, shape in (("weight", (out, into, size, size)), ("bias", (out,)))
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One benchmark's work.

    ``x`` (rows, …) float32 and ``y`` hold all clients' samples one after the other; client i
    has the rows from ``ends[i]`` to ``ends[i + 1]``. ``initial`` are the first weights under
    the names and shapes of a torch ``state_dict``. ``test_x`` are bytes for the images.
    """

    name: str
    shapes: Shapes
    clients: int
    cohort: int
    rounds: int
    sizes: tuple[int, int] = (50, 100)
    source: str = ""
    x: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    y: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    ends: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    test_x: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    test_y: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)

    def rows(self, client: int) -> slice:
        """Return where a client's samples lie."""
        return slice(int(self.ends[client]), int(self.ends[client + 1]))

    def size(self, client: int) -> int:
        """Return a client's number of samples."""
        return int(self.ends[client + 1] - self.ends[client])

    def cohort_of(self, number: int) -> list[int]:
        """Return the clients of a round (from 1), in index order."""
        rng = generator("schedule", "cohort", number, PHASE)
        return sorted(int(i) for i in rng.choice(self.clients, size=self.cohort, replace=False))

    def orders(self) -> dict[tuple[int, int], np.ndarray]:
        """Return a client's rows in the order fedalt shuffles them, by (round, client).

        With the same batches, engines that are right end on the same weights but for rounding;
        another order alone moves the accuracy of 20 rounds by some thousandths.
        """
        found = {}
        for number in range(1, self.rounds + 1):
            for client in self.cohort_of(number):
                place = ("round", number, "phase", PHASE, "client", client, "batches")
                shuffled = generator(*place).permutation(self.size(client))
                found[number, client] = shuffled + int(self.ends[client])
        return found

    def initial(self) -> Arrays:
        """Return He-initialised weights and zero biases, float32."""
        rng = np.random.default_rng([SEED, 1])
        arrays = {}
        for name, shape in self.shapes.items():
            scale = np.sqrt(2.0 / np.prod(shape[1:])) if len(shape) > 1 else 0.0
            arrays[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        return arrays


WORKS = {
    "logistic": Work("logistic", LOGISTIC, clients=1000, cohort=100, rounds=20),
    "mlp": Work("mlp", MLP, clients=1000, cohort=100, rounds=20),
    "cnn": Work("cnn", CNN, clients=100, cohort=20, rounds=20),
    "unet": Work("unet", UNET, clients=20, cohort=4, rounds=8, sizes=(20, 40)),
}
"""The works by name, without their data."""


def load(name: str, rounds: int | None = None) -> Work:
    """Return a work with its data, for so many rounds (by default its own number)."""
    work = WORKS[name]
    low, high = work.sizes
    rng = np.random.default_rng([SEED, 0])
    sizes = rng.integers(low, high + 1, work.clients)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    arrays = _segments(int(ends[-1])) if name == "unet" else _images(int(ends[-1]), rng)
    return replace(work, rounds=rounds or work.rounds, ends=ends, **arrays)


def _images(rows: int, rng: np.random.Generator) -> dict[str, np.ndarray | str]:
    """Deal out images at random; each comes again only after all others have."""
    images = load_images()
    count = len(images.train_y)
    turns = [rng.permutation(count) for _ in range(-(-rows // count))]
    order = np.concatenate(turns)[:rows]
    # 75 000 float images are kept: what an engine reads a round must not depend on decoding.
    x = images.train_x[order].astype(np.float32)
    x /= np.float32(255)
    return {
        "source": images.source,
        "x": x.reshape(-1, 1, 28, 28),
        "y": images.train_y[order],
        "test_x": images.test_x,
        "test_y": images.test_y,
    }


def _segments(rows: int) -> dict[str, np.ndarray | str]:
    x, y = draw_segments(rows, np.random.default_rng([SEED, 2]))
    test_x, test_y = draw_segments(100, np.random.default_rng([SEED, 3]))
    return {"source": "synthetic ellipses", "x": x, "y": y, "test_x": test_x, "test_y": test_y}


def generator(*labels: int | str) -> np.random.Generator:
    """Return fedalt's generator for a place in the tree of seeds (see ``fedalt.seeds``)."""
    words: list[int] = []
    for label in labels:
        kind = "i" if isinstance(label, int) else "s"
        digest = hashlib.sha256(f"{kind}:{label}".encode()).digest()
        words += [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(SEED, spawn_key=words)))
