"""What of a site's rows a phase's view shows: a seeded fraction of them, of some slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedalt.alternation.phase import View
from fedalt.alternation.slices import lacking
from fedalt.errors import DataError
from fedalt.privacy.sampling import rows_shown
from fedalt.seeds import Seeds


def seen(
    rows: np.ndarray, view: View, seeds: Seeds, sliced: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return the rows that a view shows; ``sliced`` are the site's slices, by name.

    A fraction is one of each slice that is named, so that none is drawn away. Raises
    :class:`DataError` for a slice of which there are no rows.
    """
    if not view.slices:
        return viewed(rows, view.fraction, seeds)
    rows = only(rows, view.slices, sliced)
    parts = [
        viewed(rows[np.isin(rows, sliced[name])], view.fraction, seeds.at("slice", name))
        for name in view.slices
    ]
    return np.unique(np.concatenate(parts))


def viewed(rows: np.ndarray, fraction: float, seeds: Seeds) -> np.ndarray:
    """Return a view's rows: ``⌈fraction·n⌉`` of them, drawn without replacement, in order."""
    if fraction >= 1.0:
        return rows
    count = rows_shown(len(rows), fraction)
    return np.sort(seeds.at("view").numpy().choice(rows, count, replace=False))


def only(rows: np.ndarray, names: Sequence[str], sliced: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return those of the rows that lie in one of the named slices; all of them if none is named.

    Raises :class:`DataError` for a slice of which there are no rows.
    """
    if not names:
        return rows
    fault = lacking(names, sliced, rows)
    if fault:
        raise DataError(f"it {fault}")
    return rows[np.isin(rows, np.concatenate([sliced[name] for name in names]))]
