"""LwF: its gradient against autograd, and which model is the teacher when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_toys import Softmax, Walker, kept, mlp, normed, same
from torch import nn

from fedalt.clients.kernels.methods.distill import distance, lwf
from fedalt.clients.kernels.steps import mean_gradient
from fedalt.errors import ConfigError

GROUPS = {
    "class-incremental": [[0, 1, 2]],
    "task-incremental": [[0, 1], [1, 2]],
}


def explicit(new: torch.Tensor, old: torch.Tensor, groups: Any, temperature: float) -> Any:
    """Return T²·Σ_g mean KL, written out."""
    total = torch.zeros(())
    for group in groups:
        p = (old[:, group] / temperature).softmax(1)
        q = (new[:, group] / temperature).softmax(1)
        total = total + (p * (p.log() - q.log())).sum(1).mean()
    return temperature**2 * total


class Headed(Softmax):
    """A row is judged among its own task's classes, which its label tells here."""

    def scores(self, model: nn.Module, batch: Any) -> torch.Tensor:
        own = torch.arange(4) - batch[1][:, None]
        return model(batch[0]).masked_fill((own < -1) | (own > 1), -1e4)

    def all_scores(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch[0])


@pytest.mark.parametrize("protocol", GROUPS)
def test_the_gradient_is_that_of_loss_and_distance(protocol: str) -> None:
    task = (Headed if protocol == "task-incremental" else Softmax)(mlp, protocol=protocol)
    walker = Walker(task, {"lwf_alpha": 1.5, "lwf_temperature": 3.0})
    walker.go(0)
    walker.go(1)
    teacher = {n: torch.tensor(a) for n, a in walker.arrays.items()}
    walker.go(2)
    scene = walker.scene(2, fresh=False)
    hooks, params = lwf(scene), list(scene.trained.values())
    assert hooks.wrap is not None
    batch = task.task_data(0, 2, np.arange(7))
    loss, _, found = hooks.wrap(mean_gradient(scene.model, params))(batch)
    old = torch.func.functional_call(task.build(), teacher, (batch[0],))
    new = scene.model.module(batch[0])
    plain, _ = task.loss(scene.model.module, batch)
    whole = plain + 1.5 * explicit(new, old, GROUPS[protocol], 3.0)
    for grad, wanted in zip(found, torch.autograd.grad(whole, params), strict=True):
        np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(plain.item())


def test_all_classes_are_distilled_where_the_task_does_not_say() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    found = distance(z, z.flip(0), [None], 2.0)
    assert float(found) == pytest.approx(float(explicit(z, z.flip(0), [[0, 1, 2, 3]], 2.0)))
    assert float(distance(z, z, [None], 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_rows_of_text_count_each_place() -> None:
    z = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1))
    flat = distance(z.flatten(0, 1), z.flip(0).flatten(0, 1), [None], 2.0)
    assert float(distance(z, z.flip(0), [None], 2.0)) == pytest.approx(float(flat))


def test_the_first_experience_has_no_teacher() -> None:
    plain, taught = Walker(Softmax(), {}), Walker(Softmax(), {"lwf_alpha": 5.0})
    for walker in (plain, taught):
        walker.go(0)
        walker.go(0)
    assert same(plain.arrays, taught.arrays)
    assert not kept(taught.state, "lwf/")


def test_the_teacher_is_what_the_experience_began_with() -> None:
    walker = Walker(Softmax(), {"lwf_alpha": 1.0})
    for experience in (0, 1, 1, 2):
        began = walker.arrays
        walker.go(experience)
        if walker.round != 3:
            first = began
        if experience:
            assert same(kept(walker.state, "lwf/fit/teacher/"), first)


def test_a_pull_to_the_teacher_forgets_less() -> None:
    """Logits of old classes move less with a teacher than without."""
    moved = []
    for alpha in (0.0, 2.0):
        task = Softmax(mlp)
        walker = Walker(task, {"lwf_alpha": alpha}, settings={"epochs": 20})
        walker.go(0)
        x = task.task_data(0, 1, np.arange(12))[0]
        ends = []
        for experience in (1, 1):
            arrays = {n: torch.tensor(a) for n, a in walker.arrays.items()}
            ends.append(torch.func.functional_call(task.build(), arrays, (x,))[:, :2].softmax(1))
            walker.go(experience)
        moved.append(float((ends[1] - ends[0]).abs().mean()))
    assert moved[1] < 0.5 * moved[0]


def test_running_statistics_see_each_batch_once() -> None:
    """With α of next to nothing, batch normalisation ends as without a teacher."""
    found = []
    for alpha in (0.0, 1e-12):
        walker = Walker(Softmax(normed, blocks=()), {"lwf_alpha": alpha})
        walker.go(0)
        found.append(walker.go(1).arrays)
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-6, err_msg=name)


def test_a_task_without_scores_is_told_so() -> None:
    class Silent(Softmax):
        scores = None  # type: ignore[assignment]

    walker = Walker(Silent(), {"lwf_alpha": 1.0})
    message = r"site 'ward-0', round 1, phase 'fit': params.lwf_alpha needs a task with scores"
    with pytest.raises(ConfigError, match=message):
        walker.go(0)


def test_scores_that_hide_other_tasks_are_not_distilled() -> None:
    walker = Walker(Softmax(protocol="task-incremental"), {"lwf_alpha": 1.0})
    message = r"params.lwf_alpha needs a task-incremental task with all_scores, which Softmax has"
    with pytest.raises(ConfigError, match=message):
        walker.go(0)


def test_a_module_keeps_its_own_gradients() -> None:
    """The teacher is a copy: what trains is the model."""
    walker = Walker(Softmax(), {"lwf_alpha": 1.0})
    walker.go(0)
    scene = walker.scene(1)
    lwf(scene)
    assert all(p.requires_grad for p in scene.trained.values())
    assert isinstance(scene.model.module, nn.Sequential)
