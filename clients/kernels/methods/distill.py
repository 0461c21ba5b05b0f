"""Learning without forgetting: the model that a client received is a teacher of old classes.

Li and Hoiem 2016 ("Learning without forgetting", eqs. 2 to 4). With the logits z of the model
and z* of the model received in the experience's first round, on the same rows x,

    L(θ) + α·T²/n · Σ_x Σ_g KL(softmax(z*_g/T) ‖ softmax(z_g/T))

over the groups g of classes met before: one a task where tasks have classes of their own and
are known (task-incremental), all of them together where they are not (class-incremental), all
classes there are where the task does not say (``seen_classes(tasks)``). Logits are the task's
``all_scores(model, batch)``, or else its ``scores``: where those hide the classes of other
tasks than a row's own, there would be nothing to distil. T², from Hinton et al. 2015, keeps the
gradient's size when T changes. There is no teacher in the first experience.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import kl_div

from fedalt.clients.kernels.evaluate import Batch
from fedalt.clients.kernels.methods.base import Entries, Hooks, Scene
from fedalt.clients.kernels.methods.fisher import Function, scoring
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.steps import Gradient, Grads, Metrics
from fedalt.errors import ConfigError


def lwf(scene: Scene) -> Hooks:
    """Add the distillation's gradient to that of each batch, past the first experience."""
    score = _scoring(scene.model)
    meeting, since = scene.streamed.meeting, scene.streamed.after.since
    past = [task for task, first in since.items() if first < meeting.experience]
    if not past:
        return Hooks()
    arrays, kept = _teacher_arrays(scene)
    teacher, groups = _teacher(scene.model, arrays), _groups(scene, past)
    settings, model = scene.settings, scene.model
    params = list(scene.trained.values())

    def wrap(inner: Gradient) -> Gradient:
        def gradient(batch: Batch) -> tuple[float, Metrics, Grads]:
            loss, metrics, grads = inner(batch)
            if not grads:
                return loss, metrics, grads
            with model.still():
                with model.autocast():
                    wanted = teacher(batch).float()
                    found = score(model.module, batch).float()
                apart = distance(found, wanted, groups, settings.lwf_temperature)
                more = torch.autograd.grad(settings.lwf_alpha * apart, params, allow_unused=True)
            return loss, metrics, _sum(grads, more)

        return gradient

    return Hooks(wrap=wrap, leave=lambda: kept)


def distance(
    found: torch.Tensor,
    wanted: torch.Tensor,
    groups: Sequence[torch.Tensor | None],
    temperature: float,
) -> torch.Tensor:
    """Return T²·KL of logits (..., classes) to the teacher's, a mean over rows, summed over groups.

    A group holds the numbers of its classes; None stands for all of them.
    """
    total = found.new_zeros(())
    for group in groups:
        some = [z if group is None else z.index_select(-1, group) for z in (found, wanted)]
        new, old = [(z / temperature).log_softmax(-1).flatten(0, -2) for z in some]
        total = total + kl_div(new, old, reduction="batchmean", log_target=True)
    return temperature**2 * total


def _scoring(model: ReusedModel) -> Function:
    """Return the function that scores all classes; raises :class:`ConfigError` if there is none."""
    task = model.task
    if getattr(task, "protocol", "") == "task-incremental":
        lacking = [n for n in ("all_scores", "seen_classes") if not hasattr(task, n)]
        if lacking:
            raise ConfigError(
                f"params.lwf_alpha needs a task-incremental task with {' and '.join(lacking)}, "
                f"which {type(task).__name__} has not: all_scores(model, batch) are logits of all "
                "tasks' classes, seen_classes(tasks) their numbers; add them, or set "
                "params.lwf_alpha to 0"
            )
    score: Function | None = getattr(task, "all_scores", None)
    return score or scoring(model, "params.lwf_alpha", "set params.lwf_alpha to 0")


def _sum(grads: Grads, more: Grads) -> list[torch.Tensor | None]:
    pairs = zip(grads, more, strict=True)
    return [a if b is None else b if a is None else a + b for a, b in pairs]


def _teacher_arrays(scene: Scene) -> tuple[Entries, Entries]:
    """Return the teacher's arrays, and the entries that keep them if it is a new one."""
    names, state = scene.model.names, scene.client.site.state
    keys = {name: scene.key("lwf", "teacher", name) for name in names}
    if not scene.fresh and all(key in state for key in keys.values()):
        return {name: state[key] for name, key in keys.items()}, {}
    arrays = {name: scene.model.read(name) for name in names}
    return arrays, {keys[name]: value for name, value in arrays.items()}


def _teacher(model: ReusedModel, arrays: Entries) -> Callable[[Batch], torch.Tensor]:
    module = copy.deepcopy(model.module).eval().requires_grad_(False)
    score = _scoring(model)
    module.load_state_dict(
        {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, strict=False
    )

    def teach(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return score(module, batch)

    return teach


def _groups(scene: Scene, past: Sequence[int]) -> list[torch.Tensor | None]:
    task = scene.model.task
    seen = getattr(task, "seen_classes", None)
    if seen is None:
        return [None]
    apart = getattr(task, "protocol", "") == "task-incremental"
    wanted = [[number] for number in past] if apart else [list(past)]
    return [
        torch.as_tensor(np.array(seen(tasks), np.int64), device=scene.model.device)
        for tasks in wanted
    ]
