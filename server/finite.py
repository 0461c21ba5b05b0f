"""Whether replies hold finite numbers only: looked at once, and by the stack where they can be.

A kernel that ran a cohort as one batch hands out replies that are views of the batch's own
arrays. If such a base is finite, every view of it is; only if it is not are they looked at
one by one, so that a bad reply is refused by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

_SPARE = 1.25
"""A base may be so much larger than its views together; a larger one is not worth a look."""


def all_finite(values: np.ndarray) -> bool:
    """Say whether no number is infinite or missing; whole numbers never are."""
    if values.dtype.kind not in "fc":
        return True
    if values.dtype.itemsize >= 4 and values.flags.c_contiguous:
        flat = values.reshape(-1)
        # BLAS sums squares in half the time of a test of each: what is not finite stays so.
        with np.errstate(all="ignore"):
            if np.isfinite(np.vdot(flat, flat)):
                return True
    # Not finite, or so large that its squares are not.
    return bool(np.isfinite(values).all())


class FiniteStacks:
    """The bases that replies share, and which of them are finite throughout."""

    def __init__(self, replies: Iterable[Mapping[str, np.ndarray]]) -> None:
        shared: dict[int, list[np.ndarray]] = {}
        # By identity: the replies, which outlive this table, keep their bases.
        for arrays in replies:
            for values in arrays.values():
                base = values.base
                if isinstance(base, np.ndarray) and base.dtype == values.dtype:
                    shared.setdefault(id(base), [base]).append(values)
        self._finite = {key for key, (base, *views) in shared.items() if _sound(base, views)}

    def holds(self, values: np.ndarray) -> bool:
        """Say whether an array is a view of a stack that is known to be finite."""
        return id(values.base) in self._finite


def _sound(base: np.ndarray, views: list[np.ndarray]) -> bool:
    worth = len(views) > 1 and base.size <= _SPARE * sum(view.size for view in views)
    return worth and all_finite(base)
