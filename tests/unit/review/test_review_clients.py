"""Kernels where a mistake would be silent: tied parameters, forks, a batch of one row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from fedalt.alternation import Block, History, Phase, Planner, Site, View, nest
from fedalt.anomaly import SiteRows
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.clients.kernels.subspace import euclidean, grassmann
from fedalt.data.folder import data_folder
from fedalt.errors import ConfigError, DataError
from fedalt.seeds import Seeds


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(torch.tanh(self.a(x)))
        return out


class Normed(nn.Sequential):
    """A layer and a batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 3), nn.BatchNorm1d(3))


class Rows:
    """One site named ward; the loss pulls the output to 0 and notes the size of each batch."""

    def __init__(self, build: type[nn.Module], rows: int) -> None:
        self.build, self.rows = build, rows
        self.sites = [Site(0, "ward", rows)]
        self.blocks = [Block("a", ("a/*",)), Block("b", ("b/*",))] if build is Tied else []
        self.batches: list[int] = []

    def model(self) -> nn.Module:
        return self.build()

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        return {name: t.numpy().copy() for name, t in self.build().state_dict().items()}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        return (torch.linspace(-1, 1, 3 * self.rows).reshape(self.rows, 3),)

    def loss(
        self, model: nn.Module, batch: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        self.batches.append(len(batch[0]))
        return model(batch[0]).square().mean(), {}

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def train(task: Rows, phase: Phase, returns: tuple[str, ...] | None = None) -> Work:
    arrays = task.initial_arrays(Seeds(0))
    order = Order("run", 1, phase, arrays, tuple(arrays) if returns is None else returns)
    return GradientKernel()(order, SiteContext(task, 0, {}, Seeds(0)))


def test_a_tied_parameter_is_trained_under_all_of_its_names_or_none() -> None:
    task = Rows(Tied, 4)
    with pytest.raises(ConfigError, match=r"a\.weight, b\.weight are one parameter, but b\.weight"):
        train(task, Phase("fit", train=("a",)), ("a.weight", "a.bias"))
    assert set(train(task, Phase("fit"), ("a.bias",)).arrays) == {"a.bias"}
    both = train(task, Phase("fit")).arrays
    assert both["a.weight"].tobytes() == both["b.weight"].tobytes()
    assert both["a.weight"].tobytes() != task.initial_arrays(Seeds(0))["a.weight"].tobytes()


def test_batch_norm_over_one_row_is_an_error_with_its_place() -> None:
    with pytest.raises(
        DataError, match=r"site 'ward', round 1, phase 'fit', step 3: .* batch_size"
    ):
        train(Rows(Normed, 9), Phase("fit", batch_size=4))
    train(Rows(Normed, 10), Phase("fit", batch_size=4))


def test_a_local_nest_sees_the_outer_view_whole() -> None:
    task = Rows(Tied, 100)
    schedule = nest(Phase("o", view=View(0.5)), Phase("i", batch_size=100), local=True)
    plan = Planner(schedule, 0, task.sites).plan(1, History())
    assert plan is not None
    train(task, plan.parts[0].phase)
    assert task.batches == [50]


class Records:
    """One site of 50 records with 6 columns."""

    def site_data(self, site: int) -> SiteRows:
        rows = np.random.default_rng(0).standard_normal((50, 6)) * np.arange(1, 7)
        return SiteRows(rows, np.empty((0, 6)))


@pytest.mark.parametrize("kernel", [grassmann, euclidean])
def test_branches_of_a_fork_do_not_share_a_consensus(kernel: object) -> None:
    start = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 2)))[0]
    arrays = {"scaler/mean": np.zeros(6), "scaler/std": np.ones(6), "subspace": start}

    def subspace(branch: str, state: dict[str, np.ndarray]) -> np.ndarray:
        phase = Phase(f"c@{branch}", branch=branch, params={"penalty": 5.0})
        order = Order("run", 1, phase, arrays, ("subspace",))
        work: Work = kernel(order, SiteContext(Records(), 0, state, Seeds(0)))  # type: ignore[operator, arg-type]
        return work.arrays["subspace"]

    shared: dict[str, np.ndarray] = {}
    subspace("u", shared)
    assert subspace("v", shared).tobytes() == subspace("v", {}).tobytes()
    again = subspace("v", shared)
    assert again.tobytes() != subspace("v", {}).tobytes(), "each goes on from where it stood"


def test_a_home_folder_that_is_not_known_is_a_data_error() -> None:
    with pytest.raises(DataError, match="named by FEDALT_DATA lies in a home folder"):
        data_folder(None, {"FEDALT_DATA": "~nobody-of-that-name/data"})
