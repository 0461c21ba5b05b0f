"""The accuracy of final weights on the test images, by numpy alone and alike for all engines."""

from __future__ import annotations

import numpy as np
from work import Arrays, Work


def accuracy(work: Work, arrays: Arrays) -> float:
    """Return the share of test images told right."""
    correct = 0
    for begin in range(0, len(work.test_y), 500):
        part = slice(begin, begin + 500)
        images = work.test_x[part].astype(np.float32) / np.float32(255)
        correct += int((_scores(work.name, arrays, images).argmax(1) == work.test_y[part]).sum())
    return correct / len(work.test_y)


def _scores(name: str, arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """Return a model's scores (n, 10) for images (n, 784) in [0, 1]."""
    if name.startswith("logistic"):
        return _dense(images, arrays, "fc")
    if name == "cnn":
        hidden = _pool(_relu(_convolve(images.reshape(-1, 1, 28, 28), arrays, "conv1")))
        hidden = _pool(_relu(_convolve(hidden, arrays, "conv2")))
        images = hidden.reshape(len(hidden), -1)
    return _dense(_relu(_dense(images, arrays, "fc1")), arrays, "fc2")


def _dense(x: np.ndarray, arrays: Arrays, layer: str) -> np.ndarray:
    return x @ arrays[f"{layer}.weight"].T + arrays[f"{layer}.bias"]


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _pool(x: np.ndarray) -> np.ndarray:
    """Return the maxima of 2 × 2 squares."""
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))


def _convolve(x: np.ndarray, arrays: Arrays, layer: str) -> np.ndarray:
    """Return a 3 × 3 convolution of x (n, c, h, w), padded by zeros to its own size."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    products = np.tensordot(windows, arrays[f"{layer}.weight"], axes=((1, 4, 5), (1, 2, 3)))
    return np.moveaxis(products + arrays[f"{layer}.bias"], 3, 1)
