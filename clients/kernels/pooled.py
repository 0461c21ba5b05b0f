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


@dataclass(frozen=True)
class Pool:
    """One part of the data: rows (N, ...), and where each client's begin."""

    rows: torch.Tensor
    starts: np.ndarray


def pools_of(clients: Sequence[Client]) -> list[Pool]:
    """Return a pool for each part of the clients' data, which are alike in shape and type."""
    return [_pool([client.data[part] for client in clients]) for part in range(_parts(clients))]


def _parts(clients: Sequence[Client]) -> int:
    return len(clients[0].data)


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


def places(tables: Sequence[np.ndarray], starts: np.ndarray, width: int, rows: int) -> np.ndarray:
    """Return the rows of a pool that each step takes (S, width, rows).

    A table (S_k, B) holds a client's own row numbers. What no client fills, steps after its last
    and places without a client, is row 0 of the pool; a batch narrower than ``rows`` is filled
    up with its own first row.
    """
    found = np.zeros((max(len(table) for table in tables), width, rows), dtype=np.int64)
    for place, (table, start) in enumerate(zip(tables, starts.tolist(), strict=True)):
        wide = min(table.shape[1], rows)
        target = found[: len(table), place]
        np.add(table[:, :wide], start, out=target[:, :wide])
        if wide < rows:
            target[:, wide:] = target[:, :1]
    return found
