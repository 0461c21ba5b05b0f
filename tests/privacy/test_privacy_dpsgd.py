"""Promise: a private stage trains as DP-SGD is written down, and hides what it says it hides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from federations import LeastSquares
from torch import nn

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.dpsgd import at_most
from fedalt.clients.kernels.gradient import GradientKernel
from fedalt.privacy.noise import noise_generator
from fedalt.privacy.site_account import KEY, add, history
from fedalt.seeds import Seeds

START = {"weight": np.full((1, 3), 0.5), "bias": np.zeros(1)}


def spec(**changes: Any) -> PrivacySpec:
    return PrivacySpec(**{"unit": "record", "rng": "seeded", "clip": 0.7, "noise": 1.3, **changes})


def run(
    task: Any = None,
    privacy: PrivacySpec | None = None,
    state: dict[str, np.ndarray] | None = None,
    site: int = 6,
    **phase: Any,
) -> tuple[Work, SiteContext]:
    task = task or LeastSquares()
    changes = {"batch_size": 4, "params": {"lr": 0.1}, **phase}
    made = Phase("fit", privacy=privacy or spec(), **changes)
    order = Order("run", 1, made, START, ("weight", "bias"))
    context = SiteContext(task, site, {} if state is None else state, Seeds(3).at("client", site))
    return GradientKernel()(order, context), context


def by_hand(
    task: LeastSquares,
    seeds: Seeds,
    privacy: PrivacySpec,
    rate: float,
    steps: int,
    momentum: float = 0.0,
    decay: float = 0.0,
    mu: float = 0.0,
) -> np.ndarray:
    """Train w = (weights, bias) in plain numpy, drawing as the mechanism says that it does."""
    rng, x = noise_generator("seeded", seeds), np.c_[task.x[6], np.ones(task.sizes[6])]
    rows = len(x)
    drawn = [
        np.sort(rng.choice(rows, int(rng.binomial(rows, rate)), replace=False, shuffle=False))
        for _ in range(steps)
    ]
    first = np.array([0.5, 0.5, 0.5, 0.0])
    w, velocity = first.copy(), np.zeros(4)
    for some in drawn:
        total = np.zeros(4)
        for i in some:
            gradient = x[i] * (x[i] @ w - task.y[6][i])
            total += gradient * min(1.0, privacy.clip / np.linalg.norm(gradient))
        total += privacy.noise * privacy.clip * rng.standard_normal(4)
        gradient = total / (rate * rows) + mu * (w - first) + decay * w
        velocity = momentum * velocity + gradient
        w = w - 0.1 * velocity
    return w


@pytest.mark.parametrize(
    "params", [{}, {"momentum": 0.9}, {"weight_decay": 0.3}, {"proximal_mu": 0.5}]
)
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_equals_a_plain_loop(params: dict[str, float], rate: float) -> None:
    task, privacy = LeastSquares(), spec(sample_rate=rate)
    work, site = run(task, privacy, epochs=3, params={"lr": 0.1, **params})
    # 28 rows in batches of 4: q = 1/7, an epoch is 7 steps; or of 0.4, 3 steps.
    q, steps = (0.4, 9) if rate else (4 / 28, 21)
    keys = {"momentum": "momentum", "weight_decay": "decay", "proximal_mu": "mu"}
    wanted = by_hand(task, site.seeds, privacy, q, steps, **{keys[k]: v for k, v in params.items()})
    found = np.r_[work.arrays["weight"][0], work.arrays["bias"]]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert (work.steps, work.num_examples, work.metrics) == (steps, 28, {})
    (applied,) = work.applied
    assert applied.unit == "record" and applied.steps == steps
    assert (applied.clip, applied.noise_multiplier) == (0.7, 1.3)
    assert applied.noise_std == pytest.approx(0.91) and applied.sample_rate == pytest.approx(q)
    assert applied.rng == "seeded:pcg64 (protects nobody)"


def test_noise_from_the_operating_system_is_never_the_same_twice() -> None:
    works = [run(privacy=spec(rng="os"))[0] for _ in range(2)]
    assert not np.array_equal(works[0].arrays["weight"], works[1].arrays["weight"])
    assert works[0].applied[0].rng == "os:chacha20"
    again = [run()[0] for _ in range(2)]
    assert again[0].arrays["weight"].tobytes() == again[1].arrays["weight"].tobytes()


class Flat(LeastSquares):
    """A wide model whose loss has no slope: what moves it is noise alone."""

    width = 500

    def model(self) -> nn.Module:
        return nn.Linear(self.width, 1)

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        return {"weight": np.zeros((1, self.width), np.float32), "bias": np.zeros(1, np.float32)}

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        return (torch.ones(40, self.width),)

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[Any, dict[str, Any]]:
        return model(batch[0]).mean() * self.slope(), {}

    def slope(self) -> float:
        return 0.0


@pytest.mark.parametrize("rng", ["os", "seeded"])
def test_the_noise_has_the_standard_deviation_that_is_reported(rng: str) -> None:
    task, privacy = Flat(), spec(rng=rng, clip=0.5, noise=3.0)
    steps = 40
    made = Phase("fit", privacy=privacy, batch_size=8, steps=steps, params={"lr": 1.0})
    start = task.initial_arrays(Seeds(0))
    order = Order("run", 1, made, start, tuple(start))
    kernel, moved = GradientKernel(), []
    for site in range(3):
        work = kernel(order, SiteContext(task, site, {}, Seeds(site)))
        moved.append(work.arrays["weight"][0] * 8 / np.sqrt(steps))
    values = np.concatenate(moved)
    # 1500 values: the standard error is 2 %.
    assert np.std(values) == pytest.approx(work.applied[0].noise_std, rel=0.08)
    assert abs(np.mean(values)) < 4 * 1.5 / np.sqrt(len(values))
    assert np.std(values) != pytest.approx(1.5 * 1.2, rel=0.08)


class Loud(LeastSquares):
    """One row of site 6 is another's: a target beyond all bounds, or no number."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.y[6] = self.y[6].copy()
        self.y[6][0] = target


@pytest.mark.parametrize("way", ["hooks", "functorch", "ghost"])
@pytest.mark.parametrize("target", [1e6, -1e12, np.nan, np.inf, 1e200])
def test_one_record_moves_the_sum_by_no_more_than_the_clip(target: float, way: str) -> None:
    privacy = spec(sample_rate=1.0, per_sample=way)
    # All rows, one step: with it, and with it gone (a row of zeros has no gradient of weights).
    loud, _ = run(Loud(target), privacy, steps=1, params={"lr": 28.0})

    class Without(Loud):
        def loss(self, model: nn.Module, batch: Any) -> tuple[Any, dict[str, Any]]:
            x, y = batch
            gone = (y == 123.0).double()
            return ((1 - gone) * (model(x).squeeze(1) - y).square()).mean() / 2, {}

    quiet, _ = run(Without(123.0), privacy, steps=1, params={"lr": 28.0})
    gap = np.concatenate([(loud.arrays[n] - quiet.arrays[n]).ravel() for n in START])
    assert np.isfinite(gap).all()
    assert np.linalg.norm(gap) <= 0.7 * (1 + 1e-6)
    if abs(target) in (1e6, 1e12):
        assert np.linalg.norm(gap) == pytest.approx(0.7, rel=1e-6)


def test_steps_without_rows_are_noisy_steps() -> None:
    task, privacy = LeastSquares(), spec(sample_rate=1e-9)
    work, site = run(task, privacy, steps=5)
    wanted = by_hand(task, site.seeds, privacy, 1e-9, 5)
    found = np.r_[work.arrays["weight"][0], work.arrays["bias"]]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert work.steps == 5 and np.abs(found).max() > 1e3
    released, _ = run(task, spec(sample_rate=1e-9, metrics="release"), steps=5)
    assert set(released.metrics) == {"loss"}


def test_metrics_are_told_only_where_the_spec_says_so() -> None:
    params = {"lr": 0.1, "report_initial_loss": True}
    assert run(params=params)[0].metrics == {}
    told, _ = run(privacy=spec(metrics="release"), params=params)
    assert set(told.metrics) == {"loss", "train_loss"}


def test_sample_sizes_are_binomial() -> None:
    from fedalt.clients.kernels.dpsgd import Mechanism
    from fedalt.privacy.sampling import RowSample

    rows = np.arange(200) * 3
    made = Mechanism(spec(), RowSample(0.05, 4000, 200), rows, np.random.default_rng(1))
    batches = made.batches()
    sizes = np.array([len(batch) for batch in batches])
    assert np.mean(sizes) == pytest.approx(10.0, abs=5 * np.sqrt(9.5 / 4000))
    assert np.var(sizes) == pytest.approx(9.5, rel=0.12)
    met = np.bincount(np.concatenate(batches) // 3, minlength=200)
    assert all(len(set(batch)) == len(batch) for batch in batches)
    # Each row 200 times on average, of a standard deviation of 13.8.
    assert abs(met - 200).max() < 5 * 13.8 and np.std(met) == pytest.approx(13.8, rel=0.25)


def test_an_account_stays_at_the_site_and_is_written_at_the_end() -> None:
    _, site = run(privacy=spec(sample_rate=0.25), epochs=2)
    np.testing.assert_array_equal(site.state[KEY], [[0.25, 1.3, 1.0, 8.0]])
    run(privacy=spec(sample_rate=0.25), steps=5, state=site.state)
    np.testing.assert_array_equal(site.state[KEY], [[0.25, 1.3, 1.0, 13.0]])
    run(privacy=spec(sample_rate=0.5), steps=1, state=site.state)
    from fedalt.privacy.events import gaussian, sampled, user_sampled

    assert history(site.state[KEY]) == {
        sampled(0.25, gaussian(1.3)): 13,
        sampled(0.5, gaussian(1.3)): 1,
    }
    assert history(add(None, [(0.5, 2.0, 3, 4)])) == {user_sampled(0.5, 3, 2.0): 4}
    assert history(None) == {}
    former = {name: values.copy() for name, values in site.state.items()}
    with pytest.raises(Exception, match="parameter is not finite"):
        run(privacy=spec(noise=100.0), params={"lr": 1e308}, steps=40, state=site.state)
    assert all(np.array_equal(site.state[n], v) for n, v in former.items())
    assert set(site.state) == set(former)


class Visits(LeastSquares):
    """Rows are visits; a user has several."""

    def site_users(self, site: int) -> np.ndarray:
        return np.arange(self.sizes[site]) // 7


def test_a_user_keeps_so_many_rows_at_most() -> None:
    rng, rows = np.random.default_rng(0), np.arange(100, 160)
    users = np.repeat([5, 3, 9, 1], [30, 2, 25, 3])
    picks = [at_most(rows, users, 3, rng) for _ in range(200)]
    for kept in picks:
        assert sorted(kept) == list(kept) and len(set(kept)) == len(kept)
        assert np.bincount(users[kept - 100], minlength=10).tolist() == [
            0,
            3,
            0,
            2,
            0,
            3,
            0,
            0,
            0,
            3,
        ]
    chosen = np.bincount(np.concatenate(picks) - 100, minlength=60)
    # Of 30 rows each is kept in a tenth of 200 draws: 20, of a standard deviation of 4.2.
    assert chosen[:30].min() > 2 and chosen[:30].max() < 45


def test_a_users_rows_move_the_sum_by_k_clips_at_most() -> None:
    privacy = spec(unit="user", contributions=2, sample_rate=1.0, noise=1e-9)
    work, site = run(Visits(), privacy, steps=1, params={"lr": 28.0})
    assert work.applied[0].unit == "user"
    np.testing.assert_array_equal(site.state[KEY], [[1.0, 1e-9, 2.0, 1.0]])
    moved = np.concatenate([(work.arrays[n] - START[n]).ravel() for n in START])
    # Four users of two rows each, and each row clipped.
    assert 0 < np.linalg.norm(moved) <= 4 * 2 * 0.7 + 1e-6


def test_a_workday_of_blocks_keeps_the_frozen_ones_as_they_were() -> None:
    task = LeastSquares()
    made = Phase("fit", privacy=spec(), batch_size=4, train=("slope",), params={"lr": 0.1})
    order = Order("run", 1, made, START, ("weight",), keeps=())
    work = GradientKernel()(order, SiteContext(task, 6, {}, Seeds(3).at("client", 6)))
    assert set(work.arrays) == {"weight"} and not np.array_equal(
        work.arrays["weight"], START["weight"]
    )
    inner = (
        Phase("one", train=("slope",), steps=2, params={"lr": 0.1}),
        Phase("two", train=("offset",), steps=3, params={"lr": 0.1}, privacy=spec(noise=2.0)),
    )
    both = Phase("fit", privacy=spec(), batch_size=4, inner=inner)
    order = Order("run", 1, both, {"weight": START["weight"]}, ("weight",), keeps=("bias",))
    site = SiteContext(task, 6, {}, Seeds(3).at("client", 6))
    work = GradientKernel()(order, site)
    assert [(a.noise_multiplier, a.steps) for a in work.applied] == [(1.3, 2), (2.0, 3)]
    assert set(site.state) == {KEY, "local/bias"} and len(site.state[KEY]) == 2
    assert not np.array_equal(site.state["local/bias"], START["bias"])
