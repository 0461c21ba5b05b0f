"""Promise: what a private stage cannot protect is refused, also before a run, and nothing leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import LeastSquares
from torch import nn

from fedalt.alternation.phase import Phase, StreamView, View
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels import choice
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.errors import ConfigError, ScheduleError
from fedalt.modes import Mode
from fedalt.seeds import Seeds

START = {"weight": np.full((1, 3), 0.5), "bias": np.zeros(1)}


def spec(**changes: Any) -> PrivacySpec:
    return PrivacySpec(**{"unit": "record", "rng": "seeded", "clip": 0.7, "noise": 1.3, **changes})


def fit(privacy: PrivacySpec | None = None, **changes: Any) -> Phase:
    told = {"batch_size": 4, "params": {"lr": 0.1}, **changes}
    return Phase("fit", privacy=privacy or spec(), **told)


class Drawn(LeastSquares):
    def site_draw(self, site: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return self.site_data(site)


class Owned(LeastSquares):
    def site_users(self, site: int) -> np.ndarray:
        return np.arange(self.sizes[site]) // 2


class Normed(LeastSquares):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = []

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1))


class Frozen(LeastSquares):
    def model(self) -> nn.Module:
        return super().model().requires_grad_(False)


STREAM, SLICE = View(stream=StreamView((0, 1))), View(slices=("a",))
USER = spec(unit="user", contributions=2)
REFUSED = [
    (LeastSquares(), fit(view=STREAM), "of a stream it is not public"),
    (LeastSquares(), fit(view=SLICE), "of a slice it is not public"),
    (LeastSquares(), fit(inner=(Phase("in", view=SLICE),)), "of a slice it is not public"),
    (Drawn(), fit(), r"drawn anew \(site_draw\) it is not public"),
    (LeastSquares(), fit(USER), r"has no site_users\(site\)"),
    (Frozen(), fit(), "lets no array of the trained blocks learn"),
]


@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.parametrize(("task", "phase", "match"), REFUSED)
def test_a_site_refuses_as_the_check_before_the_run(
    task: Any, phase: Phase, match: str, rate: float
) -> None:
    assert phase.privacy is not None
    phase = replace(phase, privacy=replace(phase.privacy, sample_rate=rate))
    with pytest.raises(ConfigError, match=f"^phase 'fit', privacy of a .*{match}"):
        GradientKernel().check_task(phase, task)
    site = SiteContext(task, 6, {}, Seeds(3))
    with pytest.raises(ConfigError, match=match):
        GradientKernel()(Order("run", 1, phase, START, tuple(START)), site)
    # Nobody's rows are protected: the phase is none of these rules' business.
    for other in (None, PrivacySpec(unit="client", clip=1.0, noise=1.0)):
        GradientKernel().check_task(replace(phase, privacy=other), task)


def test_models_and_methods_are_judged_before_the_run() -> None:
    kernel = GradientKernel()
    with pytest.raises(ConfigError, match="are buffers"):
        kernel.check_task(fit(), Normed())
    normed = Normed()
    normed.model = lambda: nn.Sequential(  # type: ignore[method-assign]
        nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.Linear(2, 1)
    )
    with pytest.raises(ConfigError, match=r"layer '1' is a BatchNorm1d.*GroupNorm"):
        kernel.check_task(fit(), normed)
    replaying = fit(view=STREAM, params={"lr": 0.1, "replay_memory": 4})
    with pytest.raises(ConfigError, match="params ask for replay"):
        kernel.check_task(replaying, LeastSquares())
    with pytest.raises(ScheduleError, match="phase 'fit': the model has no block 'nose'"):
        kernel.check_task(fit(train=("nose",)), LeastSquares())
    for phase, task in ((fit(), LeastSquares()), (fit(USER), Owned())):
        kernel.check_task(phase, task)


class Dropping(LeastSquares):
    """Dropout is noted: the masks that a client's steps drew."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[torch.Tensor] = []

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        if model.training:
            self.masks.append(torch.rand(8))
        return super().loss(model, batch)


def masks_of(privacy: PrivacySpec | None) -> torch.Tensor:
    task = Dropping()
    phase = replace(fit(params={"lr": 0.1}, steps=3), privacy=privacy)
    site = SiteContext(task, 6, {}, Seeds(3).at("client", 6))
    GradientKernel()(Order("run", 1, phase, START, tuple(START)), site)
    return torch.stack(task.masks)[-1]


def test_dropout_of_a_private_stage_is_as_secret_as_its_noise() -> None:
    secret = spec(rng="os", sample_rate=1.0, per_sample="hooks")
    again = replace(secret, rng="seeded")
    assert torch.equal(masks_of(None), masks_of(None))
    assert torch.equal(masks_of(again), masks_of(again))
    assert not torch.equal(masks_of(secret), masks_of(secret))


Works = list[Work | Exception]


def reasons(monkeypatch: pytest.MonkeyPatch, privacy: PrivacySpec | None, bad: Any) -> list[str]:
    """Return what is said of a mode that brings ``bad``: told, and when probed."""
    monkeypatch.setattr(choice, "WORTH_PROBING", 0.0)
    monkeypatch.setattr(choice, "SEARCH", float("inf"))
    task = LeastSquares()
    phase = replace(fit(), privacy=privacy)
    sites = [SiteContext(task, i, {}, Seeds(3).at("client", i)) for i in (5, 6)]
    order = Order("run", 1, phase, START, tuple(START), mode="batched:2")
    good = Work({name: values + 1.0 for name, values in START.items()}, 4, {}, 1)

    def run(mode: Mode, order: Order, sites: Sequence[SiteContext]) -> Works:
        if not mode.batched:
            return [good for _ in sites]
        if isinstance(bad, RuntimeError):
            raise bad
        return [bad for _ in sites]

    client: Any = GradientKernel()._first(order, sites)
    with pytest.raises(ConfigError) as told:
        choice.settle(Mode.read("batched:2"), order, sites, client, run)
    monkeypatch.setattr(choice, "_candidates", lambda *_: iter([Mode.read("batched:2")]))
    found: Mapping[str, str] = choice.probe(order, sites, client, run).left_out
    return [str(told.value), *found.values()]


FAR = Work({name: values + 1.4321 for name, values in START.items()}, 4, {}, 1)
BAD = [
    (FAR, "4.3e-01", "its results do not agree with the reference's"),
    (ValueError("row 4321 is odd"), "4321", "it fails where the reference does not"),
    (RuntimeError("row 4321 is odd"), "4321", "it fails where the reference does not"),
]


@pytest.mark.parametrize(("bad", "secret", "said"), BAD)
def test_a_mode_left_out_tells_nothing_of_private_training(
    monkeypatch: pytest.MonkeyPatch, bad: Any, secret: str, said: str
) -> None:
    for privacy in (spec(), PrivacySpec(unit="client", clip=1.0, noise=1.0)):
        told, probed = reasons(monkeypatch, privacy, bad)
        assert probed == said and f"cannot compute it: {said};" in told
        assert secret not in told
    assert all(secret in text for text in reasons(monkeypatch, None, bad))
