"""Full float32 on a GPU, where torch lets cuDNN round what convolutions multiply to TF32.

TF32 has 10 bits of mantissa, as half precision has. Left on, ``precision=float32`` would be a
promise kept on the CPU alone, and modes would differ by more than agreement allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from fedalt.clients.kernels.base import Order

T = TypeVar("T")


@contextmanager
def exact(order: Order) -> Iterator[None]:
    """Let convolutions round to float32 only, where the order asks for that precision."""
    if order.precision != "float32" or not order.device.startswith("cuda"):
        yield
        return
    try:
        former = torch.backends.cudnn.allow_tf32
    except RuntimeError:
        # torch's newer switches, one for each kind of operation, were set by hand: let them be.
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = former


def each_exact(order: Order, items: Iterable[T]) -> Iterator[T]:
    """Compute items one by one as :func:`exact` has it; between them all is as it was."""
    iterator = iter(items)
    while True:
        with exact(order):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
