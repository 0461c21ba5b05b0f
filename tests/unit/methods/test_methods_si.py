"""SI on a quadratic loss, where the path integral is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from method_toys import Walker, kept
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.site import Site
from fedalt.seeds import Seeds

CURVES = np.array([1.0, 4.0, 0.5], np.float32)
STEPS, RATE, DAMPING = 6, 0.1, 0.01


@dataclass(frozen=True, eq=False)
class Bowl:
    """ℓ(w) = ½ Σ h·(w − t)², with a target t for each task; every row is that target."""

    blocks: Sequence[Block] = ()
    protocol: str = "domain-incremental"

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(0, "bowl", 4)]

    @property
    def tasks(self) -> Sequence[str]:
        return ["first", "second", "third"]

    def task_rows(self, site: int, task: int) -> int:
        return 4

    def task_data(self, site: int, task: int, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        return (torch.tensor([[1.0, -2.0, task]]).repeat(len(rows), 1),)

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        return self.task_data(site, 0, np.arange(4))

    def model(self) -> nn.Module:
        return nn.ParameterDict({"w": nn.Parameter(torch.zeros(3))})

    def loss(self, model: Any, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        away = (model["w"] - batch[0]) ** 2
        return 0.5 * (away @ torch.from_numpy(CURVES)).mean(), {}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"w": np.zeros(3, np.float32)}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def walker(**params: Any) -> Walker:
    given = {"si_c": 0.3, "si_damping": DAMPING, "lr": RATE, **params}
    return Walker(Bowl(), given, settings={"steps": STEPS, "epochs": 0})


def path(begin: np.ndarray, target: np.ndarray, steps: int) -> np.ndarray:
    """Return ω = Σ η·h²·d_s², d_s = (1 − ηh)^s·d_0: what gradient descent walks on a bowl."""
    shrink = (1.0 - RATE * CURVES) ** 2
    return RATE * CURVES**2 * (begin - target) ** 2 * (1 - shrink**steps) / (1 - shrink)


def test_the_path_integral_is_that_of_gradient_descent_on_a_bowl() -> None:
    client = walker()
    client.go(0)
    wanted = path(np.zeros(3), np.array([1.0, -2.0, 0.0]), STEPS)
    np.testing.assert_allclose(client.state["si/fit/path/w"], wanted, rtol=1e-5)


def test_the_path_goes_on_over_the_rounds_of_an_experience() -> None:
    client = walker()
    client.go(0)
    client.go(0)
    wanted = path(np.zeros(3), np.array([1.0, -2.0, 0.0]), 2 * STEPS)
    np.testing.assert_allclose(client.state["si/fit/path/w"], wanted, rtol=1e-5)
    np.testing.assert_allclose(client.state["si/fit/walk/w"], client.arrays["w"], rtol=1e-5)
    assert not kept(client.state, "si/fit/strength/")


def test_importance_is_the_path_over_the_way_squared() -> None:
    client = walker()
    client.go(0)
    end = client.arrays["w"]
    client.go(1)
    wanted = path(np.zeros(3), np.array([1.0, -2.0, 0.0]), STEPS) / (end**2 + DAMPING)
    np.testing.assert_allclose(client.state["si/fit/strength/w"], wanted, rtol=1e-5)
    assert np.array_equal(client.state["si/fit/centre/w"], end)


def test_the_pull_is_the_gradient_of_the_surrogate_and_no_part_of_the_path() -> None:
    client = walker()
    client.go(0)
    end = client.arrays["w"].astype(np.float64)
    client.go(1)
    held = client.state["si/fit/strength/w"].astype(np.float64)
    w, omega, target = end.copy(), np.zeros(3), np.array([1.0, -2.0, 1.0])
    for _ in range(STEPS):
        grad = CURVES * (w - target)
        step = -RATE * (grad + 2 * 0.3 * held * (w - end))
        omega -= grad * step
        w += step
    np.testing.assert_allclose(client.arrays["w"], w, rtol=1e-5)
    np.testing.assert_allclose(client.state["si/fit/path/w"], omega, rtol=1e-4, atol=1e-7)


def test_what_aggregation_moves_is_no_part_of_the_path() -> None:
    client = walker()
    client.go(0)
    first = client.arrays["w"]
    client.arrays = {"w": np.full(3, 0.25, np.float32)}
    client.go(0)
    wanted = first + (client.arrays["w"] - 0.25)
    np.testing.assert_allclose(client.state["si/fit/walk/w"], wanted, rtol=1e-5)


def test_a_path_uphill_counts_as_none() -> None:
    client = walker()
    client.go(0)
    client.state["si/fit/path/w"] = np.array([-5.0, -5.0, 1.0], np.float32)
    client.go(1)
    strength = client.state["si/fit/strength/w"]
    assert strength[:2].tolist() == [0.0, 0.0] and strength[2] > 0


def test_importances_add_up_and_ewc_adds_to_them() -> None:
    """Both pull at once: w moves by −η·(g + 2c·Ω(w − θ̃) + λ·F(w − θ*)), here in one step."""
    client = walker(ewc_lambda=0.7)
    client.go(0)
    client.go(1)
    first = client.state["si/fit/strength/w"]
    client.go(2)
    assert (client.state["si/fit/strength/w"] >= first).all()
    client.settings = {"steps": 1, "epochs": 0}
    before = client.arrays["w"].astype(np.float64)
    state = {key: value.astype(np.float64) for key, value in client.state.items()}
    client.go(2)
    pull = 0.6 * state["si/fit/strength/w"] * (before - state["si/fit/centre/w"])
    pull += 0.7 * state["ewc/fit/strength/w"] * (before - state["ewc/fit/centre/w"])
    wanted = before - RATE * (CURVES * (before - np.array([1.0, -2.0, 2.0])) + pull)
    np.testing.assert_allclose(client.arrays["w"], wanted, rtol=1e-5)
