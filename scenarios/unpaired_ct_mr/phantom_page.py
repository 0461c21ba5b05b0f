"""A page of phantoms: one row a vendor and protocol, one column a subject, and the labels.

``python -m fedalt.scenarios.unpaired_ct_mr.phantom_page --out FILE [--seed N] [--dims 2|3]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedalt.evaluation.colours import INK, task_colours
from fedalt.medical.overlays import radiological
from fedalt.runs.plots import figure, save
from fedalt.scenarios.unpaired_ct_mr.anatomy import Anatomy, anatomy
from fedalt.scenarios.unpaired_ct_mr.ct_scanner import CTScanner
from fedalt.scenarios.unpaired_ct_mr.phantom import PRESETS, Phantoms, Scanner, phantoms, scanner
from fedalt.scenarios.unpaired_ct_mr.tissues import ORGANS

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

SIZES = {2: (96, 96), 3: (72, 72, 24)}
"""Sizes by number of dimensions: finer than what a quick run trains on, so that one can look."""
WINDOW = (-125.0, 275.0)
"""The soft-tissue window in HU that training clips CT to."""
_MODALITIES = {"ct": "CT (HU)", "mr": "MR (arbitrary units)"}


def page(
    folder: Path,
    seed: int = 0,
    root: Path | None = None,
    size: Sequence[int] = SIZES[2],
    organs: Sequence[str] = ORGANS,
) -> Path:
    """Write ``phantoms.png`` into a folder and return its path."""
    return draw(folder / "phantoms.png", anatomy(root, size, len(size)), seed, organs)


def draw(path: Path, of: Anatomy, seed: int = 0, organs: Sequence[str] = ORGANS) -> Path:
    """Draw an anatomy's phantoms: CT at the left, MR at the right, the same subjects in all rows.

    Columns are three subjects, or the axial and coronal planes of two for volumes, and the first
    subject with its organs' labels. Returns the path.
    """
    rows = {
        kind: [(name, v) for (m, name), known in PRESETS.items() if m == kind for v in known]
        for kind in _MODALITIES
    }
    subjects = 3 if len(of.size) == 2 else 2
    drawn = figure(15.5, 1.72 * max(map(len, rows.values())) * _tall(of) + 1.5)
    halves: Any = drawn.subfigures(1, 2, wspace=0.02)
    for half, (kind, title) in zip(halves, _MODALITIES.items(), strict=True):
        half.suptitle(title, fontsize=11, color=INK)
        axes = half.subplots(len(rows[kind]), 4, squeeze=False)
        for line, (protocol, vendor) in zip(axes, rows[kind], strict=True):
            seen = scanner(kind, vendor, protocol)
            made = phantoms(of, seen, subjects, np.random.default_rng(seed), organs)
            _row(half, line, of, made, seen)
            line[0].set_ylabel(f"vendor {vendor}: {_words(seen)}", fontsize=7, color=INK)
        for panel, name in zip(axes[0], _columns(of), strict=True):
            panel.set_title(name, fontsize=8.5, color=INK)
    _legend(drawn, organs)
    sides = " × ".join(map(str, of.size))
    drawn.suptitle(
        f"Phantoms of one anatomy ({of.source}, {sides} voxels, seed {seed}); radiological view: "
        "the patient's right is at the picture's left",
        fontsize=11.5,
        color=INK,
    )
    return save(drawn, path)


def _tall(of: Anatomy) -> float:
    """Return a panel's height over its width, at least half."""
    return max(0.5, of.size[1] * of.spacing[1] / (of.size[0] * of.spacing[0]))


def _columns(of: Anatomy) -> tuple[str, ...]:
    if len(of.size) == 2:
        return "subject 1", "subject 2", "subject 3", "subject 1, organs"
    return "subject 1, axial", "subject 2, axial", "subject 1, coronal", "subject 1, organs"


def _planes(volumes: np.ndarray, of: Anatomy) -> list[tuple[np.ndarray, float]]:
    """Return four pictures (rows, columns), one a column, and their voxels' height over width."""
    square = of.spacing[1] / of.spacing[0]
    if len(of.size) == 2:
        return [(radiological(volumes[i]), square) for i in (0, 1, 2, 0)]
    # A little behind the middle, where the kidneys lie.
    behind = int(0.42 * of.size[1])
    coronal = radiological(volumes[0][:, behind]), of.spacing[2] / of.spacing[0]
    first, second = (radiological(volumes[i][..., of.size[2] // 2]) for i in (0, 1))
    return [(first, square), (second, square), coronal, (first, square)]


def _row(half: SubFigure, line: Sequence[Any], of: Anatomy, made: Phantoms, seen: Scanner) -> None:
    """Draw one scanner's pictures on one grey scale, and their colour bar."""
    ct = isinstance(seen, CTScanner)
    low, high = WINDOW if ct else (0.0, float(np.quantile(made.images, 0.998)))
    shown, labels = _planes(made.images, of), _planes(made.labels, of)
    for panel, (picture, aspect) in zip(line, shown, strict=True):
        grey = panel.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        panel.set(xticks=[], yticks=[])
        for side in panel.spines.values():
            side.set_visible(False)
    label = labels[-1][0]
    colours = task_colours(int(made.labels.max()))[np.maximum(label, 1) - 1]
    colours[..., 3] = np.where(label > 0, 0.6, 0.0)
    line[-1].imshow(colours, aspect=labels[-1][1], interpolation="nearest")
    ticks = [low, (low + high) / 2, high]
    bar = half.colorbar(grey, ax=line[-1], fraction=0.05, pad=0.03, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:.0f}" for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=7, colors=INK)
    bar.outline.set_visible(False)


def _words(seen: Scanner) -> str:
    """Return a scanner's protocol and what sets it apart, two lines."""
    if isinstance(seen, CTScanner):
        return f"{seen.phase}\n{seen.psf_mm:g} mm, noise {seen.noise_hu:g} HU"
    name = {"se": "spin echo", "spgr": "spoiled GRE"}[seen.sequence]
    return f"{name}, {seen.field:g} T\nTR {seen.tr_ms:g}, TE {seen.te_ms:g} ms"


def _legend(drawn: Figure, organs: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, label=organ.replace("_", " "))
        for colour, organ in zip(task_colours(len(organs)), organs, strict=True)
    ]
    drawn.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(organs),
        fontsize=9,
        frameon=False,
        labelcolor=INK,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a page of CT and MR phantoms as PNG.")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="the subjects' seed")
    parser.add_argument("--dims", type=int, choices=(2, 3), default=2, help="slices or volumes")
    parser.add_argument("--root", type=Path, help="data folder that holds the real abdomen")
    given = parser.parse_args(arguments)
    draw(given.out, anatomy(given.root, SIZES[given.dims], given.dims), given.seed)
    print(f"wrote {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
