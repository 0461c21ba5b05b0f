"""How classes fall on clients: the table of counts and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedalt.errors import DataError


def label_table(
    parts: Sequence[np.ndarray], labels: np.ndarray, classes: int | None = None
) -> np.ndarray:
    """Return counts (clients, classes), int64.

    With ``classes`` the labels are the integers 0 … classes−1; without it they may be
    anything sortable and the columns follow ``numpy.unique(labels)``.
    """
    if classes is None:
        names, codes = np.unique(labels, return_inverse=True)
        classes = len(names)
    else:
        codes = np.asarray(labels)
        bad = np.flatnonzero((codes < 0) | (codes >= classes))
        if len(bad):
            raise DataError(
                f"label {codes[bad[0]]} at row {bad[0]} lies outside 0 to {classes - 1}"
            )
    counts = [np.bincount(codes[rows], minlength=classes) for rows in parts]
    return np.array(counts, dtype=np.int64).reshape(len(parts), classes)


def plot_labels(table: np.ndarray, path: Path, class_names: Sequence[str] | None = None) -> Path:
    """Draw the table as one stacked bar for each client; write it to ``path`` (PNG, SVG, PDF)."""
    # matplotlib is slow to import; the object API leaves its global state alone.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    clients, classes = table.shape
    names = [str(i) for i in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise DataError(f"{len(names)} class names for a table of {classes} classes")
    figure = Figure(figsize=(8.0, min(1.6 + 0.26 * clients, 11.0)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    palette = colormaps["tab10"] if classes <= 10 else colormaps["turbo"].resampled(classes)
    left = np.zeros(clients)
    # Bars of a crowded picture touch, since gaps of under a pixel would make stripes.
    height = 0.8 if clients <= 40 else 1.0
    for column, name in enumerate(names):
        count = table[:, column]
        # Empty bars are left out: with many clients and classes they cost seconds.
        at = np.flatnonzero(count)
        axes.barh(at, count[at], height, left[at], color=palette(column), label=name)
        left += count
    axes.set(xlabel="rows", ylabel="client", ylim=(clients - 0.5, -0.5), xlim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(min(clients, 20), integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title="class",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        ncols=1 + (classes - 1) // 25,
        fontsize="small",
    )
    figure.savefig(path, dpi=120)
    return path
