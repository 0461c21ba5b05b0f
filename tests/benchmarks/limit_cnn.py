"""The hand-written limit on the CNN: one client at a time in place, channels_last, in torch.

One model serves all clients: no optimiser object, weights copied in and summed up in place.
"""

from __future__ import annotations

import numpy as np
import torch
from nets import arrays_of, with_weights
from torch.nn import functional
from work import BATCH, LR, Arrays, Work


def one_round(work: Work, orders: list[np.ndarray], arrays: Arrays) -> Arrays:
    """Return the weights after a round; ``orders`` are the clients' rows as they train on them."""
    model = with_weights(work, arrays).to(memory_format=torch.channels_last)
    client = list(model.parameters())
    with torch.no_grad():
        server = [values.clone() for values in client]
        mean = [torch.zeros_like(values) for values in client]
    images, labels = torch.from_numpy(work.x), torch.from_numpy(work.y)
    total = sum(len(order) for order in orders)
    for order in orders:
        with torch.no_grad():
            torch._foreach_copy_(client, server)
        rows = torch.from_numpy(order)
        for x, y in zip(images[rows].split(BATCH), labels[rows].split(BATCH), strict=True):
            gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), client)
            with torch.no_grad():
                torch._foreach_add_(client, gradients, alpha=-LR)
        with torch.no_grad():
            torch._foreach_add_(mean, client, alpha=len(order) / total)
    with torch.no_grad():
        torch._foreach_copy_(client, mean)
    return {name: np.ascontiguousarray(values) for name, values in arrays_of(model).items()}
