"""Slices of a site's rows that a view names, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def lacking(
    names: Sequence[str], sliced: Mapping[str, np.ndarray], rows: np.ndarray | None = None
) -> str:
    """Say which slice has no rows, or none among ``rows``; empty if each has some.

    ``sliced`` are a site's slices: name to row numbers (n,).
    """
    for name in names:
        found = sliced.get(name, np.array([], int))
        if not (len(found) if rows is None else np.isin(rows, found).any()):
            known = ", ".join(sorted(sliced)) or "none"
            return (
                f"has no rows of the slice '{name}' that view.slices asks for (its slices: "
                f"{known}); choose clients that have them by clients.where"
            )
    return ""
