"""The data of many clients as one tensor a part, so that a step's rows are gathered at once.

Clients whose data are slices of one tensor, as those of a data set in memory are, need no copy:
that tensor is the pool. The data of any others are laid one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedalt.clients.kernels.client import Client
from fedalt.clients.kernels.stages import batch_sizes


@dataclass(frozen=True)
class Pool:
    """One part of the data: rows (N, ...), and where each client's begin."""

    rows: torch.Tensor
    starts: np.ndarray


def pools_of(clients: Sequence[Client]) -> list[Pool]:
    """Return a pool for each part of the clients' data, which are alike in shape and type."""
    return [_pool(parts) for parts in zip(*(client.data for client in clients), strict=True)]


def _pool(parts: Sequence[torch.Tensor]) -> Pool:
    first = parts[0]
    size = first[0].numel()
    storage = first.untyped_storage()
    shared = size > 0 and all(
        part.is_contiguous()
        and part.untyped_storage().data_ptr() == storage.data_ptr()
        and part.storage_offset() % size == 0
        for part in parts
    )
    if not shared:
        ends = np.cumsum([len(part) for part in parts])
        return Pool(torch.cat(list(parts)), np.concatenate([[0], ends[:-1]]))
    count = storage.nbytes() // (first.element_size() * size)
    rows = first.as_strided((count, *first.shape[1:]), first.stride(), 0)
    return Pool(rows, np.array([part.storage_offset() // size for part in parts]))


@dataclass(frozen=True)
class Layout:
    """Which rows each step takes: a client's own row numbers (K, S, R), and how many count (S, K).

    A batch that is short is filled up with its own first row. Steps after a client's last, and
    places without a client, take row 0 and count none.
    """

    rows: np.ndarray
    counts: np.ndarray

    def of(self, starts: np.ndarray) -> np.ndarray:
        """Return the rows of a pool in which clients begin at ``starts``."""
        begins = np.zeros(len(self.rows), dtype=np.int64)
        begins[: len(starts)] = starts
        found: np.ndarray = self.rows + begins[:, None, None]
        return found


def lay_out(drawn: Sequence[Sequence[np.ndarray]], width: int, size: int, rows: int) -> Layout:
    """Lay out clients' epochs in batches of at most ``size``, of which ``rows`` have room."""
    sizes = [[n for epoch in epochs for n in batch_sizes(len(epoch), size)] for epochs in drawn]
    steps = max(map(len, sizes))
    table = np.zeros((width, steps * rows), dtype=np.int64)
    counts = np.zeros((width, steps), dtype=np.int64)
    for place, (epochs, taken) in enumerate(zip(drawn, sizes, strict=True)):
        counts[place, : len(taken)] = taken
        target, begin = table[place], 0
        for epoch in epochs:
            full = begin + len(epoch)
            target[begin:full] = epoch
            # The next epoch begins with a batch of its own.
            begin += -(-len(epoch) // size) * rows
            target[full:begin] = epoch[(len(epoch) - 1) // size * size]
    return Layout(table.reshape(width, steps, rows), np.ascontiguousarray(counts.T))


def lay_out_samples(drawn: Sequence[Sequence[np.ndarray]], width: int, rows: int) -> Layout:
    """Lay out clients' Poisson samples, one a step, in batches with room for ``rows``.

    A sample may be empty: then it counts no row, as do steps after a client's last.
    """
    steps = max(map(len, drawn))
    table = np.zeros((width, steps, rows), dtype=np.int64)
    counts = np.zeros((width, steps), dtype=np.int64)
    for place, samples in enumerate(drawn):
        for step, sample in enumerate(samples):
            table[place, step, : len(sample)] = sample
            counts[place, step] = len(sample)
    return Layout(table, np.ascontiguousarray(counts.T))


def room_for(largest: int, expected: float) -> int:
    """Return for how many rows samples are laid out: few different numbers, few programs."""
    step = max(4, round(expected) // 4)
    return max(1, -(-largest // step)) * step
