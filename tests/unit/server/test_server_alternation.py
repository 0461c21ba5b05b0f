"""Alternation through the loop: who trains which block, and what is left alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate

from fedalt.errors import QuorumError
from fedalt.runs.checkpoint import Snapshot, read_checkpoint
from fedalt.runs.events import read_events
from fedalt.seeds import Seeds

LR = 0.1
KERNEL = {"kernel": "gradient", "batch_size": 10_000, "params": {"lr": LR}}
SLOPE = {**KERNEL, "train": "slope"}
OFFSET = {**KERNEL, "train": "offset"}
KEEP_ALL = {"every": 1, "keep": 100}
START = LeastSquares().initial_arrays(Seeds(0))
Vector = np.ndarray


def rounds_of(folder: Path) -> list[Snapshot]:
    return [read_checkpoint(path) for path in sorted((folder / "checkpoints").glob("round-*"))]


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / "events.jsonl") if event["event"] == kind]


def step(task: LeastSquares, site: int, w: Vector) -> Vector:
    """One full-batch gradient step from w = (slope…, offset)."""
    x = np.column_stack([task.x[site], np.ones(len(task.x[site]))])
    return w - LR * x.T @ (x @ w - task.y[site]) / len(x)


def mean_step(task: LeastSquares, sites: range | list[int], w: Vector) -> Vector:
    share = np.array([task.sizes[site] for site in sites], dtype=float)
    return (share / share.sum()) @ np.stack([step(task, site, w) for site in sites])


def flat(model: dict[str, Vector]) -> Vector:
    return np.concatenate([model["weight"][0], model["bias"]])


def test_a_cycle_trains_one_block_after_the_other(tmp_path: Path) -> None:
    task = LeastSquares()
    federate(
        task,
        tmp_path / "run",
        rounds=4,
        phases={"slope": SLOPE, "offset": OFFSET},
        schedule={"cycle": ["slope", "offset"]},
        checkpoint=KEEP_ALL,
    )
    models = [snapshot.model for snapshot in rounds_of(tmp_path / "run")]
    w = flat(START)
    for number, (before, after) in enumerate(pairwise(models)):
        trained, kept = ("weight", "bias") if number % 2 == 0 else ("bias", "weight")
        assert before[kept].tobytes() == after[kept].tobytes()
        assert before[trained].tobytes() != after[trained].tobytes()
        full = mean_step(task, range(7), w)
        w = np.append(full[:3], w[3]) if trained == "weight" else np.append(w[:3], full[3])
        np.testing.assert_allclose(flat(after), w, rtol=1e-12)


def test_parallel_phases_aggregate_their_own_replies_only(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=1,
        phases={
            "ct": {**SLOPE, "clients": {"where": {"modality": "ct"}}},
            "mr": {**OFFSET, "clients": {"where": {"modality": "mr"}}},
        },
        schedule={"parallel": ["ct", "mr"]},
    )
    w = flat(START)
    ct, mr = mean_step(task, [0, 2, 4, 6], w), mean_step(task, [1, 3, 5], w)
    np.testing.assert_allclose(flat(snapshot.model), np.append(ct[:3], mr[3]), rtol=1e-12)
    (event,) = events_of(tmp_path / "run", "round")
    assert event["sites"] == {"ct": 4, "mr": 3}
    touches = snapshot.facts["ledger"]["touches"]
    assert {cell.split("|")[0]: sorted(sites) for cell, sites in touches.items()} == {
        "slope": ["0", "2", "4", "6"],
        "offset": ["1", "3", "5"],
    }


def test_fork_keeps_results_in_the_bank_and_leaves_the_model(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=1,
        phases={
            "ct": {**KERNEL, "clients": {"where": {"modality": "ct"}}},
            "mr": {**SLOPE, "clients": {"where": {"modality": "mr"}}},
        },
        schedule={"fork": {"left.a": "ct", "right%7C": "mr"}},
    )
    for name, values in START.items():
        assert snapshot.model[name].tobytes() == values.tobytes()
    assert set(snapshot.bank) == {"left.a", "right%7C"}, "names survive the checkpoint"
    w = flat(START)
    left = mean_step(task, [0, 2, 4, 6], w)
    np.testing.assert_allclose(flat(snapshot.bank["left.a"]), left, rtol=1e-12)
    right = np.append(mean_step(task, [1, 3, 5], w)[:3], 0.0)
    np.testing.assert_allclose(flat(snapshot.bank["right%7C"]), right, rtol=1e-12)


def test_a_local_nest_alternates_at_the_client(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=1,
        phases={"visit": KERNEL, "slope": SLOPE, "offset": OFFSET},
        schedule={
            "nest": {"outer": "visit", "inner": {"chain": ["slope", "offset"]}, "local": True}
        },
    )
    ends = []
    for site in range(7):
        half = np.append(step(task, site, flat(START))[:3], 0.0)
        ends.append(np.append(half[:3], step(task, site, half)[3]))
    share = np.array(task.sizes) / sum(task.sizes)
    np.testing.assert_allclose(flat(snapshot.model), share @ np.stack(ends), rtol=1e-12)


def adam(number: int, delta: Vector, m: Vector, v: Vector) -> tuple[Vector, Vector, Vector]:
    """Flower's FedAdam: the step, and both moments after it."""
    m, v = 0.9 * m + 0.1 * delta, 0.99 * v + 0.01 * delta**2
    rate = 0.05 * np.sqrt(1 - 0.99 ** (number + 1)) / (1 - 0.9 ** (number + 1))
    return rate * m / (np.sqrt(v) + 1e-3), m, v


def test_phases_keep_moments_of_their_own(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=6,
        phases={"slope": SLOPE, "offset": OFFSET},
        schedule={"cycle": ["slope", "offset"]},
        strategy={
            "_target_": "flwr.serverapp.strategy.FedAdam",
            "fraction_evaluate": 0.0,
            "eta": 0.05,
            "tau": 1e-3,
            "beta_1": 0.9,
            "beta_2": 0.99,
        },
    )
    w, moments = flat(START), {0: (np.zeros(3), np.zeros(3)), 1: (np.zeros(1), np.zeros(1))}
    for number in range(1, 7):
        odd = (number - 1) % 2
        part = slice(3, 4) if odd else slice(0, 3)
        delta = (mean_step(task, range(7), w) - w)[part]
        move, *after = adam(number, delta, *moments[odd])
        moments[odd] = (after[0], after[1])
        w = w.copy()
        w[part] += move
    np.testing.assert_allclose(flat(snapshot.model), w, rtol=1e-9)


def test_fedavgm_steps_from_the_model_that_other_phases_moved(tmp_path: Path) -> None:
    """Both phases train all arrays: each has its momentum, and the model's base is shared."""
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=6,
        phases={
            "ct": {**KERNEL, "clients": {"where": {"modality": "ct"}}},
            "mr": {**KERNEL, "clients": {"where": {"modality": "mr"}}},
        },
        schedule={"cycle": ["ct", "mr"]},
        strategy={
            "_target_": "flwr.serverapp.strategy.FedAvgM",
            "fraction_evaluate": 0.0,
            "server_momentum": 0.7,
        },
    )
    w, momentum = flat(START), [np.zeros(4), np.zeros(4)]
    for number in range(6):
        odd = number % 2
        change = w - mean_step(task, [1, 3, 5] if odd else [0, 2, 4, 6], w)
        momentum[odd] = 0.7 * momentum[odd] + change
        w = w - momentum[odd]
    np.testing.assert_allclose(flat(snapshot.model), w, rtol=1e-9)


def test_only_the_blocks_named_are_sent(tmp_path: Path) -> None:
    """The sites' own slope is what they were given last; here none, so it is their default."""
    both, _ = federate(LeastSquares(), tmp_path / "all", rounds=1, phases={"train": OFFSET})
    narrow = {**OFFSET, "send": ["slope", "offset"]}
    same, _ = federate(LeastSquares(), tmp_path / "two", rounds=1, phases={"train": narrow})
    assert same["weights_sha256"] == both["weights_sha256"]
    assert same["bytes_down"] == both["bytes_down"] == 7 * 4 * 8
    assert both["bytes_up"] == 7 * 8
    few = {**OFFSET, "send": "offset"}
    less, snapshot = federate(LeastSquares(), tmp_path / "one", rounds=1, phases={"train": few})
    assert less["bytes_down"] == 7 * 8
    assert snapshot.model["weight"].tobytes() == START["weight"].tobytes()


def test_an_empty_cohort_leaves_the_model_and_the_run_goes_on(tmp_path: Path) -> None:
    rare = {**KERNEL, "clients": {"mode": "poisson", "rate": 0.12}}
    federate(
        LeastSquares(), tmp_path / "run", rounds=12, phases={"train": rare}, checkpoint=KEEP_ALL
    )
    events, snapshots = events_of(tmp_path / "run", "round"), rounds_of(tmp_path / "run")
    empty = [event["round"] for event in events if not event["sites"]]
    assert 0 < len(empty) < 12, "the seed must draw both kinds"
    for number in range(1, 13):
        same = (
            flat(snapshots[number].model).tobytes() == flat(snapshots[number - 1].model).tobytes()
        )
        assert same == (number in empty)


def test_a_metric_ends_the_run(tmp_path: Path) -> None:
    result, snapshot = federate(
        LeastSquares(),
        tmp_path / "run",
        rounds=200,
        schedule={
            "until": {
                "of": {"repeat": {"of": "train"}},
                "stop": {"below": {"metric": "server/loss", "value": 0.5}},
            }
        },
    )
    losses = [entry["server/loss"] for entry in snapshot.facts["history"]["rounds"]]
    assert result["ended"] == "schedule" and result["round"] == len(losses) < 200
    assert losses[-1] < 0.5 <= min(losses[:-1])


def test_a_round_is_committed_once(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "run", rounds=3)
    assert [e["round"] for e in events_of(tmp_path / "run", "committed")] == [0, 1, 2, 3]


def test_a_cohort_too_small_for_the_strategy_is_an_error_not_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    one = {**KERNEL, "clients": {"mode": "fixed", "count": 1}}
    avg = {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_evaluate": 0.0}
    with pytest.raises(QuorumError, match="'train': the strategy waits for more than the 1"):
        federate(LeastSquares(), tmp_path / "run", phases={"train": one}, strategy=avg)


def test_the_quorum_counts_as_people_do() -> None:
    """0.55 · 100 is 55.00000000000001 in floating point, and 55 replies are enough."""
    from types import SimpleNamespace
    from typing import cast

    from fedalt.server.round import check_quorum

    def check(quorum: float, asked: int, admitted: int) -> None:
        part: Any = SimpleNamespace(
            messages=[None] * asked,
            phase=SimpleNamespace(name="p"),
            expected=SimpleNamespace(round=1),
        )
        some = [SimpleNamespace(site=i) for i in range(admitted)]
        check_quorum(cast(Any, SimpleNamespace(quorum=quorum)), part, cast(Any, some), [])

    check(0.55, 100, 55)
    check(0.07, 100, 7)
    check(0.01, 3, 1)
    for quorum, asked, admitted in ((0.55, 100, 54), (0.5, 3, 1), (0.01, 3, 0)):
        with pytest.raises(QuorumError):
            check(quorum, asked, admitted)


def test_a_branch_of_several_phases_keeps_the_result_of_each(tmp_path: Path) -> None:
    task = LeastSquares()
    _, snapshot = federate(
        task,
        tmp_path / "run",
        rounds=1,
        phases={"slope": SLOPE, "offset": OFFSET},
        schedule={"fork": {"x": {"parallel": ["slope", "offset"]}}},
    )
    everyone = mean_step(task, list(range(7)), flat(START))
    np.testing.assert_allclose(flat(snapshot.bank["x"]), everyone, rtol=1e-12)
