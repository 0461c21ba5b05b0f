"""Rows added to sites' data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedalt.alternation.site import Site

if TYPE_CHECKING:
    import torch


def append_rows(data: tuple[torch.Tensor, ...], rows: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Return a batch with copies of some of its rows behind it."""
    import torch

    index = torch.from_numpy(np.asarray(rows, np.int64))
    return tuple(torch.cat([part, part[index]]) for part in data)


def lengthened(sites: Sequence[Site], added: np.ndarray) -> list[Site]:
    """Return sites with so many rows more (sites,)."""
    return [replace(s, size=s.size + int(n)) for s, n in zip(sites, added, strict=True)]
