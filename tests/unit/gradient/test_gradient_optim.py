"""Promise: the local optimisers take torch.optim's steps, over rounds as within one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedalt.clients.kernels import optim, optim_pure
from fedalt.errors import ConfigError

SETTINGS = [
    ({"optimizer": "sgd", "lr": 0.05}, torch.optim.SGD, {"lr": 0.05}),
    (
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    ),
    (
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    ({"optimizer": "adam"}, torch.optim.Adam, {}),
    (
        {"optimizer": "adam", "lr": 0.02, "beta1": 0.8, "beta2": 0.9, "eps": 1e-4},
        torch.optim.Adam,
        {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-4},
    ),
    (
        {"optimizer": "adam", "lr": 0.02, "weight_decay": 0.1},
        torch.optim.Adam,
        {"lr": 0.02, "weight_decay": 0.1},
    ),
    ({"optimizer": "adamw"}, torch.optim.AdamW, {}),
    (
        {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.2},
        torch.optim.AdamW,
        {"lr": 0.02, "weight_decay": 0.2},
    ),
]
SHAPES = ((4, 3), (3,), ())
NAMES = ("a.weight", "a.bias", "scale")


def gradients(rng: np.random.Generator) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(rng.normal(size=s), np.float32)) for s in SHAPES]


@pytest.mark.parametrize(("params", "reference", "settings"), SETTINGS)
@pytest.mark.parametrize("rounds", [1, 6])
def test_equals_torch_optim(params, reference, settings, rounds):
    """60 steps at once, or in six rounds with the state put away in between."""
    rng = np.random.default_rng(0)
    ours = gradients(rng)
    theirs = [torch.nn.Parameter(p.clone()) for p in ours]
    rule, torch_rule = optim.Optimizer.read(params), reference(theirs, **settings)
    kept: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        state = optim.restore(rule, NAMES, ours, kept, "fit")
        for _ in range(60 // rounds):
            grads = gradients(rng)
            for param, grad in zip(theirs, grads, strict=True):
                param.grad = grad.clone()
            torch_rule.step()
            optim.update(rule, ours, grads, state)
        optim.keep(NAMES, state, kept, "fit")
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), rtol=1e-7, atol=1e-7)


def test_parameters_without_gradient_neither_move_nor_age():
    rule = optim.Optimizer.read({"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.5})
    rng = np.random.default_rng(1)
    ours = gradients(rng)
    theirs = [torch.nn.Parameter(p.clone()) for p in ours]
    torch_rule = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.5)
    state = optim.start(rule, ours)
    for step in range(8):
        grads: list[torch.Tensor | None] = list(gradients(rng))
        if step % 2:
            grads[1] = None
        for param, grad in zip(theirs, grads, strict=True):
            param.grad = grad
        torch_rule.step()
        optim.update(rule, ours, grads, state)
    assert [int(step) for step in state["step"]] == [8, 4, 8]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach().numpy(), atol=1e-7)


@pytest.mark.parametrize("params", [p for p, _, _ in SETTINGS])
def test_gradients_are_left_alone(params):
    rule = optim.Optimizer.read(params)
    ours, grads = gradients(np.random.default_rng(2)), gradients(np.random.default_rng(3))
    former = [grad.clone() for grad in grads]
    optim.update(rule, ours, grads, optim.start(rule, ours))
    assert all(torch.equal(a, b) for a, b in zip(grads, former, strict=True))


def test_state_is_named_after_scope_slot_and_array():
    rule = optim.Optimizer.read({"optimizer": "adam"})
    ours, kept = gradients(np.random.default_rng(2)), {}
    state = optim.start(rule, ours)
    optim.update(rule, ours, ours, state)
    optim.keep(NAMES, state, kept, "fit")
    assert len(kept) == 9
    assert kept["optim/fit/exp_avg/a.weight"].shape == (4, 3)
    assert kept["optim/fit/step/scale"] == np.array(1) and kept["optim/fit/step/scale"].ndim == 0


def test_state_of_another_model_is_refused():
    rule = optim.Optimizer.read({"momentum": 0.9})
    ours = gradients(np.random.default_rng(2))
    kept = {"optim/fit/momentum_buffer/a.bias": np.zeros(7, np.float32)}
    with pytest.raises(ConfigError, match=r"momentum_buffer/a.bias' has shape \(7,\)"):
        optim.restore(rule, NAMES, ours, kept, "fit")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"lr": -1}, "params.lr is -1.0"),
        ({"lr": "fast"}, "params.lr is 'fast'"),
        ({"lr": True}, "params.lr is True"),
        ({"lr": float("nan")}, "finite"),
        ({"optimizer": "adam", "beta2": 1.0}, "beta2"),
        ({"nesterov": True}, "needs params.momentum"),
        ({"momentum": 0.9, "nesterov": 1}, "true or false"),
        ({"optimizer": "adam", "momentum": 0.9}, "params.momentum means nothing"),
        ({"eps": 1e-6}, "params.eps means nothing"),
    ],
)
def test_settings_that_do_not_fit_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        optim.Optimizer.read(params)


def test_numbers_may_be_text_as_yaml_reads_them():
    assert optim.Optimizer.read({"lr": "1e-3"}).lr == 0.001


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.999), (0.9, 0.99999)])
def test_pure_adam_moves_as_far_as_the_reference_from_the_first_step_on(
    betas: tuple[float, float],
) -> None:
    """1 − β₂ᵗ taken in float32 is off by 1e-5 in the first steps, and Adam never forgets it."""
    rule = optim.Optimizer("adam", lr=0.01, beta1=betas[0], beta2=betas[1])
    generator = torch.Generator().manual_seed(0)
    weight = [torch.zeros(50)]
    state = optim.start(rule, weight)
    pure, slots = {"w": torch.zeros(50)}, {s: {"w": t[0].clone()} for s, t in state.items()}
    for _ in range(3):
        grad = torch.randn(50, generator=generator)
        optim.update(rule, weight, [grad], state)
        hyper = {"lr": torch.tensor(0.01)}
        pure, slots = optim_pure.updated(rule, hyper, pure, {"w": grad}, slots)
        apart = (pure["w"] - weight[0]).norm() / weight[0].norm()
        assert apart < 1e-6
