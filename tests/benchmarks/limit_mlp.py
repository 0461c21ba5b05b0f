"""The hand-written limit on the MLP: one client at a time, gradients by hand, in torch.

With h = relu(xV' + a) and z = hW' + b, the error at the scores is e = softmax(z) − y and at the
hidden layer d = eW ∘ [h > 0]. Each update is one product that adds onto the weights it
changes, V ← V − (η/B)·d'x, so that no gradient is ever written; one client's 636 KB stay in a
core's cache, which is why stacking clients does not pay here.
"""

from __future__ import annotations

import numpy as np
import torch
from work import BATCH, LR, Arrays, Work

NAMES = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


@torch.inference_mode()
def one_round(work: Work, orders: list[np.ndarray], arrays: Arrays) -> Arrays:
    """Return the weights after a round; ``orders`` are the clients' rows as they train on them."""
    server = [torch.from_numpy(arrays[name]) for name in NAMES]
    client = [torch.empty_like(values) for values in server]
    mean = [torch.zeros_like(values) for values in server]
    images = torch.from_numpy(work.x).view(-1, 784)
    labels = torch.eye(10)[torch.from_numpy(work.y)]
    total = sum(len(order) for order in orders)
    for order in orders:
        torch._foreach_copy_(client, server)
        rows = torch.from_numpy(order)
        for x, y in zip(images[rows].split(BATCH), labels[rows].split(BATCH), strict=True):
            _step(client, x, y)
        torch._foreach_add_(mean, client, alpha=len(order) / total)
    return {name: values.numpy() for name, values in zip(NAMES, mean, strict=True)}


def _step(client: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> None:
    """Change a client's weights by one batch of images x (B, 784) and one-hot labels y (B, 10)."""
    first, first_bias, last, last_bias = client
    rate = -LR / len(x)
    hidden = torch.addmm(first_bias, x, first.t()).relu_()
    error = torch.addmm(last_bias, hidden, last.t()).softmax(1).sub_(y)
    inner = torch.mm(error, last).mul_(hidden > 0)
    last.addmm_(error.t(), hidden, alpha=rate)
    last_bias.add_(error.sum(0), alpha=rate)
    first.addmm_(inner.t(), x, alpha=rate)
    first_bias.add_(inner.sum(0), alpha=rate)
