"""Blocks that stay at the sites: what travels, what is kept, and what a resumed run finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import LeastSquares, Stop, federate, settings
from torch import nn

from fedalt.alternation import BlockMap, Phase
from fedalt.alternation.block import Block
from fedalt.alternation.local import local_arrays
from fedalt.alternation.site import Site
from fedalt.cli.preflight import check_run
from fedalt.errors import ConfigError, FedaltError, ScheduleError
from fedalt.runs.plan import estimate, preview_of
from fedalt.server.strategies.rules import rule
from fedalt.server.strategies.rules.base import Contribution, RuleContext
from fedalt.wire.plan import RoundPlan, decode_plan, encode_plan

LOCAL_BIAS = {
    "train": {
        "kernel": "gradient",
        "epochs": 1,
        "batch_size": 10_000,
        "train": ["slope", "offset"],
        "aggregate": {"offset": "local"},
        "params": {"lr": 0.1},
    }
}


def local_bias_by_hand(task: LeastSquares, rounds: int) -> tuple[np.ndarray, list[float]]:
    """FedAvg on the slope, each site with an offset of its own, as a plain numpy loop."""
    slope, offsets = np.full(task.features, 0.5), [0.0] * len(task.x)
    for _ in range(rounds):
        new = np.zeros(task.features)
        for k, (x, y) in enumerate(zip(task.x, task.y, strict=True)):
            error = x @ slope + offsets[k] - y
            new += len(y) / sum(task.sizes) * (slope - 0.1 * x.T @ error / len(y))
            offsets[k] -= 0.1 * error.mean()
        slope = new
    return slope, offsets


@pytest.mark.parametrize("strategy", ["blockwise", "fedavg"])
def test_a_local_block_is_each_sites_own(tmp_path: Path, strategy: str) -> None:
    task, other = LeastSquares(), {"_target_": "flwr.serverapp.strategy.FedAvg"}
    changes: dict[str, Any] = {"strategy": other} if strategy == "fedavg" else {}
    _, snapshot = federate(task, tmp_path, phases=LOCAL_BIAS, rounds=4, **changes)
    slope, offsets = local_bias_by_hand(task, 4)
    np.testing.assert_allclose(snapshot.model["weight"][0], slope, rtol=1e-12)
    for site, offset in enumerate(offsets):
        kept = snapshot.clients[site]["local/bias"]
        np.testing.assert_allclose(kept, [offset], rtol=1e-12)
    assert snapshot.model["bias"] == 0.0


def test_clients_judge_the_model_with_their_own_block(tmp_path: Path) -> None:
    task = LeastSquares()
    evaluate = {"clients_every": 3, "server_every": 0, "each": False}
    result, _ = federate(task, tmp_path, phases=LOCAL_BIAS, evaluate=evaluate)
    slope, offsets = local_bias_by_hand(task, 3)
    losses = [
        np.square(x @ slope + offset - y).sum() / 2
        for x, y, offset in zip(task.x, task.y, offsets, strict=True)
    ]
    assert result["metrics"]["clients/loss"] == pytest.approx(sum(losses) / sum(task.sizes))


def test_a_resumed_run_finds_what_each_site_kept(tmp_path: Path) -> None:
    task = LeastSquares()
    straight, end = federate(task, tmp_path / "a", phases=LOCAL_BIAS, rounds=4)
    with pytest.raises(Stop):
        federate(task, tmp_path / "b", stop_at=2, phases=LOCAL_BIAS, rounds=4)
    resumed, same_end = federate(task, tmp_path / "b", phases=LOCAL_BIAS, rounds=4)
    assert resumed["weights_sha256"] == straight["weights_sha256"]
    for site, state in end.clients.items():
        assert same_end.clients[site]["local/bias"].tobytes() == state["local/bias"].tobytes()


def test_a_local_block_costs_no_bytes(tmp_path: Path) -> None:
    task = LeastSquares()
    result, _ = federate(task, tmp_path, phases=LOCAL_BIAS, rounds=2)
    assert result["bytes_up"] == result["bytes_down"] == 2 * 7 * 3 * 8
    config = settings(phases=LOCAL_BIAS, rounds=2, seed=0, task={})
    costs = estimate(*preview_of(config, lambda spec: task))  # type: ignore[arg-type]
    assert costs.phases[0].bytes_up == costs.phases[0].bytes_down == 2 * 7 * 3 * 8


def test_what_is_kept_travels_with_the_plan() -> None:
    plan = RoundPlan("run", 3, 7, Phase("p"), ("a", "b"), ("c",))
    read = decode_plan(encode_plan(plan))
    assert replace(read, extension=b"") == plan
    assert read.keeps == ("c",)


BLOCKS = BlockMap.of(("a", "b"), [Block("left", ("a",)), Block("right", ("b",))])


def test_a_block_is_local_everywhere_or_nowhere() -> None:
    one = Phase("one", train=("left", "right"), aggregate={"right": "local"})
    assert local_arrays([one], BLOCKS) == {"b"}
    with pytest.raises(ScheduleError, match=r"phase 'two' trains 'b'.*phase 'one'.*is local"):
        local_arrays([one, Phase("two")], BLOCKS)
    inner = Phase("in", train=("right",))
    assert local_arrays([replace(one, inner=(inner,))], BLOCKS) == {"b"}


def test_a_site_trains_what_it_keeps_once_a_round(tmp_path: Path) -> None:
    one, two = (
        {**LOCAL_BIAS["train"], "clients": {"where": {"modality": m}}} for m in ("ct", "mr")
    )
    fork = {"fork": {"u": "one", "v": "two"}}
    apart, own = LeastSquares(), {"one": one, "two": two}
    _, end = federate(apart, tmp_path / "apart", phases=own, schedule=fork)
    assert sorted(end.clients) == list(range(7))
    with pytest.raises(
        ScheduleError, match=r"'one@u' and 'two@v' both train 'bias' at site 'client-0'"
    ):
        federate(apart, tmp_path / "shared", phases={"one": one, "two": one}, schedule=fork)


def test_a_kernel_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    phases = {"train": {**LOCAL_BIAS["train"], "kernel": "evaluate", "params": {}}}
    with pytest.raises(FedaltError, match=r"'evaluate' keeps no blocks at the site, but bias"):
        federate(LeastSquares(), tmp_path, phases=phases)


class Deeper(LeastSquares):
    """The same with a layer that is local, in single precision, for every execution mode."""

    def __init__(self) -> None:
        super().__init__(clients=4, seed=1)
        self.blocks = [Block("first", ("0/*",)), Block("last", ("2/*",))]

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.features, 4), nn.Tanh(), nn.Linear(4, 1))

    def initial_arrays(self, seeds: Any) -> dict[str, np.ndarray]:
        rng = seeds.numpy()
        return {
            name: rng.normal(0.0, 0.5, tuple(value.shape)).astype(np.float32)
            for name, value in self.model().state_dict().items()
        }

    def site_data(self, site: int) -> tuple[torch.Tensor, ...]:
        return tuple(part.float() for part in super().site_data(site))

    def evaluate(self, arrays: Any) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("mode", ["batched", "compiled"])
def test_fast_modes_keep_what_the_reference_keeps(tmp_path: Path, mode: str) -> None:
    phases = {
        "train": {
            "train": ["first", "last"],
            "aggregate": {"last": "local"},
            "epochs": 2,
            "batch_size": 5,
            "params": {"lr": 0.05},
        }
    }
    engine = settings()["engine"]
    ends = [
        federate(Deeper(), tmp_path / name, phases=phases, engine={**engine, "mode": name})[1]
        for name in ("sequential", mode)
    ]
    for site in range(4):
        for name in ("local/2.weight", "local/2.bias"):
            kept = [end.clients[site][name] for end in ends]
            assert kept[0].dtype == kept[1].dtype == np.float32
            np.testing.assert_allclose(kept[1], kept[0], atol=1e-5)
    differ = ends[0].clients[0]["local/2.weight"] - ends[0].clients[1]["local/2.weight"]
    assert np.abs(differ).max() > 1e-3


def balanced_mean(attributes: list[dict[str, str]], weights: list[float]) -> float:
    sites = [Site(i, f"site-{i}", 1, a) for i, a in enumerate(attributes)]
    current = {"x": np.zeros(1)}
    ctx = RuleContext(1, Phase("p"), current, sites, {})
    given = [Contribution(i, w, {"x": np.array([float(i)])}) for i, w in enumerate(weights)]
    return float(rule("balanced:modality")(ctx, given).arrays["x"][0])


def test_groups_of_sites_weigh_alike() -> None:
    ct, mr = {"modality": "ct"}, {"modality": "mr"}
    found = balanced_mean([ct, ct, ct, mr], [1.0, 2.0, 1.0, 1.0])
    assert found == pytest.approx(((0 + 2 * 1 + 2) / 4 + 3) / 2)
    # Of groups alone, those that replied count.
    assert balanced_mean([ct, ct], [1.0, 3.0]) == pytest.approx(0.75)


def test_a_site_of_no_group_is_named() -> None:
    with pytest.raises(ConfigError, match=r"site 'site-1' has no attribute 'modality'"):
        balanced_mean([{"modality": "ct"}, {"tag": "b"}], [1.0, 1.0])


def test_a_site_of_no_group_is_found_before_a_run() -> None:
    grouped = {"train": ["slope"], "aggregate": {"slope": "balanced:vendor"}}
    config = settings(phases={"train": grouped}, task={}, seed=0)
    with pytest.raises(ConfigError, match=r"phase 'train': rule .*'client-0' has no attribute"):
        check_run(config, lambda spec: LeastSquares())  # type: ignore[arg-type]
