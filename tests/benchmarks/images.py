"""28 × 28 images to learn from, by whichever set is at hand; numpy alone.

Every peer runs in an environment of its own, so nothing here imports fedalt.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where the package dataset-fashion-mnist puts its files."""

FILES = {
    "train_x": "train-images-idx3-ubyte",
    "train_y": "train-labels-idx1-ubyte",
    "test_x": "t10k-images-idx3-ubyte",
    "test_y": "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class Images:
    """Images (n, 784) of bytes, labels (n,) of 0 … 9, and what they are."""

    source: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load_images() -> Images:
    """Return Fashion-MNIST, else MNIST, else seeded synthetic images."""
    for source, folder in _places():
        if all(_find(folder, name) for name in FILES.values()):
            arrays = {key: _read(folder, name) for key, name in FILES.items()}
            return Images(source, **arrays)
    return _synthetic()


def _places() -> Iterator[tuple[str, Path]]:
    root = os.environ.get("FEDALT_DATA")
    if root:
        yield "Fashion-MNIST", Path(root) / "fashion_mnist"
    yield "Fashion-MNIST", DEBIAN
    if root:
        yield "MNIST", Path(root) / "mnist"


def _find(folder: Path, name: str) -> Path | None:
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    return found[0] if found else None


def _read(folder: Path, name: str) -> np.ndarray:
    """Return an IDX file of bytes: labels (n,) as int64, images as (n, pixels)."""
    path = _find(folder, name)
    assert path is not None
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    zeros, code, dimensions = struct.unpack(">HBB", raw[:4])
    if zeros != 0 or code != 8:
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {raw[:4].hex(' ')}")
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    if dimensions == 1:
        return values.astype(np.int64)
    count = struct.unpack(">I", raw[4:8])[0]
    # A copy, because torch warns of arrays that nobody may write.
    return values.reshape(count, -1).copy()


def _synthetic() -> Images:
    """Return ten seeded patterns under noise; learnable, and no set anyone knows."""
    rng = np.random.default_rng(20261123)
    patterns = rng.integers(0, 256, (10, 784))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 10, count)
        noisy = 0.3 * patterns[labels] + rng.normal(90, 60, (count, 784))
        return noisy.clip(0, 255).astype(np.uint8), labels

    (train_x, train_y), (test_x, test_y) = draw(20_000), draw(5_000)
    return Images("synthetic patterns", train_x, train_y, test_x, test_y)
