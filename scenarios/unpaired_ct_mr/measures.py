"""What the claim measures of a run: Dice of the final models, and what becomes of it.

``dice/ct``, ``dice/mr`` and their mean ``dice`` are the server's model on the server's scans;
``sites`` and ``sites/ct`` … each site's model, with what it keeps to itself, on its own scans;
``swapped`` the server's model told the wrong modality; ``unseen`` … on scanners that took no
part; ``batch_statistics`` … the same weights with the statistics of a batch (up to 16 scans of
one modality) in place of running ones: the same as ``dice`` where nothing is normalised by
batches. Where blocks stay at the sites there is no whole model at the server, and ``sites`` alone
is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from fedalt.medical.organ_scores import ScoreTable
from fedalt.runs.report import Finished
from fedalt.scenarios.unpaired_ct_mr.judge import balanced, judged
from fedalt.scenarios.unpaired_ct_mr.norms import with_batch_statistics
from fedalt.scenarios.unpaired_ct_mr.outcome import judged_by_sites
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.task import Task


def measure(task: Task, run: Finished) -> dict[str, float | str]:
    """Return the measures above, and in words which data these are."""
    return measured(cast(SegmentationTask, task), run, {})


def measured(
    task: SegmentationTask, run: Finished, known: Mapping[str, ScoreTable]
) -> dict[str, float | str]:
    """Return the measures above; of ``sites`` and ``dice``, tables that are known are taken."""
    organs, source = task.organs, task.source
    sites = known.get("sites") or judged_by_sites(task, run).table
    found: dict[str, float | str] = {"data": source.described, **_named("sites", sites)}
    if run.local:
        # What sites keep is missing from the server's model: Dice of it would say nothing.
        return found
    model, scans, unseen = task.loaded(run.arrays), source.held_by_server(), source.unseen()
    if scans:
        dice = known.get("dice") or judged(model, scans, organs, source.size)
        found |= _named("dice", dice)
        swapped = judged(model, scans, organs, source.size, swapped=True)
        found |= _named("swapped", swapped)
        found |= _named("batch_statistics", dice)
        if task.network.norm == "batch":
            with with_batch_statistics(model):
                found |= _named("batch_statistics", judged(model, scans, organs, source.size))
    if unseen:
        found |= _named("unseen", judged(model, unseen, organs, source.size))
    return found


def _named(name: str, table: ScoreTable) -> dict[str, float | str]:
    values = {name: balanced(table)}
    values |= {f"{name}/{each}": table.mean("dice", modality=each) for each in table.modalities}
    return {key: value for key, value in values.items() if np.isfinite(value)}
