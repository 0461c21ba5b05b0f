"""Client-level privacy at the site: what leaves it is bounded, noised and without metrics."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate, settings
from scipy import stats

from fedalt.alternation import Block, Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.protect import protect
from fedalt.errors import AdmissionError, ConfigError
from fedalt.privacy.noise import noise_generator
from fedalt.runs.checkpoint import Snapshot
from fedalt.seeds import Seeds
from fedalt.server.admission import protections_of

Named = dict[str, np.ndarray]
METRICS = {"loss": 0.5, "accuracy": 0.25}


class Blocks:
    """A task's blocks, which is all of it that protection looks at."""

    blocks = (Block("enc", ("enc/*",)), Block("head", ("head/*",)))


def received(size: int = 4, dtype: Any = np.float64) -> Named:
    rng = np.random.default_rng(0)
    shapes = {"enc.w": (size, 3), "head.w": (size, 2)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def protected(phase: Phase, old: Named, new: Named, examples: int = 37, place: int = 3) -> Work:
    order = Order("run", 2, phase, old, tuple(old))
    seeds = Seeds(5).at("round", 2, "phase", phase.name, "client", place)
    site = SiteContext(Blocks(), place, {}, seeds)  # type: ignore[arg-type]
    return protect(order, site, Work(new, examples, dict(METRICS), steps=9))


def local(**spec: Any) -> Phase:
    values = {"unit": "client", "trust": "local", "rng": "seeded", **spec}
    return Phase("train", privacy=PrivacySpec(**values))


def shifted(arrays: Named, by: float) -> Named:
    return {name: values + by for name, values in arrays.items()}


def test_a_reply_is_that_of_numpy() -> None:
    old = received()
    new = shifted(old, 0.4)
    work = protected(local(clip=0.5, noise=2.0), old, new)
    flat = np.concatenate([(new[k] - old[k]).reshape(-1) for k in old])
    rng = noise_generator("seeded", Seeds(5).at("round", 2, "phase", "train", "client", 3))
    wanted = flat * (0.5 / np.linalg.norm(flat)) + rng.normal(0.0, 1.0, flat.size)
    found = np.concatenate([(work.arrays[k] - old[k]).reshape(-1) for k in old])
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    assert (work.num_examples, work.metrics, work.steps) == (1, {}, 0)
    (applied,) = work.applied
    assert (applied.unit, applied.clip, applied.noise_std) == ("client", 0.5, 1.0)
    assert (applied.noise_multiplier, applied.sample_rate, applied.steps) == (2.0, 0.0, 1)
    assert "protects nobody" in applied.rng


@pytest.mark.parametrize("clips", [{}, {"enc": 0.2, "head": 5.0}])
def test_noise_at_the_site_is_as_large_as_is_told(clips: dict[str, float]) -> None:
    old, z = received(60_000), 1.7
    work = protected(local(rng="os", clip=0.5, clips=clips, noise=z), old, old)
    for name, values in old.items():
        noise = (work.arrays[name] - values).reshape(-1)
        deviation = z * clips.get(name.split(".")[0], 0.5)
        low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], noise.size)
        assert noise.size >= 100_000
        assert low < np.square(noise / deviation).sum() < high
    (applied,) = work.applied
    count = max(1, len(clips))
    assert applied.noise_multiplier == pytest.approx(z / math.sqrt(count))
    assert applied.clip == pytest.approx(math.hypot(*clips.values()) if clips else 0.5)
    assert applied.noise_std == pytest.approx(applied.noise_multiplier * applied.clip)
    assert applied.rng == "os:chacha20"


def test_what_a_site_says_is_what_the_server_asks_for() -> None:
    old = received()
    for clips in (
        {},
        {
            "enc": 0.2,
            "head": 5.0,
        },
    ):
        phase = local(noise=1.3, clip=0.7, clips=clips)
        (told,) = protected(phase, old, shifted(old, 1.0)).applied
        (asked,) = protections_of(phase, Site(3, "site-3", 37, {}))
        assert told.clip == asked.clip
        assert told.noise_multiplier == asked.noise_multiplier
        assert replace(told, noise_std=0.0, rng="") == asked


def test_no_update_is_longer_than_the_clip_however_far_training_went() -> None:
    old = received()
    clip, tiny = 0.5, 1e-9
    for by in (1e-3, 1.0, 1e30, 1e200):
        work = protected(local(clip=clip, noise=tiny), old, shifted(old, by))
        moved = np.concatenate([(work.arrays[k] - old[k]).reshape(-1) for k in old])
        assert np.linalg.norm(moved) <= clip + 1e-7


def test_an_update_that_is_not_finite_does_not_leave_the_site() -> None:
    old = received()
    with pytest.raises(AdmissionError, match=r"phase 'train': .*did training diverge"):
        protected(local(), old, shifted(old, np.nan))


def test_arrays_keep_their_type_and_whole_numbers_are_refused() -> None:
    old = received(dtype=np.float32)
    work = protected(local(), old, shifted(old, np.float32(0.5)))
    assert {v.dtype for v in work.arrays.values()} == {np.dtype(np.float32)}
    counts = {**received(), "head.steps": np.arange(3)}
    with pytest.raises(ConfigError, match=r"'head.steps' is int64"):
        protected(local(), counts, counts)


def test_what_was_not_received_has_no_update() -> None:
    old = received()
    order = Order("run", 2, local(), {"enc.w": old["enc.w"]}, tuple(old))
    site = SiteContext(Blocks(), 3, {}, Seeds(5))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"trains head\.w but does not send them"):
        protect(order, site, Work(old, 37, {}))


SPECS: dict[str, dict[str, Any]] = {
    "record": {"unit": "record"},
    "user": {"unit": "user", "contributions": 3},
    "central": {"unit": "client"},
    "distributed": {"unit": "client", "trust": "distributed"},
    "local": {"unit": "client", "trust": "local"},
}


@pytest.mark.parametrize("kind", SPECS)
def test_metrics_stay_at_the_site_unless_they_are_released(kind: str) -> None:
    old = received()
    for policy, wanted in (("withhold", {}), ("release", METRICS)):
        spec = PrivacySpec(**SPECS[kind], metrics=policy)
        within = Phase("p", inner=(Phase("a", privacy=spec), Phase("b", privacy=spec)))
        for phase in [Phase("p", privacy=spec)] + [within] * (kind != "local"):
            work = protected(phase, old, old)
            assert work.metrics == wanted
            # Sizes are public where the server is told rows, or trusted with clients.
            assert work.num_examples == (1 if kind == "local" else 37)
            if kind != "local":
                assert work.arrays is old


def test_of_stages_one_that_withholds_is_enough() -> None:
    stages = (
        Phase("a", privacy=PrivacySpec(unit="record", metrics="release")),
        Phase("b", privacy=PrivacySpec(unit="record")),
    )
    old = received()
    assert protected(Phase("p", inner=stages), old, old).metrics == {}


def test_work_without_privacy_is_left_as_it_is() -> None:
    old = received()
    new = shifted(old, 1.0)
    work = protected(Phase("train"), old, new)
    assert work == Work(new, 37, METRICS, steps=9)


def run(folder: Path, strategy: Any, **spec: Any) -> tuple[Snapshot, list[dict[str, Any]]]:
    phases = settings()["phases"]
    phases["train"]["privacy"] = {"unit": "client", "trust": "local", "rng": "seeded", **spec}
    _, snapshot = federate(LeastSquares(), folder, phases=phases, strategy=strategy, seed=3)
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return snapshot, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "target",
    [
        "fedalt.server.strategies.blockwise.Blockwise",
        "flwr.serverapp.strategy.FedAvg",
        "flwr.serverapp.strategy.FedMedian",
    ],
)
def test_any_strategy_takes_replies_that_sites_noised(target: str, tmp_path: Path) -> None:
    clip, z = 0.05, 0.5
    snapshot, told = run(tmp_path / "run", {"_target_": target}, clip=clip, noise=z)
    assert not [event for event in told if event["event"] == "refused"]
    task, combine = LeastSquares(), np.median if target.endswith("FedMedian") else np.mean
    model = np.append(np.full(3, 0.5), 0.0)
    for number in (1, 2, 3):
        answers = []
        for site, (x, y) in enumerate(zip(task.x, task.y, strict=True)):
            residual = x @ model[:3] + model[3] - y
            step = -0.1 * np.append(x.T @ residual, residual.sum()) / len(y)
            place = Seeds(3).at("round", number, "phase", "train", "client", site)
            noise = noise_generator("seeded", place).normal(0.0, z * clip, 4)
            answers.append(model + step * min(1.0, clip / np.linalg.norm(step)) + noise)
        # Sites weigh alike: how much each holds is not told.
        model = combine(answers, axis=0)
    found = np.append(snapshot.model["weight"][0], snapshot.model["bias"])
    np.testing.assert_allclose(found, model, atol=1e-12)
    metrics = snapshot.facts["history"]["rounds"][-1]
    assert not [key for key in metrics if key.startswith("train/")]


def test_the_ledger_holds_what_sites_did(tmp_path: Path) -> None:
    run(tmp_path / "run", settings()["strategy"], clips={"slope": 0.1, "offset": 0.2}, noise=3.0)
    (ledger,) = (tmp_path / "run").glob("*ledger*.jsonl")
    entries = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    done = [entry["mechanism"] for entry in entries if entry.get("status") == "committed"]
    assert len(done) == 3
    for mechanism in done:
        assert mechanism["clip"] == pytest.approx(math.hypot(0.1, 0.2))
        assert mechanism["noise_multiplier"] == pytest.approx(3.0 / math.sqrt(2))
