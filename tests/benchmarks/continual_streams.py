"""What one client of a stream trains on, as plain arrays that another library can read.

The rows and batches are asked of fedalt's own gradient kernel, as it prepares each round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.client import check_order, prepare
from fedalt.clients.kernels.model import ModelCache
from fedalt.clients.kernels.stages import minibatches
from fedalt.runs.plan import preview_of
from fedalt.seeds import Seeds

SITE = 0


@dataclass(frozen=True)
class Met:
    """One experience: inputs x (n, features), classes y (n,), the ``new`` rows first.

    ``batches`` are the row numbers of each step, in order.
    """

    x: np.ndarray
    y: np.ndarray
    new: int
    batches: tuple[np.ndarray, ...]


def experiences(config: Mapping[str, Any], task: Any) -> list[Met]:
    """Return what the only client of a run meets, with one round an experience."""
    preview, arrays = preview_of(config, lambda spec: task)  # type: ignore[arg-type]
    model, state = ModelCache()(task, "cpu"), {}
    found = []
    for plan in preview.rounds:
        (part,) = plan.parts
        if [site.index for site in part.cohort] != [SITE]:
            raise ValueError(f"round {plan.round} has other clients than site {SITE} alone")
        name = part.phase.name
        seeds = Seeds(config["seed"]).at("round", plan.round, "phase", name, "client", SITE)
        order = Order("", plan.round, part.phase, arrays, tuple(arrays))
        site = SiteContext(task, SITE, state, seeds)
        client = prepare(model, order, site, check_order(model, order, site))
        (stage,) = client.stages
        x, y = (tensor.numpy() for tensor in client.data)
        found.append(Met(x, y, client.streamed.meeting.new, tuple(minibatches(stage))))
        client.keep({})
    if len(found) != len(task.tasks):
        raise ValueError(f"{len(found)} rounds for {len(task.tasks)} tasks: one each is needed")
    return found


def export(config: Mapping[str, Any], task: Any, path: Path) -> list[Met]:
    """Write a stream as an .npz file; return its experiences.

    ``x_e, y_e`` rows of experience e, ``new`` (experiences,) how many of them are new,
    ``order_e, sizes_e`` its batches one after the other and their sizes, ``steps`` how many
    there are, ``test_x_j, test_y_j`` the rows to judge task j by, ``initial/<name>`` weights.
    """
    found = experiences(config, task)
    counts = {len(met.batches) for met in found}
    if len(counts) != 1:
        raise ValueError(f"experiences of {sorted(counts)} steps: set schedule.stream.budget=steps")
    arrays: dict[str, np.ndarray] = {
        "new": np.array([met.new for met in found]),
        "steps": np.array(counts.pop()),
    }
    for e, met in enumerate(found):
        arrays |= {f"x_{e}": met.x, f"y_{e}": met.y, **_ordered(met.batches, e)}
    for j, (x, y, *_) in task._test_batches():
        arrays |= {f"test_x_{j}": x.numpy(), f"test_y_{j}": y.numpy()}
    first = task.initial_arrays(Seeds(config["seed"]).at("initial"))
    arrays |= {f"initial/{name}": values for name, values in first.items()}
    np.savez(path, **arrays)
    return found


def _ordered(batches: Sequence[np.ndarray], e: int) -> dict[str, np.ndarray]:
    sizes = np.array([len(rows) for rows in batches])
    return {f"order_{e}": np.concatenate(batches), f"sizes_{e}": sizes}
