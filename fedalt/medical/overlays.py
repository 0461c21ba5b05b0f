"""Overlays: image, truth and prediction side by side, as radiologists look at them.

Arrays are in RAS orientation (x grows to the patient's right, y to anterior, z to superior) and
are shown in the radiological convention: the patient's right on the picture's left, anterior up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedalt.errors import DataError
from fedalt.evaluation.colours import INK, task_colours, to_rgba
from fedalt.medical.overlap import batch_dice
from fedalt.medical.surfaces import check_spacing
from fedalt.runs.plots import figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGREEMENT = {
    "right": to_rgba("#009E73"),
    "missed": to_rgba("#56B4E9"),
    "false alarm": to_rgba("#E69F00"),
    "wrong organ": to_rgba("#CC79A7"),
}
"""Colours of the agreement map (Okabe and Ito 2008), readable by colour-blind eyes."""
_WIDTH, _FILL = 2.9, 0.35
_DARKEST = 0.45
"""Least mean of red, green and blue in an organ's colour: scans are dark."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """One case to draw: ``image``, ``truth`` and ``prediction`` of one shape (x, y[, z]).

    ``scores`` stands above the prediction; without it the mean Dice of the whole case does.
    ``spacing`` is in mm (default: cubes); ``window`` the image values drawn black and white
    (default: the slice's 1st and 99th percentiles).
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    scores: str = ""
    spacing: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None


def overlay_page(
    cases: Sequence[Overlay],
    organs: Sequence[str],
    path: Path,
    *,
    agreement: bool = False,
    title: str = "",
) -> Path:
    """Draw a row a case, with image, truth and prediction, and return the path.

    Label i+1 is ``organs[i]`` and has one colour everywhere. Of a volume, the axial slice with
    the most organs is drawn (:func:`busiest_slice`). ``agreement`` adds a column that shows where
    the prediction is right, missing, a false alarm or another organ.

    Raises DataError for cases that cannot be drawn, ConfigError for a spacing that does not fit.
    """
    if not cases:
        raise DataError("overlays: there is no case to draw")
    for case in cases:
        _check(case, len(organs))
    columns = ["image", "truth", "prediction", *(["agreement"] if agreement else [])]
    heights = [_WIDTH * _ratio(case) for case in cases]
    drawn = figure(_WIDTH * len(columns), sum(heights) + 0.3 * len(cases) + 0.7)
    panels = drawn.subplots(
        len(cases), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    colours = organ_colours(len(organs))
    seen: set[int] = set()
    for row, case in zip(panels, cases, strict=True):
        image, truth, prediction = _slices(case)
        for axes in row:
            _background(axes, image, case)
        _labels(row[1], truth, colours)
        _labels(row[2], prediction, colours)
        row[0].set_title(case.title, fontsize=9, color=INK)
        row[1].set_title("truth", fontsize=9, color=INK)
        scores = case.scores or _mean_dice(case, len(organs) + 1)
        row[2].set_title(f"prediction: {scores}", fontsize=9, color=INK)
        if agreement:
            _agreement(row[3], truth, prediction)
            row[3].set_title("agreement", fontsize=9, color=INK)
        seen |= set(np.unique([truth, prediction]).tolist()) - {0}
    _legend(drawn, organs, colours, sorted(seen), agreement)
    if title:
        drawn.suptitle(title, fontsize=11, color=INK)
    return save(drawn, path)


def busiest_slice(truth: np.ndarray) -> int:
    """Return the z of labels (x, y, z) with the most organs, and of those the most voxels."""
    flat = np.moveaxis(truth, -1, 0).reshape(truth.shape[-1], -1)
    organs = [len(np.setdiff1d(labels, [0])) for labels in flat]
    voxels = (flat > 0).sum(axis=1)
    return int(np.lexsort((voxels, organs))[-1])


def organ_colours(organs: int) -> np.ndarray:
    """Return a colour an organ (organs, 4) that shows on a dark scan."""
    colours = task_colours(organs)
    mean = colours[:, :3].mean(axis=1, keepdims=True)
    white = np.clip((_DARKEST - mean) / (1 - mean), 0, None)
    colours[:, :3] += white * (1 - colours[:, :3])
    return colours


def radiological(slice_of: np.ndarray) -> np.ndarray:
    """Turn an axial slice (x, y) in RAS into a picture (rows, columns): right left, anterior up."""
    return slice_of[::-1, ::-1].T


def _check(case: Overlay, organs: int) -> None:
    shapes = [np.shape(each) for each in (case.image, case.truth, case.prediction)]
    if len(set(shapes)) > 1 or len(shapes[0]) not in (2, 3):
        raise DataError(
            f"overlay '{case.title}': image {shapes[0]}, truth {shapes[1]} and prediction "
            f"{shapes[2]} must share one shape (x, y) or (x, y, z)"
        )
    for name in ("truth", "prediction"):
        labels = getattr(case, name)
        if labels.size and not 0 <= labels.min() <= labels.max() <= organs:
            raise DataError(
                f"overlay '{case.title}': {name} has labels from {labels.min()} to "
                f"{labels.max()}, but there are {organs} organs"
            )
    if case.spacing is not None:
        check_spacing(case.spacing, len(shapes[0]))


def _sides(case: Overlay) -> tuple[float, float]:
    """Return a voxel's sides along x and y."""
    return (case.spacing[0], case.spacing[1]) if case.spacing else (1.0, 1.0)


def _ratio(case: Overlay) -> float:
    """Return a slice's height for a width of one."""
    across, up = _sides(case)
    return float(case.image.shape[1] * up / (case.image.shape[0] * across))


def _slices(case: Overlay) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pictures of image, truth and prediction at the case's slice."""
    whole = case.image, case.truth, case.prediction
    if case.image.ndim == 2:
        image, truth, prediction = whole
    else:
        z = busiest_slice(case.truth if case.truth.any() else case.prediction)
        image, truth, prediction = (each[..., z] for each in whole)
    return radiological(image), radiological(truth), radiological(prediction)


def _mean_dice(case: Overlay, classes: int) -> str:
    scores = batch_dice(case.prediction[None], case.truth[None], classes)
    found = scores[np.isfinite(scores)]
    return f"Dice {found.mean():.2f}" if found.size else "no organs"


def _background(axes: Axes, image: np.ndarray, case: Overlay) -> None:
    import matplotlib.patheffects as effects

    low, high = case.window or np.percentile(image, [1, 99])
    across, up = _sides(case)
    axes.imshow(
        image,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=up / across,
        interpolation="nearest",
    )
    outline = [effects.withStroke(linewidth=1.5, foreground="black")]
    for place, letter in ((0.03, "R"), (0.97, "L")):
        axes.text(
            place,
            0.5,
            letter,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8,
            color="white",
            path_effects=outline,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _labels(axes: Axes, labels: np.ndarray, colours: np.ndarray) -> None:
    """Fill organs, translucent, and draw their outlines."""
    table = np.vstack([np.zeros(4), colours])
    table[1:, 3] = _FILL
    axes.imshow(table[labels], aspect=axes.get_aspect(), interpolation="nearest")
    for label in np.unique(labels[labels > 0]):
        # One voxel of margin closes the outline of an organ that meets the picture's edge.
        mask = np.pad(labels == label, 1)
        rows, columns = (np.arange(-1, side - 1) for side in mask.shape)
        axes.contour(columns, rows, mask, levels=[0.5], colors=[colours[label - 1]], linewidths=0.9)
    axes.set_xlim(-0.5, labels.shape[1] - 0.5)
    axes.set_ylim(labels.shape[0] - 0.5, -0.5)


def _agreement(axes: Axes, truth: np.ndarray, prediction: np.ndarray) -> None:
    there, found = truth > 0, prediction > 0
    layers = {
        "right": there & (truth == prediction),
        "missed": there & ~found,
        "false alarm": found & ~there,
        "wrong organ": there & found & (truth != prediction),
    }
    picture = np.zeros((*truth.shape, 4))
    for name, where in layers.items():
        picture[where] = AGREEMENT[name]
        picture[where, 3] = 0.45 if name == "right" else 0.85
    axes.imshow(picture, aspect=axes.get_aspect(), interpolation="nearest")


def _legend(
    drawn: Figure,
    organs: Sequence[str],
    colours: np.ndarray,
    seen: Sequence[int],
    agreement: bool,
) -> None:
    """List the organs that are drawn, and below them the agreement map's colours."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=tuple(colours[label - 1]), label=organs[label - 1].replace("_", " "))
        for label in seen
    ]
    if agreement:
        handles += [
            Patch(facecolor=tuple(colour), edgecolor=INK, linewidth=0.6, label=f"agreement: {name}")
            for name, colour in AGREEMENT.items()
        ]
    if handles:
        drawn.legend(
            handles=handles,
            loc="outside lower center",
            ncols=6 if agreement else 5,
            fontsize=7.5,
            frameon=False,
            labelcolor=INK,
        )
