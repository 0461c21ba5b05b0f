"""The arithmetic of rules over many replies: sums in a fixed order, and medians.

A sum's additions to each number are those of a plain loop over the replies in their order,
whether they lie in one stack or apart, so that the result depends on the order alone. They
are only taken together, as many at a time as fit the cache, or a piece at a time where not
one does: numpy's calls cost more than the sums of a small reply.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WORKSPACE = 2**18
"""Numbers in float64 that a sum works on at a time: 2 MiB, about what a core's cache holds."""


def ordered_sum(arrays: Sequence[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """Return Σ w_i x_i, or Σ x_i, of arrays of one shape in float64, one by one in order."""
    shape, size = arrays[0].shape, arrays[0].size
    result = np.zeros(size)
    for start in range(0, size, _WORKSPACE):
        part = result[start : start + _WORKSPACE]
        pieces = arrays
        if part.size < size:
            pieces = [array.reshape(-1)[start : start + _WORKSPACE] for array in arrays]
        _add(part, pieces, weights)
    return result.reshape(shape)


def _add(part: np.ndarray, pieces: Sequence[np.ndarray], weights: np.ndarray | None) -> None:
    """Add the pieces to ``part`` in place."""
    many = min(len(pieces), _WORKSPACE // part.size)
    rows = np.empty((many, part.size))
    for start in range(0, len(pieces), many):
        block = rows[: len(pieces) - start]
        np.concatenate(pieces[start : start + many], axis=None, out=block.reshape(-1))
        if weights is not None:
            block *= weights[start : start + many, np.newaxis]
        for row in block:
            np.add(part, row, out=part)


def middle(stack: np.ndarray) -> np.ndarray:
    """Return what ``np.median`` does along the first axis; ``stack`` is sorted in place.

    To sort a whole axis takes numpy 2 a quarter of the time of its selection. A number that
    is missing makes its median a missing one.
    """
    half = len(stack) // 2
    stack.sort(axis=0)
    found = np.mean(stack[half - 1 + len(stack) % 2 : half + 1], axis=0)
    # Missing numbers are sorted to the end; whole numbers are never missing.
    missing = stack[-1] != stack[-1]
    return np.asarray(np.where(missing, np.nan, found), dtype=found.dtype)
