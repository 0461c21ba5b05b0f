"""What the claim measures of a run beside its metrics: which images it learnt from."""

from __future__ import annotations

from typing import cast

from fedalt.runs.report import Finished
from fedalt.scenarios.fedavg_mnist.task import DigitsTask
from fedalt.task import Task


def measure(task: Task, run: Finished) -> dict[str, float | str]:
    """Return the training images used and where they are from.

    Without MNIST the task falls back to smaller digits, for which nothing was published.
    """
    digits = cast(DigitsTask, task)
    return {"training_images": float(len(digits.labels)), "data": digits.images.source}
