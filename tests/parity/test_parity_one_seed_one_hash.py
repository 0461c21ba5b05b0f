"""One seed gives one hash of weights, ledger and metrics, however the work is carried."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from federations import BLOCKWISE, LeastSquares, federate
from flwr.app import Message

from fedalt.clients.app import SiteApp
from fedalt.grids.local import LocalGrid
from fedalt.runs import simulate as engine
from fedalt.seeds import Seeds
from fedalt.server.cohort import seeded_sampling

PHASES = {
    "train": {
        "kernel": "gradient",
        "batch_size": 4,
        "clients": {"mode": "fixed", "count": 6},
        "params": {"lr": 0.05, "momentum": 0.9, "optimizer_state": "persist"},
    }
}
OPT = {"eta": 0.05, "eta_l": 0.1, "tau": 1e-3}
STRATEGIES: dict[str, dict[str, Any]] = {
    "Blockwise": {},
    "FedAvg": {"fraction_train": 0.5},
    "FedAvgM": {"fraction_train": 0.5, "server_momentum": 0.7},
    "FedAdam": {"fraction_train": 0.5, **OPT},
    "FedYogi": {"fraction_train": 0.5, **OPT},
    "FedAdagrad": {"fraction_train": 0.5, **OPT},
    "FedProx": {"fraction_train": 0.5, "proximal_mu": 0.1},
    "FedMedian": {"fraction_train": 0.5},
    "FedTrimmedAvg": {"fraction_train": 0.9, "beta": 0.2},
    "QFedAvg": {"client_learning_rate": 0.05, "fraction_train": 0.5},
    "Krum": {"num_malicious_nodes": 1, "fraction_train": 0.9},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 2, "fraction_train": 0.9},
    "Bulyan": {"num_malicious_nodes": 0, "fraction_train": 0.9},
}


def changes(name: str, **more: Any) -> dict[str, Any]:
    strategy = BLOCKWISE
    if name != "Blockwise":
        target = {"_target_": f"flwr.serverapp.strategy.{name}", "fraction_evaluate": 0.0}
        strategy = {**target, **STRATEGIES[name]}
    phases = PHASES
    if name == "QFedAvg":
        params = {**PHASES["train"]["params"], "report_initial_loss": True}  # type: ignore[dict-item]
        phases = {"train": {**PHASES["train"], "params": params}}
    return {"phases": phases, "strategy": strategy, "seed": 11, **more}


def outcome(folder: Path, name: str = "FedAdam", **more: Any) -> str:
    """Everything a run says that must not depend on how it was carried, as text."""
    result, snapshot = federate(LeastSquares(), folder, **changes(name, **more))
    # What the engine chose may come with the times that it measured.
    kept = {k: v for k, v in result.items() if k not in ("seconds", "engine")}
    return json.dumps([kept, snapshot.facts["ledger"], snapshot.facts["history"]], sort_keys=True)


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_runs_of_one_seed_are_bit_identical(name: str, tmp_path: Path) -> None:
    random.seed(1)
    before = random.getstate()
    first = outcome(tmp_path / "first", name)
    assert random.getstate() == before, "the caller's random numbers are its own"
    random.seed(2)
    assert outcome(tmp_path / "second", name) == first
    assert outcome(tmp_path / "other", name, seed=12) != first


CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_parity_one_seed_one_hash import outcome
print(outcome(Path(sys.argv[3]) / "run", **{"name": sys.argv[4]}))
"""


def test_processes_with_other_string_hashes_agree(tmp_path: Path) -> None:
    here = Path(__file__).parent
    expected = outcome(tmp_path / "run", "Blockwise")
    for number in ("0", "4242"):
        place = tmp_path / number
        place.mkdir()
        arguments = ["-c", CHILD, str(here), str(here.parent), str(place), "Blockwise"]
        child = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        assert child.stdout.strip() == expected


@pytest.mark.parametrize("name", ["Blockwise", "FedAvgM", "QFedAvg", "MultiKrum"])
def test_arrival_order_does_not_matter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(tmp_path / "in-order", name)
    draws = random.Random(3)
    orders = []

    class Shuffling(LocalGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            replies = list(super().send_and_receive(messages, timeout=timeout))
            draws.shuffle(replies)
            orders.append([r.metadata.reply_to_message_id for r in replies])
            return replies

    monkeypatch.setattr(engine, "LocalGrid", Shuffling)
    assert outcome(tmp_path / "shuffled", name) == expected
    assert any(order != sorted(order) for order in orders)


def test_a_client_app_without_cohorts_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Alone(SiteApp):
        cohort = None  # type: ignore[assignment]

        def __call__(self, message: Message, context: Any) -> Message:
            calls.append(message.metadata.message_type)
            return super().__call__(message, context)

    expected = outcome(tmp_path / "cohort", evaluate={"clients_every": 1, "server_every": 1})
    load = engine._load
    monkeypatch.setattr(engine, "_load", lambda n: Alone if n == engine.CLIENT else load(n))
    # Nor with an engine that does not know its sites, so that the server asks each node.
    monkeypatch.setattr(LocalGrid, "describe", lambda self: None)
    single = outcome(tmp_path / "single", evaluate={"clients_every": 1, "server_every": 1})
    assert single == expected
    assert {"train", "query.describe"} <= set(calls)


def test_a_timeout_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    """With a timeout the engine sends one message at a time."""
    expected = outcome(tmp_path / "without")
    timed = {"name": "local", "device": "cpu", "timeout": 600.0}
    assert outcome(tmp_path / "with", engine=timed) == expected


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Threads share the generator that Flower's strategies draw from."""
    expected = {
        seed: outcome(tmp_path / f"alone-{seed}", "FedAvg", seed=seed, rounds=8) for seed in (1, 2)
    }
    found: dict[int, str] = {}

    def work(seed: int) -> None:
        found[seed] = outcome(tmp_path / f"both-{seed}", "FedAvg", seed=seed, rounds=8)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert found == expected


def test_draws_of_two_threads_do_not_mix() -> None:
    """The second waits while the first is between two draws."""
    both = threading.Barrier(2)
    found: dict[int, list[float]] = {}

    def draw(seed: int) -> None:
        both.wait(10)
        with seeded_sampling(Seeds(seed)):
            first = random.random()
            time.sleep(0.05)
            found[seed] = [first, random.random()]

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for seed, values in found.items():
        alone = random.Random(Seeds(seed).integer())
        assert values == [alone.random(), alone.random()]


@pytest.mark.parametrize("name", ["QFedAvg", "Krum", "Bulyan", "FedMedian", "FedProx"])
def test_a_stopped_run_taken_up_again_equals_one_that_was_not(name: str, tmp_path: Path) -> None:
    from fedalt.runs.folder import RunFolder

    whole, _ = federate(LeastSquares(), tmp_path / "whole", **changes(name, rounds=4))
    federate(LeastSquares(), tmp_path / "half", **changes(name, rounds=2))
    run, task = RunFolder(tmp_path / "half"), LeastSquares()
    resumed = engine.simulate({**run.config(), "rounds": 4}, run, lambda spec: task)  # type: ignore[arg-type]
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["metrics"] == whole["metrics"]
