"""Losses of streams can be traced, and batched over clients: what the fast modes need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from fedalt.scenarios.continual_power_law.images import ImageStream
from fedalt.scenarios.continual_power_law.own import ArrayStream
from fedalt.scenarios.continual_text.task import RoleStream
from fedalt.seeds import Seeds

Task = ImageStream | RoleStream | ArrayStream
IMAGES: list[dict[str, Any]] = [
    {},
    {"variant": "rotated", "norm": "layer"},
    {"variant": "split", "tasks": 5, "protocol": "task-incremental"},
    {"variant": "split", "tasks": 5, "protocol": "class-incremental", "hidden": []},
    {"model": "cnn", "norm": "layer", "hidden": [10]},
]


def compare(task: Task) -> None:
    """Hold traced and batched gradients of one batch a client to those of plain autograd."""
    model = task.model()
    arrays = task.initial_arrays(Seeds(0))
    assert list(arrays) == list(model.state_dict())
    params = {name: torch.from_numpy(values) for name, values in arrays.items()}
    # Rows of two tasks, as an experience brings them.
    halves = [task.task_data(0, t, np.arange(8)) for t in (1, 0)]
    batch = tuple(torch.cat(tensors) for tensors in zip(*halves, strict=True))

    def loss(params: dict[str, torch.Tensor], *batch: torch.Tensor) -> tuple[Any, Any]:
        def call(*inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = functional_call(model, params, inputs)
            return found

        value, metrics = task.loss(call, batch)  # type: ignore[arg-type]
        return value, metrics["accuracy"]

    step = grad_and_value(loss, has_aux=True)
    model.load_state_dict(params)
    plain, metrics = task.loss(model, batch)
    wanted = torch.autograd.grad(plain, list(model.parameters()))
    graph = make_fx(step)(params, *batch)
    # Traced on one batch, right for another: nothing of the first has become a constant.
    other = tuple(tensor.flip(0) for tensor in batch)
    for given in (batch, other):
        grads, (value, accuracy) = graph(params, *given)
        assert float(value) == pytest.approx(plain.item(), rel=1e-5)
        assert float(accuracy) == pytest.approx(float(metrics["accuracy"]))
        for name, gradient in zip(dict(model.named_parameters()), wanted, strict=True):
            torch.testing.assert_close(grads[name], gradient, rtol=1e-4, atol=1e-6)
    # Row by row, as a Fisher information takes them.
    rows = vmap(lambda *row: loss(params, *(tensor[None] for tensor in row))[0])(*batch)
    torch.testing.assert_close(rows.mean(), plain.detach(), rtol=1e-5, atol=1e-6)
    stacked = {name: torch.stack([value, value]) for name, value in params.items()}
    pair = tuple(torch.stack([tensor, tensor.flip(0)]) for tensor in batch)
    for function in (vmap(step), make_fx(vmap(step))(stacked, *pair)):
        grads, (values, _) = function(stacked, *pair)
        torch.testing.assert_close(values, plain.detach().expand(2), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(grads["head.bias"][1], wanted[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("digits")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("settings", IMAGES, ids=str)
def test_losses_of_images(settings: dict[str, Any]) -> None:
    compare(ImageStream(**{"tasks": 3, "clients": 2, "side": 14, "hidden": [20], **settings}))


@pytest.mark.skipif(not os.environ.get("FEDALT_DATA"), reason="FEDALT_DATA names no folder")
def test_losses_of_roles() -> None:
    compare(RoleStream(tasks=3, clients=2, hidden=[20]))


@pytest.mark.parametrize("protocol", ["task-incremental", "class-incremental"])
def test_losses_of_files_with_unequal_numbers_of_classes(tmp_path: Path, protocol: str) -> None:
    for number, classes in enumerate(((0, 1, 2), (3, 4), (5, 6, 7, 8))):
        x, y = np.random.default_rng(number).normal(size=(40, 5)), np.resize(classes, 40)
        np.savez(tmp_path / f"{number}.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    compare(ArrayStream(str(tmp_path), protocol, clients=2, scale="standardise", hidden=[20]))


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("side", [14, 28, 32])
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_networks_of_every_shape_judge(model: str, norm: str, side: int) -> None:
    task = ImageStream(
        model=model,
        norm=norm,
        side=side,
        tasks=2,
        clients=2,
        hidden=[12],
        test_rows=50,
        dropout=0.5,
    )
    arrays = task.initial_arrays(Seeds(1))
    again, other = task.initial_arrays(Seeds(1)), task.initial_arrays(Seeds(2))
    assert {n: v.dtype for n, v in arrays.items()} == {
        n: v.numpy().dtype for n, v in task.model().state_dict().items()
    }
    assert all(np.array_equal(values, again[name]) for name, values in arrays.items())
    assert not np.array_equal(arrays["head.weight"], other["head.weight"])
    if norm != "none":
        scales = [v for n, v in arrays.items() if v.ndim == 1 and n.endswith(".weight")]
        assert scales
        assert all((v == 1.0).all() for v in scales)
    # Evaluation draws no dropout.
    assert task.evaluate(arrays) == task.evaluate(arrays)
    assert {block.name for block in task.blocks} == {"head", "body"}


@pytest.mark.usefixtures("digits")
def test_a_network_learns_a_task_and_forgets_it() -> None:
    task = ImageStream(tasks=2, clients=1, side=14, hidden=[100], test_rows=None)
    model = task.model()
    arrays = task.initial_arrays(Seeds(0))
    model.load_state_dict({name: torch.from_numpy(v) for name, v in arrays.items()})
    adam, found = torch.optim.Adam(model.parameters(), 3e-3), []
    rng = np.random.default_rng(0)
    for number in range(2):
        for _ in range(15):
            for rows in np.array_split(rng.permutation(task.task_rows(0, number)), 40):
                adam.zero_grad()
                task.loss(model, task.task_data(0, number, rows))[0].backward()
                adam.step()
        arrays = {name: value.numpy() for name, value in model.state_dict().items()}
        found.append(task.evaluate(arrays))
    assert found[0]["accuracy/0"] > 0.9
    assert found[0]["accuracy/1"] < 0.3
    assert found[1]["accuracy/1"] > 0.9
    assert found[1]["accuracy/0"] < found[0]["accuracy/0"] - 0.05
