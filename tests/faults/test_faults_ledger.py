"""A run killed between reserve and commit, and resumed, has spent what it reserved."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dying import die_at, resume
from federations import LeastSquares, federate, settings

from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Accountant
from fedalt.privacy.events import gaussian, sampled
from fedalt.privacy.private_ledger import check_holds
from fedalt.privacy.replay import check_stated, replay
from fedalt.runs.checkpoint import newest_checkpoint

ROUNDS, RATE, NOISE, DELTA = 5, 0.6, 1.5, 1e-5
KILLED = 3
SPEC = {"unit": "client", "clip": 0.2, "noise": NOISE, "rng": "seeded"}
CONFIG: dict[str, Any] = {
    "rounds": ROUNDS,
    "seed": 3,
    "phases": {
        "train": {
            "batch_size": 8,
            "clients": {"mode": "poisson", "rate": RATE},
            "params": {"lr": 0.05},
            "privacy": SPEC,
        }
    },
    "schedule": {"repeat": {"of": "train"}},
    "privacy": {
        "delta": DELTA, "relation": "add_remove", "budget": {}, "policy": "stop",
        "disjoint": "", "allow_unprotected": False,
    },
}  # fmt: skip

SPENT_TWICE = [
    "dispatched", "collected", "aggregated", "round", "in the ledger", "committing",
    "during the write",
]  # fmt: skip
SPENT_ONCE = ["committed"]
ALWAYS = ["dispatched", "in the ledger", "committed"]


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result, _ = federate(LeastSquares(), tmp_path_factory.mktemp("whole") / "run", **CONFIG)
    return result


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place in ALWAYS else [pytest.mark.slow])
        for place in (*SPENT_TWICE, *SPENT_ONCE)
    ],
)
def test_what_was_reserved_before_the_kill_is_spent(
    place: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    die_at(folder, place, KILLED, settings(**CONFIG))
    result = resume(folder)
    assert result["weights_sha256"] == uninterrupted["weights_sha256"]
    asked = Counter(e["round"] for e in entries(folder) if e["status"] == "reserved")
    assert asked == {**dict.fromkeys(range(1, ROUNDS + 1), 1), KILLED: 1 + (place in SPENT_TWICE)}
    spent = {sampled(RATE, gaussian(NOISE)): sum(asked.values())}
    wanted = Accountant().fast(spent, DELTA).epsilon
    assert result["metrics"]["privacy/client"] == pytest.approx(wanted)
    for entry, state in replay(folder / "ledger.jsonl"):
        check_stated(entry, state.spent())
    snapshot, _ = newest_checkpoint(folder / "checkpoints")
    assert snapshot is not None
    check_holds(folder / "ledger.jsonl", snapshot.facts["ledger_file"])


def test_the_ledger_of_a_run_is_in_its_commit(tmp_path: Path) -> None:
    result, snapshot = federate(LeastSquares(), tmp_path / "run", **CONFIG)
    last = entries(tmp_path / "run")[-1]
    assert result["ledger"] == snapshot.facts["ledger_file"]
    assert result["ledger"] == {"lines": last["number"] + 1, "sha256": last["sha256"]}


def test_a_budget_ends_a_run_with_the_model_it_has(tmp_path: Path) -> None:
    budget = {**CONFIG["privacy"], "budget": {"client": 5.0}}
    config = {**CONFIG, "rounds": 50, "privacy": budget, "checkpoint": {"every": 4, "keep": 2}}
    result, snapshot = federate(LeastSquares(), tmp_path / "run", **config)
    assert result["ended"] == "budget" and "above its budget of 5" in result["reason"]
    assert 1 < result["round"] == snapshot.round < 50
    ledger = list(replay(tmp_path / "run" / "ledger.jsonl"))[-1][1]
    assert ledger.account is not None
    spent = ledger.account.worst(Scope("client"), DELTA, tight=True).epsilon
    one_more = {sampled(RATE, gaussian(NOISE)): result["round"] + 1}
    assert spent <= 5.0 < Accountant().tight(one_more, DELTA).epsilon
    again = resume(tmp_path / "run")
    assert (again["ended"], again["round"]) == ("budget", result["round"])
    assert again["weights_sha256"] == result["weights_sha256"]
