"""What the claim measures of a run: the models that hospitals end with, each at its hospital."""

from __future__ import annotations

from typing import cast

from fedalt.runs.report import Finished
from fedalt.scenarios.dp_hospitals.task import Hospitals
from fedalt.task import Task


def measure(task: Task, run: Finished) -> dict[str, float | str]:
    """Return the measures of ``judgement`` of each hospital's model on its held-out records.

    Where blocks are local a hospital's model is the common one with its own blocks in place.
    """
    hospitals = cast(Hospitals, task)
    models = [run.arrays_of(site.index) for site in hospitals.sites]
    return dict(hospitals.judge(models))
