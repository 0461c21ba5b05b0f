"""EWC: what is held is what the papers' sums say, and a task is consolidated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from method_toys import Softmax, Walker, descend, kept, linear, mlp, same
from torch import nn

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.methods.anchors import Anchors
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds

Arrays = Mapping[str, np.ndarray]


def fisher_of(task: Softmax, arrays: Arrays, number: int) -> dict[str, np.ndarray]:
    """Return the empirical Fisher information of softmax regression in closed form."""
    x, y = (part.numpy() for part in task.task_data(0, number, np.arange(task.rows)))
    logits = x @ arrays["0.weight"].T + arrays["0.bias"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    apart = (p - np.eye(p.shape[1])[y]) ** 2
    return {"0.weight": apart.T @ x**2 / len(x), "0.bias": apart.mean(0)}


def walked(params: Mapping[str, Any]) -> tuple[Walker, list[Arrays]]:
    """Go through three experiences; return the client and the models that its tasks ended with."""
    walker, ends = Walker(Softmax(linear, blocks=()), params), []
    for experience in range(3):
        walker.go(experience)
        ends.append(walker.arrays)
    return walker, ends


def test_a_penalty_per_task_is_the_explicit_sum_over_tasks() -> None:
    walker, ends = walked({"ewc_lambda": 3.0})
    scene = walker.scene(2)
    anchors = Anchors.read(scene, "ewc")
    assert anchors is not None
    fishers = [fisher_of(walker.task, ends[t], t) for t in range(2)]
    params = {n: p.detach() + 0.3 for n, p in scene.trained.items()}
    with torch.no_grad():
        found = anchors.pull(params, 3.0)([torch.ones_like(p) for p in params.values()])
    for (name, value), grad in zip(params.items(), found, strict=True):
        free = value.double().requires_grad_()
        penalty = sum(
            (torch.tensor(f[name]) * (free - torch.tensor(end[name])) ** 2).sum()
            for f, end in zip(fishers, ends, strict=False)
        )
        (wanted,) = torch.autograd.grad(3.0 / 2 * penalty, free)
        np.testing.assert_allclose(grad, wanted + 1.0, rtol=1e-4, err_msg=name)


def test_online_strength_decays_and_moves_along() -> None:
    """F̃ ← γ·F̃ + F, held where the last task ended."""
    walker, ends = walked({"ewc_lambda": 1.0, "ewc_decay": 0.25})
    fishers = [fisher_of(walker.task, ends[t], t) for t in range(2)]
    strength = kept(walker.state, "ewc/fit/strength/")
    centre = kept(walker.state, "ewc/fit/centre/")
    for name, value in strength.items():
        wanted = 0.25 * fishers[0][name] + fishers[1][name]
        np.testing.assert_allclose(value, wanted, rtol=1e-4, err_msg=name)
        assert np.array_equal(centre[name], ends[1][name])


def test_a_decay_of_one_forgets_nothing_but_where() -> None:
    apart, _ = walked({"ewc_lambda": 0.0001})
    moved, _ = walked({"ewc_lambda": 0.0001, "ewc_decay": 1.0})
    for part, alike in (("strength", True), ("centre", False)):
        first, second = (kept(w.state, f"ewc/fit/{part}/0.") for w in (apart, moved))
        for name in first:
            assert np.allclose(first[name], second[name], rtol=1e-3) == alike, (part, name)


def test_training_follows_the_loss_with_its_penalty() -> None:
    """The whole of a round against a plain loop with autograd through the penalty."""
    walker = Walker(Softmax(linear, blocks=()), {"ewc_lambda": 5.0})
    walker.go(0)
    end = {n: torch.from_numpy(a.copy()) for n, a in walker.arrays.items()}
    fisher = {n: torch.from_numpy(f) for n, f in fisher_of(walker.task, walker.arrays, 0).items()}
    work = walker.go(1)
    model = walker.task.build()
    model.load_state_dict(end)
    rng = Seeds(1).at("round", 2, "client", 0, "batches").numpy()
    data = walker.task.task_data(0, 1, np.arange(12))
    for _ in range(2):
        for rows in rng.permutation(np.arange(12)).reshape(-1, 4):
            loss, _ = walker.task.loss(model, tuple(part[rows] for part in data))
            for name, param in model.named_parameters():
                loss = loss + 2.5 * (fisher[name] * (param - end[name]) ** 2).sum()
            descend(model, loss)
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(work.arrays[name], value, atol=1e-5)


def test_a_second_round_of_an_experience_consolidates_nothing() -> None:
    walker = Walker(Softmax(mlp), {"ewc_lambda": 1.0})
    walker.go(0)
    walker.go(0)
    assert not kept(walker.state, "ewc/")
    walker.go(1)
    first = dict(kept(walker.state, "ewc/"))
    assert first
    walker.task.asked.clear()
    walker.go(1)
    assert same(kept(walker.state, "ewc/"), first)
    assert {task for task, _ in walker.task.asked} == {1}
    walker.go(2)
    assert not same(kept(walker.state, "ewc/"), first)


def test_a_client_that_missed_an_experience_consolidates_the_last_it_was_in() -> None:
    walker = Walker(Softmax(linear, blocks=()), {"ewc_lambda": 1.0})
    walker.go(0)
    end = walker.arrays
    walker.go(2)
    for name, value in kept(walker.state, "ewc/fit/strength/").items():
        wanted = fisher_of(walker.task, end, 0)[name]
        np.testing.assert_allclose(value, wanted, rtol=1e-4)


def test_fisher_rows_bounds_the_rows_touched() -> None:
    walker = Walker(Softmax(), {"ewc_lambda": 1.0, "fisher_rows": 5})
    walker.go(0)
    walker.task.asked.clear()
    walker.go(1)
    assert sum(task == 0 for task, _ in walker.task.asked) == 5


def test_a_larger_lambda_stays_closer() -> None:
    far = []
    for size in (0.0, 1.0, 30.0):
        walker = Walker(Softmax(linear, blocks=()), {"ewc_lambda": size, "fisher": "exact"})
        walker.go(0)
        end = walker.arrays
        walker.go(1)
        far.append(sum(float(((walker.arrays[n] - end[n]) ** 2).sum()) for n in end))
    assert far[0] > far[1] > far[2]


def test_a_block_that_is_not_trained_is_not_held() -> None:
    walker = Walker(Softmax(), {"ewc_lambda": 1.0}, settings={"train": ("head",)})
    walker.go(0)
    walker.go(1)
    assert set(kept(walker.state, "ewc/fit/strength/")) == {"2.weight", "2.bias"}


def test_inner_phases_hold_their_own_arrays_from_the_model_received() -> None:
    inner = (Phase("a", train=("head",)), Phase("b", train=("body",)))
    walker = Walker(Softmax(), {"ewc_lambda": 1.0}, settings={"inner": inner, "epochs": 0})
    walker.go(0)
    end = walker.arrays
    walker.go(1)
    assert set(kept(walker.state, "ewc/fit>a/centre/")) == {"2.weight", "2.bias"}
    for name, value in kept(walker.state, "ewc/fit>b/centre/").items():
        assert np.array_equal(value, end[name])


def test_anchors_of_another_model_are_refused() -> None:
    walker = Walker(Softmax(), {"ewc_lambda": 1.0})
    walker.go(0)
    walker.go(1)
    walker.state["ewc/fit/strength/0.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(ConfigError, match=r"ward-0.*ewc/fit/strength/0.weight.*another model"):
        walker.go(1)


def test_an_old_head_outside_of_the_loss_is_held() -> None:
    """A gradient that is not there counts as zeros."""
    head = {"w": nn.Parameter(torch.tensor([2.0]))}
    anchors = Anchors({"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])})
    with torch.no_grad():
        (grad,) = anchors.pull(head, 10.0)([None])
    assert grad is not None and grad.tolist() == [30.0]
