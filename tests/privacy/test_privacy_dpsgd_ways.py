"""Promise: however single rows' gradients are had, they are those of rows taken alone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.phase import Phase, View
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.clients.kernels.row_gradients import opened
from fedalt.errors import ConfigError
from fedalt.seeds import Seeds

WAYS = ("hooks", "functorch", "ghost")
SIDE, CLASSES, WORDS = 6, 3, 11


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, CLASSES))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2),
        nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))


class Text(nn.Module):
    """Words embedded, mixed place by place by one layer used twice, and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8, padding_idx=0)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8)
        self.score = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = (x.flatten(1).abs() * 5).long() % WORDS
        hidden = torch.tanh(self.mix(self.norm(self.words(ids))))
        scores: torch.Tensor = self.score(torch.tanh(self.mix(hidden)).mean(1))
        return scores


class Custom(nn.Module):
    """A parameter of no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(36))
        self.head = nn.Linear(36, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(x.flatten(1) * self.scale)
        return scores


@dataclass(frozen=True, eq=False)
class Pictures:
    """Sites of 6 × 6 pictures in three classes."""

    build: Any = mlp
    blocks: Sequence[Block] = ()
    sizes: Sequence[int] = (23, 9, 14)

    @property
    def sites(self) -> Sequence[Site]:
        return [Site(i, f"s{i}", n) for i, n in enumerate(self.sizes)]

    def model(self) -> nn.Module:
        return self.build()

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        scores = model(batch[0])
        right = (scores.detach().argmax(1) == batch[1]).float().mean()
        return nn.functional.cross_entropy(scores, batch[1]), {"accuracy": right}

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        rng, state = seeds.numpy(), self.build().state_dict()
        return {
            n: (0.4 * rng.standard_normal(t.shape)).astype(np.float32)
            if t.is_floating_point()
            else t.numpy()
            for n, t in state.items()
        }

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng(site)
        x = rng.standard_normal((self.sizes[site], 1, SIDE, SIDE)).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(rng.integers(0, CLASSES, self.sizes[site]))

    def evaluate(self, arrays: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {}


def spec(**changes: Any) -> PrivacySpec:
    return PrivacySpec(**{"unit": "record", "rng": "seeded", "clip": 0.8, "noise": 0.5, **changes})


def order_of(task: Pictures, privacy: PrivacySpec | None = None, **changes: Any) -> Order:
    extra = {k: changes.pop(k) for k in ("mode", "precision", "returns", "arrays") if k in changes}
    phase = Phase(
        "fit", privacy=privacy or spec(),
        **{"batch_size": 5, "steps": 6, "params": {"lr": 0.1}, **changes},
    )  # fmt: skip
    arrays = extra.pop("arrays", None) or task.initial_arrays(Seeds(1).at("initial"))
    returns = extra.pop("returns", tuple(arrays))
    return Order("run", 1, phase, arrays, tuple(returns), **extra)


def sites_of(task: Any) -> list[SiteContext]:
    return [SiteContext(task, i, {}, Seeds(4).at("client", i)) for i in range(len(task.sites))]


class _Bare:
    """As much of a ReusedModel as a way needs."""

    def __init__(self, task: Pictures) -> None:
        self.task, self.module = task, task.build()
        arrays = task.initial_arrays(Seeds(2))
        self.module.load_state_dict({n: torch.from_numpy(v) for n, v in arrays.items()})
        self.autocast = contextlib.nullcontext


def naive(task: Pictures, module: nn.Module, params: Any, batch: Any, bound: float) -> Any:
    sums = [torch.zeros_like(p) for p in params]
    for i in range(len(batch[0])):
        loss, _ = task.loss(module, tuple(part[i : i + 1] for part in batch))
        grads = torch.autograd.grad(loss, params)
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        for total, g in zip(sums, grads, strict=True):
            total += g * min(1.0, bound / float(norm))
    return sums


@pytest.mark.parametrize("bound", [0.3, 1.5, 1e6])
@pytest.mark.parametrize("build", [mlp, cnn, Text])
@pytest.mark.parametrize("way", [*WAYS, "alone"])
def test_a_way_equals_a_loop_over_rows(way: str, build: Any, bound: float) -> None:
    task = Pictures(build)
    model, batch = _Bare(task), task.site_data(0)
    params = list(model.module.parameters())
    wanted = naive(task, model.module, params, batch, bound)
    with opened(way, model, params) as clipped:  # type: ignore[arg-type]
        found = clipped(batch, bound)
        again = clipped(tuple(part[:7] for part in batch), bound)
    for f, w in zip(found.sums, wanted, strict=True):
        torch.testing.assert_close(f, w.detach(), rtol=1e-5, atol=1e-5)
    for f, w in zip(
        again.sums,
        naive(task, model.module, params, tuple(part[:7] for part in batch), bound),
        strict=True,
    ):
        torch.testing.assert_close(f, w.detach(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert found.loss == pytest.approx(float(task.loss(model.module, batch)[0]), rel=1e-5)
    # Nothing of the way is left on the model.
    assert not any(m._forward_hooks or m._backward_hooks for m in model.module.modules())
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in params)


@pytest.mark.parametrize("way", ["functorch", "ghost"])
def test_activations_in_place_are_seen_through(way: str) -> None:
    def in_place() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(36, 20), nn.ReLU(inplace=True), nn.Linear(20, CLASSES)
        )

    task = Pictures(in_place)
    model, batch = _Bare(task), task.site_data(0)
    params = list(model.module.parameters())
    with opened(way, model, params) as clipped:  # type: ignore[arg-type]
        found = clipped(batch, 0.5)
    for f, w in zip(found.sums, naive(task, model.module, params, batch, 0.5), strict=True):
        torch.testing.assert_close(f, w.detach(), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match=r"cannot be had .hooks: "):
        GradientKernel()(order_of(task, spec(per_sample="hooks")), sites_of(task)[0])


@pytest.mark.parametrize("way", WAYS)
def test_large_batches_in_parts_are_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Pictures()
    model, batch = _Bare(task), task.site_data(0)
    params = list(model.module.parameters())
    count = sum(p.numel() for p in params)
    monkeypatch.setattr("fedalt.clients.kernels.row_gradients._HELD", 4 * count)
    with opened(way, model, params) as clipped:  # type: ignore[arg-type]
        found = clipped(batch, 0.5)
    wanted = naive(task, model.module, params, batch, 0.5)
    for f, w in zip(found.sums, wanted, strict=True):
        torch.testing.assert_close(f, w.detach(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        loss, metrics = task.loss(model.module, batch)
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert float(found.metrics["accuracy"]) == pytest.approx(float(metrics["accuracy"]))


@pytest.mark.parametrize("build", [mlp, cnn, Text])
def test_all_ways_train_alike(build: Any) -> None:
    task = Pictures(build)
    works = {}
    for way in WAYS:
        kernel = GradientKernel()
        works[way] = kernel(order_of(task, spec(per_sample=way)), sites_of(task)[0])
        assert kernel.export_facts()["|ways"]["fit"]["way"] == way
    for way in WAYS[1:]:
        for name, wanted in works[WAYS[0]].arrays.items():
            np.testing.assert_allclose(works[way].arrays[name], wanted, rtol=1e-4, atol=1e-5)


def test_the_fastest_way_is_recorded_and_taken_over() -> None:
    task, kernel = Pictures(), GradientKernel()
    kernel(order_of(task), sites_of(task)[0])
    facts = kernel.export_facts()
    chosen = facts["|ways"]["fit"]
    assert set(chosen["milliseconds"]) == set(WAYS) and not chosen["left_out"]
    assert chosen["way"] == min(chosen["milliseconds"], key=lambda w: chosen["milliseconds"][w])
    other = next(way for way in WAYS if way != chosen["way"])
    again = GradientKernel()
    again.import_facts({"|ways": {"fit": {**chosen, "way": other}}})
    again(order_of(task), sites_of(task)[0])
    assert again.export_facts()["|ways"]["fit"]["way"] == other
    with pytest.raises(ConfigError, match="no way to have gradients"):
        again.import_facts({"|ways": {"fit": {**chosen, "way": "magic"}}})


def test_a_way_that_does_not_fit_is_left_out() -> None:
    task, kernel = Pictures(Custom), GradientKernel()
    work = kernel(order_of(task), sites_of(task)[0])
    found = kernel.export_facts()["|ways"]["fit"]
    assert "no sampler" in found["left_out"]["ghost"] and found["way"] in ("hooks", "functorch")
    told = GradientKernel()(order_of(task, spec(per_sample="functorch")), sites_of(task)[0])
    np.testing.assert_allclose(work.arrays["scale"], told.arrays["scale"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="per_sample"):
        GradientKernel()(order_of(task, spec(per_sample="ghost")), sites_of(task)[0])


def test_a_metric_that_no_program_can_trace_leaves_two_ways() -> None:
    class Item(Pictures):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            loss, metrics = super().loss(model, batch)
            return loss, {"accuracy": metrics["accuracy"].item()}

    kernel, task = GradientKernel(), Item()
    kernel(order_of(task), sites_of(task)[0])
    found = kernel.export_facts()["|ways"]["fit"]
    assert set(found["left_out"]) == {"functorch"} and set(found["milliseconds"]) == set(WAYS[::2])


def test_batch_normalisation_is_refused_by_name() -> None:
    task = Pictures(batch_normed)
    arrays = task.initial_arrays(Seeds(1).at("initial"))
    for names in (["0.weight", "0.bias"], ["3.weight"]):
        with pytest.raises(ConfigError, match=r"layer '1' is a BatchNorm2d.*GroupNorm"):
            GradientKernel()(order_of(task, returns=names), sites_of(task)[0])
    with pytest.raises(ConfigError, match=r"1.running_mean.* are buffers"):
        GradientKernel()(order_of(task, returns=list(arrays)), sites_of(task)[0])


class Centred(nn.Module):
    """Rows less the mean of their batch: no layer that anyone knows, and yet rows are mixed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """A buffer that sums up what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(36))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.total += x.detach().sum(0)
        return x


def test_whatever_mixes_rows_is_refused() -> None:
    def centred() -> nn.Module:
        return nn.Sequential(nn.Flatten(), Centred(), nn.Linear(36, CLASSES))

    def counting() -> nn.Module:
        return nn.Sequential(nn.Flatten(), Counting(), nn.Linear(36, CLASSES))

    class Summed(Pictures):
        def loss(self, model: nn.Module, batch: Any) -> Any:
            loss, metrics = super().loss(model, batch)
            return loss * len(batch[0]), metrics

    for task in (Pictures(centred), Summed()):
        with pytest.raises(ConfigError, match="its rows depend on each other"):
            GradientKernel()(order_of(task), sites_of(task)[0])
    with pytest.raises(ConfigError, match=r"buffer '1.total' sums up the rows"):
        GradientKernel()(
            order_of(Pictures(counting), returns=["2.weight", "2.bias"]),
            sites_of(Pictures(counting))[0],
        )


class Drawn(Pictures):
    def site_draw(self, site: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return self.site_data(site)


class Sliced(Pictures):
    def site_slices(self, site: int) -> dict[str, np.ndarray]:
        return {"a": np.arange(5), "b": np.arange(5, 9)}


@pytest.mark.parametrize(
    ("task", "privacy", "phase", "match"),
    [
        (Drawn(), spec(), {}, "drawn anew.*not public"),
        (Sliced(), spec(), {"view": View(slices=("a",))}, "a slice.*not public"),
        (
            Sliced(),
            spec(sample_rate=0.1),
            {"view": View(slices=("a", "b"))},
            "take turns .a, b. are no Poisson sample",
        ),
        (Pictures(), spec(unit="user", contributions=3), {}, r"has no site_users\(site\)"),
    ],
)
def test_rates_that_are_not_public_are_refused(
    task: Any, privacy: PrivacySpec, phase: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        GradientKernel()(order_of(task, privacy, **phase), sites_of(task)[0])
    # A rate that is told hides no number of rows.
    with pytest.raises(ConfigError, match=match):
        told = replace(privacy, sample_rate=0.3)
        GradientKernel()(order_of(task, told, **phase), sites_of(task)[0])


def test_reduced_precision_clips_and_noises_in_full() -> None:
    task = Pictures()
    full = GradientKernel()(order_of(task, spec(per_sample="ghost")), sites_of(task)[0])
    for way in WAYS:
        half = GradientKernel()(
            order_of(task, spec(per_sample=way), precision="bfloat16"), sites_of(task)[0]
        )
        for name, wanted in full.arrays.items():
            assert half.arrays[name].dtype == np.float32
            np.testing.assert_allclose(half.arrays[name], wanted, atol=0.02)


@pytest.mark.parametrize("mode", ["sequential", "channels_last", "batched:2"])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_modes_agree(mode: str, build: Any) -> None:
    task = Pictures(build)
    for params in ({"lr": 0.1}, {"lr": 0.05, "momentum": 0.9, "optimizer_state": "persist"}):
        settings = {"params": params, "steps": 0, "epochs": 2}
        wanted_sites, found_sites = sites_of(task), sites_of(task)
        order = order_of(task, **settings)
        wanted = [GradientKernel()(order, site) for site in wanted_sites]
        kernel = GradientKernel()
        found = list(kernel.cohort(order_of(task, mode=mode, **settings), found_sites))
        assert str(kernel.choose(order_of(task, mode=mode, **settings), found_sites)) == mode
        for f, w, fs, ws in zip(found, wanted, found_sites, wanted_sites, strict=True):
            assert not isinstance(f, Exception), f
            assert (f.applied, f.steps, f.num_examples, f.metrics) == (
                w.applied, w.steps, w.num_examples, w.metrics,
            )  # fmt: skip
            for name, values in w.arrays.items():
                np.testing.assert_allclose(f.arrays[name], values, rtol=1e-5, atol=1e-5)
            assert set(fs.state) == set(ws.state)
            for name, values in ws.state.items():
                np.testing.assert_allclose(fs.state[name], values, rtol=1e-5, atol=1e-5)
