"""What a run's final models make of its scans: whose model judges which, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.medical.organ_scores import ScoreTable
from fedalt.runs.report import Finished
from fedalt.scenarios.unpaired_ct_mr.judge import predictions, score
from fedalt.scenarios.unpaired_ct_mr.source import Scan
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask


@dataclass(frozen=True)
class Judged:
    """Scans, the labels predicted for them, and the scores.

    ``by`` says in words whose models these are, ``measure`` what their Dice is called: ``dice``
    of the server's model, ``sites`` of each site's.
    """

    scans: Sequence[Scan]
    predicted: Sequence[np.ndarray]
    table: ScoreTable
    by: str
    measure: str


def judged_by_server(task: SegmentationTask, run: Finished, *, surfaces: bool = False) -> Judged:
    """Judge the server's model on the server's scans."""
    scans = task.source.held_by_server()
    predicted = predictions(task.loaded(run.arrays), scans, task.source.size)
    table = score(scans, predicted, task.organs, surfaces=surfaces)
    return Judged(scans, predicted, table, "the server's model", "dice")


def judged_by_sites(task: SegmentationTask, run: Finished, *, surfaces: bool = False) -> Judged:
    """Judge on each site's own scans the model as that site has it."""
    scans: list[Scan] = []
    predicted: list[np.ndarray] = []
    for site in task.sites:
        own = task.source.scans(site.index)
        model = task.loaded(run.arrays_of(site.index))
        scans += own
        predicted += predictions(model, own, task.source.size)
    table = score(scans, predicted, task.organs, surfaces=surfaces)
    return Judged(scans, predicted, table, "each site's model", "sites")


def final(task: SegmentationTask, run: Finished, *, surfaces: bool = False) -> Judged:
    """Judge by the server where it has scans and the model is whole, else by the sites."""
    if run.local or not task.source.held_by_server():
        return judged_by_sites(task, run, surfaces=surfaces)
    return judged_by_server(task, run, surfaces=surfaces)
