"""Promise: every mode of the engine trains as the reference does, to a stated tolerance.

An equivalence table: optimisers and settings down, modes across. Batches and steps are the
same; only rounding may differ, so arrays, losses and kept state agree to 1e-5 of their size
in float32 over a dozen steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase, View
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds

SIZES = (23, 17, 5, 31, 10)
TOLERANCE = 1e-5
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "decay": {"weight_decay": 0.1},
    "proximal": {"proximal_mu": 0.5},
    "clipped": {"clip_norm": 0.1},
    "clipped and proximal": {"clip_norm": 0.1, "proximal_mu": 0.5},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "kept momentum": {"momentum": 0.9, "optimizer_state": "persist"},
    "kept adam": {"optimizer": "adam", "lr": 0.01, "optimizer_state": "persist"},
    "first loss": {"report_initial_loss": True},
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.Tanh(), nn.Linear(7, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Sites of 6 × 6 pictures in three classes."""

    build: Any = mlp
    blocks: Sequence[Block] = (Block("head", ("3/*",)), Block("body", ("1/*",)))

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"s{i}", n) for i, n in enumerate(SIZES)]

    def model(self) -> nn.Module:
        return self.build()

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        scores = model(batch[0])
        right = (scores.detach().argmax(1) == batch[1]).float().mean()
        return nn.functional.cross_entropy(scores, batch[1]), {"accuracy": right}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        state = self.build().state_dict()
        return {
            name: np.asarray(rng.uniform(0.1, 0.4, tuple(value.shape)), np.float32)
            if value.is_floating_point()
            else value.numpy().copy()
            for name, value in state.items()
        }

    def site_data(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(site)
        x = rng.normal(size=(SIZES[site], 1, 6, 6)).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(rng.integers(0, 3, SIZES[site]))

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def train(
    task: Pictures, mode: str, params: Mapping[str, Any], rounds: int = 2, **settings: Any
) -> tuple[list[Work], list[dict[str, np.ndarray]], GradientKernel]:
    """Train all sites for some rounds from the same start; return the last works and states."""
    kernel, states = GradientKernel(), [dict[str, np.ndarray]() for _ in SIZES]
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", **{"epochs": 2, "batch_size": 6, **settings}, params={"lr": 0.1, **params})
    works: list[Any] = []
    for number in range(1, rounds + 1):
        order = Order("run", number, phase, arrays, tuple(arrays), mode=mode)
        seeds = Seeds(1).at("round", number)
        sites = [SiteContext(task, i, states[i], seeds.at(i)) for i in range(len(SIZES))]
        works = list(kernel.cohort(order, sites))
        for work in works:
            if isinstance(work, Exception):
                raise work
    return works, states, kernel


def agree(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype and found[name].shape == values.shape, name
        np.testing.assert_allclose(found[name], values, rtol=TOLERANCE, atol=TOLERANCE)


def check(task: Pictures, mode: str, params: Mapping[str, Any], **settings: Any) -> None:
    works, states, kernel = train(task, mode, params, **settings)
    wanted, kept, _ = train(task, "sequential", params, **settings)
    for work, reference in zip(works, wanted, strict=True):
        agree(work.arrays, reference.arrays)
        assert (work.steps, work.num_examples) == (reference.steps, reference.num_examples)
        assert work.metrics == pytest.approx(reference.metrics, abs=TOLERANCE)
    for state, reference_state in zip(states, kept, strict=True):
        agree(state, reference_state)
    if mode != "channels_last":
        assert kernel.export_facts()["fit"]["mode"].startswith(mode)


@pytest.mark.parametrize("settings", SETTINGS)
def test_batched_clients_train_as_they_would_alone(settings: str) -> None:
    check(Pictures(), "batched:3", SETTINGS[settings])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compiled", "batched-compiled:3"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_compiled_steps_train_as_the_reference(settings: str, mode: str) -> None:
    check(Pictures(), mode, SETTINGS[settings])


@pytest.mark.parametrize("mode", ["compiled", "batched-compiled:2"])
def test_a_compiled_step_trains_as_the_reference(mode: str) -> None:
    check(Pictures(), mode, {})


@pytest.mark.parametrize(
    "mode",
    [
        "channels_last",
        "batched:2",
        "compiled-channels_last",
        pytest.param("batched-compiled:2", marks=pytest.mark.slow),
    ],
)
def test_convolutions_agree_in_every_mode(mode: str) -> None:
    check(Pictures(cnn, ()), mode, {})


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0, "steps": 7},
        {"epochs": 3, "steps": 2},
        {"epochs": 1, "batch_size": 100},
        {"view": View(0.5)},
        {
            "epochs": 0,
            "inner": (
                Phase("a", train=("head",), epochs=1, batch_size=4, params={"momentum": 0.5}),
                Phase("b", train=("body",), epochs=2, batch_size=7, view=View(0.7)),
            ),
        },
    ],
    ids=["steps", "few steps", "full batch", "view", "inner phases"],
)
def test_batches_views_and_inner_phases_are_the_same(settings: dict[str, Any]) -> None:
    check(Pictures(), "batched:2", {}, **settings)


@pytest.mark.slow
def test_a_compiled_step_may_hold_batch_normalisation() -> None:
    task = Pictures(normed, ())
    fair = {"epochs": 1, "batch_size": 50}
    check(task, "compiled-channels_last", {}, **fair)


@pytest.mark.parametrize("mode", ["batched", "batched-compiled"])
def test_rows_that_depend_on_each_other_are_not_batched(mode: str) -> None:
    with pytest.raises(ConfigError, match=rf"phase 'fit': engine.mode={mode} cannot compute it"):
        train(Pictures(normed, ()), mode, {}, epochs=1, batch_size=50)


def test_a_loss_that_is_no_mean_over_rows_is_not_batched() -> None:
    class Weighted(Pictures):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            weight = torch.tensor([0.2, 1.0, 3.0])
            return nn.functional.cross_entropy(model(batch[0]), batch[1], weight), {}

    with pytest.raises(ConfigError, match="of an update away from the reference's"):
        train(Weighted(), "batched", {})


def test_a_loss_that_leaves_tensors_is_not_batched() -> None:
    class Counting(Pictures):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            loss, metrics = super().loss(model, batch)
            return loss, {"accuracy": float(metrics["accuracy"])}

    with pytest.raises(ConfigError, match="cannot compute it"):
        train(Counting(), "batched", {})
    works, _, _ = train(Counting(), "auto", {})
    assert all("accuracy" in work.metrics for work in works)


def test_one_client_that_goes_wrong_leaves_the_others_alone() -> None:
    class Broken(Pictures):
        def site_data(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = super().site_data(site)
            return (x * float("nan"), y) if site == 3 else (x, y)

    kernel, task = GradientKernel(), Broken()
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", epochs=2, batch_size=6, params={"lr": 0.1})
    order = Order("run", 4, phase, arrays, tuple(arrays), mode="batched:2")
    sites = [SiteContext(task, i, {}, Seeds(1).at(i)) for i in range(len(SIZES))]
    found = list(kernel.cohort(order, sites))
    assert [i for i, work in enumerate(found) if isinstance(work, Exception)] == [3]
    assert "site 's3', round 4, phase 'fit', step 1: the loss is nan" in str(found[3])
    alone = kernel(order, sites[1])
    agree(found[1].arrays, alone.arrays)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["batched:2", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_step_size_may_ramp_without_a_new_program(mode: str) -> None:
    task, kernel = Pictures(), GradientKernel()
    arrays = task.initial_arrays(Seeds(3))
    for number, rate in enumerate((0.1, 0.05, 0.01), start=1):
        phase = Phase("fit", epochs=1, batch_size=6, params={"lr": rate})
        order = Order("run", number, phase, arrays, tuple(arrays), mode=mode)
        site = SiteContext(task, 0, {}, Seeds(1).at(number))
        (work,) = kernel.cohort(order, [site])
        agree(work.arrays, kernel(order, site).arrays)  # type: ignore[union-attr]
    made = kernel._made
    assert len(made.programs._made) + len(made.traced._made) == 1


def test_a_batch_does_not_depend_on_who_shares_it() -> None:
    """So that neither the number of workers nor a client's place shows in the result."""
    task, kernel = Pictures(), GradientKernel()
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", epochs=2, batch_size=6, params={"lr": 0.1})
    order = Order("run", 1, phase, arrays, tuple(arrays), mode="batched:3")
    sites = [SiteContext(task, i, {}, Seeds(1).at(i)) for i in range(len(SIZES))]
    together = [work.arrays for work in kernel.cohort(order, sites)]  # type: ignore[union-attr]
    for some in ([4, 0], [1], [2, 3, 1, 0]):
        apart = kernel.cohort(order, [sites[i] for i in some])
        for i, work in zip(some, apart, strict=True):
            for name, values in work.arrays.items():  # type: ignore[union-attr]
                assert np.array_equal(values, together[i][name]), (some, name)


def test_a_probe_takes_the_fastest_that_agrees_and_a_resume_takes_it_over() -> None:
    task = Pictures()
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", epochs=1, batch_size=6, params={"lr": 0.1})
    order = Order("run", 1, phase, arrays, tuple(arrays), mode="auto", rounds=10**5)
    sites = [SiteContext(task, i, {}, Seeds(1).at(i)) for i in range(len(SIZES))]
    kernel = GradientKernel()
    chosen = kernel.choose(order, sites)
    facts = kernel.export_facts()
    times = facts["fit"]["milliseconds"]
    assert min(times, key=times.get) == str(chosen) and "batched:5" in times
    again = GradientKernel()
    again.import_facts(facts)
    assert again.choose(replace(order, round=7), sites) == chosen
    assert again.export_facts() == facts


def test_a_phase_of_buffers_alone_is_left_to_the_reference() -> None:
    task, kernel = Pictures(normed, ()), GradientKernel()
    arrays = task.initial_arrays(Seeds(3))
    phase = Phase("fit", epochs=1, batch_size=50, params={"lr": 0.1})
    returns = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    order = Order("run", 1, phase, arrays, returns, mode="auto", rounds=10**5)
    site = SiteContext(task, 0, {}, Seeds(1).at(0))
    assert not kernel.choose(order, [site]).batched
    told = replace(order, mode="batched:2")
    with pytest.raises(ConfigError, match=r"engine\.mode=batched:2 cannot compute it"):
        list(GradientKernel().cohort(told, [site]))


def test_little_work_is_not_probed() -> None:
    _, _, kernel = train(Pictures(), "auto", {})
    assert kernel.export_facts()["fit"]["mode"] == "sequential"
    assert "not worth a probe" in kernel.export_facts()["fit"]["note"]


def test_mixed_precision_stays_near_full_precision() -> None:
    task, phase = Pictures(), Phase("fit", epochs=1, batch_size=6, params={"lr": 0.1})
    arrays = task.initial_arrays(Seeds(3))
    site = SiteContext(task, 0, {}, Seeds(1))
    full = Order("run", 1, phase, arrays, tuple(arrays))
    exact = GradientKernel()(full, site).arrays
    for mode in ("sequential", "batched:2"):
        order = replace(full, precision="bfloat16", mode=mode)
        (work,) = GradientKernel().cohort(order, [site])
        gaps = [np.abs(work.arrays[n] - a).max() for n, a in exact.items()]  # type: ignore[union-attr]
        assert 0 < max(gaps) < 0.05, "rounded to eight bits, and to no fewer"
