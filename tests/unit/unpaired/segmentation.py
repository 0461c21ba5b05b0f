"""Small segmentation tasks for tests: phantoms of few pixels, networks of few channels."""

from __future__ import annotations

from typing import Any

from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.scenarios.unpaired_ct_mr.tasks import phantom_task

ORGANS = ["liver", "spleen", "kidney_right"]
SMALL = {"backbone": "unet", "features": [4, 4, 4, 4, 4, 4], "norm": "group", "hidden": 4}


def task_spec(network: dict[str, Any] | None = None, **phantoms: Any) -> dict[str, Any]:
    """Return the arguments of a task of analytic phantoms."""
    given = {
        "organs": ORGANS,
        "size": [32, 32],
        "sites": {"ct": 1, "mr": 1},
        "images": 6,
        "site_test": 3,
        "server_test": 4,
        "anatomy": "analytic",
    }
    return {
        "network": {**SMALL, **(network or {})},
        "embeddings": "shipped",
        "phantoms": {**given, **phantoms},
        "warp": {},
        "root": None,
        "seed": 0,
    }


def small_task(network: dict[str, Any] | None = None, **phantoms: Any) -> SegmentationTask:
    """Build a task of analytic phantoms."""
    return phantom_task(**task_spec(network, **phantoms))


TRAIN = ["encoder", "decoder", "head", "norm"]


def segment(**changes: Any) -> dict[str, Any]:
    """Return phases with one of two steps of four rows, with changes."""
    phase = {
        "steps": 2,
        "batch_size": 4,
        "train": TRAIN,
        "params": {"optimizer": "adamw", "lr": 0.003, "clip_norm": 1.0},
    }
    return {"segment": {**phase, **changes}}


SCHEDULE = {"repeat": {"of": "segment"}}
