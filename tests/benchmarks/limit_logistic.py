"""The hand-written limit on logistic regression: 32 clients at once, stacked, in numpy.

With scores z = xW' + b, the gradient of the mean cross-entropy of B rows is (softmax(z) − y)'x/B.
Clients are sorted by size, so that those with batches left are always the first of the stack;
rows that fill up a client's last batch get weight 0.
"""

from __future__ import annotations

import numpy as np
from work import BATCH, LR, Arrays, Work

STACK = 32
"""Clients a stack: 1 MB of weights and as much of images, which a core's cache holds."""

LABELS = np.eye(10, dtype=np.float32)


def one_round(work: Work, orders: list[np.ndarray], arrays: Arrays) -> Arrays:
    """Return the weights after a round; ``orders`` are the clients' rows as they train on them."""
    weight, bias = arrays["fc.weight"], arrays["fc.bias"]
    images = work.x.reshape(-1, 784)
    by_size = sorted(orders, key=len, reverse=True)
    total = sum(len(order) for order in orders)
    mean, mean_bias = np.zeros_like(weight), np.zeros_like(bias)
    for begin in range(0, len(by_size), STACK):
        stack = by_size[begin : begin + STACK]
        ends, end_biases = _train(stack, images, work.y, weight, bias)
        shares = np.array([len(order) / total for order in stack], np.float32)
        mean += (shares @ ends.reshape(len(stack), -1)).reshape(weight.shape)
        mean_bias += shares @ end_biases[:, 0]
    return {"fc.weight": mean, "fc.bias": mean_bias}


def _train(
    stack: list[np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the stacked weights (k, 10, 784) and biases (k, 1, 10) after each client's epoch."""
    sizes = np.array([len(order) for order in stack])
    steps = -(-sizes[0] // BATCH)
    rows = np.zeros((len(stack), steps * BATCH), int)
    for i, order in enumerate(stack):
        rows[i, : len(order)] = order
    counts = (sizes[:, None] - BATCH * np.arange(steps)).clip(0, BATCH)
    scales = np.repeat(LR / counts.clip(1), BATCH, axis=1)
    scales[np.arange(steps * BATCH) >= sizes[:, None]] = 0.0
    scales = scales.astype(np.float32)[..., None]
    weights = np.repeat(weight[None], len(stack), axis=0)
    biases = np.repeat(bias[None, None], len(stack), axis=0)
    for step in range(steps):
        live = int((counts[:, step] > 0).sum())
        part = slice(BATCH * step, BATCH * (step + 1))
        x = images[rows[:live, part]]
        error = x @ weights[:live].transpose(0, 2, 1)
        error += biases[:live]
        error -= error.max(2, keepdims=True)
        np.exp(error, out=error)
        error /= error.sum(2, keepdims=True)
        error -= LABELS[labels[rows[:live, part]]]
        error *= scales[:live, part]
        weights[:live] -= error.transpose(0, 2, 1) @ x
        biases[:live] -= error.sum(1, keepdims=True)
    return weights, biases
