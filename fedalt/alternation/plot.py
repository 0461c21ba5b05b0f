"""A preview as a picture: phases over the rounds, and sites over the rounds.

Uses matplotlib's object interface only, so that drawing needs no display and changes no
global state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedalt.alternation.phase import Phase
from fedalt.alternation.preview import Preview, trained
from fedalt.alternation.timeline import runs
from fedalt.errors import ScheduleError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that colour-blind readers tell apart (Okabe and Ito 2008, then Tol's muted).
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
    *("#332288", "#999933", "#882255", "#44AA99", "#AA4499", "#117733"),
)
SEVERAL = "#4D4D4D"
MOST_LABELS = 32
INK = "#333333"


def draw_timeline(preview: Preview, path: Path | str, title: str = "") -> Path:
    """Draw the preview to an image file, and return its path.

    The upper panel has a row per phase, coloured by kernel and trained blocks; the lower one
    shows in which round which site works on what.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not preview.rounds:
        raise ScheduleError("there is no round to draw: the schedule ends before its first")
    names, sites = preview.phase_names(), preview.sites
    heights = [0.3 * len(names) + 0.35, 0.17 * min(len(sites), 60) + 0.35]
    legend = 0.24 * -(-len(_colours(preview)) // 3) + 0.75
    figure = Figure(figsize=(10, sum(heights) + legend + 1.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    _draw_phases(upper, preview)
    _draw_sites(lower, preview)
    upper.set_title(title or _headline(preview), loc="left", fontsize=11, color=INK)
    _legend(figure, preview)
    target = Path(path)
    figure.savefig(target, dpi=130)
    return target


def _headline(preview: Preview) -> str:
    end = "schedule ends" if preview.ended else "schedule goes on"
    open_ends = "; depends on a run's metrics" if preview.notes else ""
    return f"rounds: {len(preview.rounds)}, sites: {len(preview.sites)} ({end}{open_ends})"


def work_of(phase: Phase) -> str:
    """Return what a phase is coloured by: its kernel and the blocks it trains."""
    return f"{phase.kernel}: {' + '.join(trained(phase))}"


def _colours(preview: Preview) -> dict[str, str]:
    works: dict[str, None] = {}
    for plan in preview.rounds:
        works.update(dict.fromkeys(work_of(part.phase) for part in plan.parts))
    return {work: PALETTE[place % len(PALETTE)] for place, work in enumerate(works)}


def _draw_phases(axes: Axes, preview: Preview) -> None:
    names, colours = preview.phase_names(), _colours(preview)
    rounds: dict[tuple[str, str], list[int]] = {}
    for plan in preview.rounds:
        for part in plan.parts:
            rounds.setdefault((part.phase.name, work_of(part.phase)), []).append(plan.round)
    for (name, work), numbers in rounds.items():
        bars = [(first - 0.5, last - first + 1) for first, last in runs(numbers)]
        # An edge would swallow the colour where a round is only a pixel or two wide.
        edge = 0.6 if len(preview.rounds) <= 150 else 0.0
        axes.broken_barh(
            bars,
            (names.index(name) - 0.38, 0.76),
            facecolors=colours[work],
            edgecolor="white",
            linewidth=edge,
        )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.tick_params(axis="x", labelbottom=False)
    _clean(axes)


def _draw_sites(axes: Axes, preview: Preview) -> None:
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.ticker import MaxNLocator

    colours = {**_colours(preview), "": SEVERAL}
    rows = {site.index: row for row, site in enumerate(preview.sites)}
    picture = np.ones((len(rows), len(preview.rounds), 3))
    for column, work in enumerate(_work_by_site(preview)):
        for index, name in work.items():
            picture[rows[index], column] = to_rgb(colours[name])
    extent = (0.5, len(preview.rounds) + 0.5, len(rows) - 0.5, -0.5)
    axes.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
    every = -(-len(rows) // MOST_LABELS)
    labels = [site.name for site in preview.sites[::every]]
    axes.set_yticks(range(0, len(rows), every), labels, fontsize=8)
    axes.set_ylabel("sites that work", fontsize=9, color=INK)
    axes.set_xlabel("round", fontsize=9, color=INK)
    for line in range(1, len(rows)):
        axes.axhline(line - 0.5, color="white", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    _clean(axes)


def _work_by_site(preview: Preview) -> list[dict[int, str]]:
    """Return for each round what each site works on; an empty text for several works."""
    found: list[dict[int, str]] = []
    for plan in preview.rounds:
        touched: dict[int, str] = {}
        for part in plan.parts:
            work = work_of(part.phase)
            for site in part.cohort:
                touched[site.index] = work if touched.get(site.index, work) == work else ""
        found.append(touched)
    return found


def _clean(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.tick_params(axis="x", labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#BBBBBB")


def _legend(figure: Any, preview: Preview) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=work) for work, colour in _colours(preview).items()]
    if any("" in work.values() for work in _work_by_site(preview)):
        patches.append(Patch(color=SEVERAL, label="several at one site"))
    figure.legend(
        handles=patches,
        loc="outside lower left",
        ncols=3,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
