"""A run killed anywhere and resumed ends on the hash of one that was never killed.

The child process kills itself with SIGKILL at a named place; nothing in it can clean up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dying import die_at, resume
from federations import LeastSquares, federate, settings

from fedalt.config import Engine
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.events import read_events
from fedalt.runs.folder import RunFolder

ROUNDS = 6

# A run with every kind of state there is: sampled cohorts, random phases, optimiser moments
# that stay at the clients, adaptive moments at the server, and a bank of branches.
CONFIG: dict[str, Any] = {
    "rounds": ROUNDS,
    "seed": 3,
    "phases": {
        "slope": {
            "train": "slope",
            "batch_size": 4,
            "clients": {"mode": "fixed", "count": 4},
            "params": {"lr": 0.05, "momentum": 0.9, "optimizer_state": "persist"},
        },
        "offset": {
            "train": "offset",
            "batch_size": 8,
            "clients": {"mode": "poisson", "rate": 0.7},
            "params": {"optimizer": "adam", "lr": 0.01, "optimizer_state": "persist"},
        },
    },
    "schedule": {"choose": {"of": ["slope", "offset"], "weights": [0.6, 0.4]}},
    "strategy": {
        "_target_": "flwr.serverapp.strategy.FedAdam",
        "fraction_evaluate": 0.0,
        "min_train_nodes": 1,
        "min_available_nodes": 1,
        "beta_1": 0.9,
        "beta_2": 0.99,
    },
}

PLACES = [
    "planned",
    "dispatched",
    "client trains",
    "collected",
    "aggregated",
    "round",
    "committing",
    "in a segment",
    "in the journal",
    "during the write",
    "committed",
]

# Not one client's state fits: every state is written as soon as its client has worked.
TIGHT = {**vars(Engine()), "state_limit_mb": 1e-5}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result, snapshot = federate(LeastSquares(), tmp_path_factory.mktemp("whole") / "run", **CONFIG)
    return {**result, "ledger": snapshot.facts["ledger"]}


def die(folder: Path, place: str, number: int, **changes: Any) -> None:
    die_at(folder, place, number, settings(**CONFIG, **changes))


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_resumed_equals_uninterrupted(
    place: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    die(folder, place, 4)
    run = RunFolder(folder)
    assert run.status()["state"] == "interrupted"
    assert run.result() is None
    before, notes = newest_checkpoint(run.checkpoints)
    assert before is not None and before.round == (4 if place == "committed" else 3) and not notes
    result = resume(folder)
    assert result["weights_sha256"] == uninterrupted["weights_sha256"]
    assert result["metrics"] == uninterrupted["metrics"]
    after, _ = newest_checkpoint(run.checkpoints)
    assert after is not None and after.facts["ledger"] == uninterrupted["ledger"]
    told = [e["round"] for e in read_events(run.events) if e["event"] == "round"]
    assert told == list(range(1, ROUNDS + 1)), "every round is told once"
    assert not list(run.path.rglob("*.tmp")), "nothing half-written is left"


@pytest.mark.parametrize("place", ["client trains", "in a segment", "in the journal", "committed"])
def test_spilled_states_are_no_less_safe(
    place: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    """Commits two rounds apart, so that what is spilled between them belongs to none yet."""
    folder = tmp_path / "run"
    apart = {"engine": TIGHT, "checkpoint": {"every": 2, "keep": 2}}
    # Round 4 is a commit's; a client that trains in round 5 has round 4's states behind it.
    die(folder, place, 5 if place == "client trains" else 4, **apart)
    segments = len(list((folder / "checkpoints").glob("states-*")))
    assert segments, "states were spilled"
    result = resume(folder)
    assert result["weights_sha256"] == uninterrupted["weights_sha256"]
    assert result["metrics"] == uninterrupted["metrics"]
    found, notes = newest_checkpoint(folder / "checkpoints")
    assert found is not None and not notes and found.facts["ledger"] == uninterrupted["ledger"]
    named = {ref.name for ref in found.segments}
    there = {path.name for path in (folder / "checkpoints").glob("states-*")}
    assert named <= there, "what the last commit needs is there"
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("what", ["states-*", "journal.jsonl"])
def test_what_the_newest_commit_added_may_be_damaged(
    what: str, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    die(folder, "committed", 4)
    newest = max((folder / "checkpoints").glob(what))
    data = bytearray(newest.read_bytes())
    data[-9] ^= 16
    newest.write_bytes(bytes(data))
    assert resume(folder)["weights_sha256"] == uninterrupted["weights_sha256"]
    warnings = [e for e in read_events(folder / "events.jsonl") if e["event"] == "warning"]
    assert len(warnings) == 1 and newest.name in warnings[0]["text"]


def test_a_damaged_newest_checkpoint_costs_a_round_and_no_more(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    die(folder, "committed", 4)
    newest = sorted((folder / "checkpoints").glob("round-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-20])
    result = resume(folder)
    assert result["weights_sha256"] == uninterrupted["weights_sha256"]
    warnings = [e for e in read_events(folder / "events.jsonl") if e["event"] == "warning"]
    assert len(warnings) == 1 and newest.name in warnings[0]["text"]


def test_killed_twice(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    folder = tmp_path / "run"
    die(folder, "aggregated", 2)
    config = RunFolder(folder).config()
    (folder / "config.json").unlink()  # the child script makes it again
    assert config["rounds"] == ROUNDS
    die(folder, "collected", 5)
    assert resume(folder)["weights_sha256"] == uninterrupted["weights_sha256"]


def test_two_processes_cannot_hold_one_run(tmp_path: Path) -> None:
    from fedalt.errors import CheckpointError

    run = RunFolder(tmp_path / "run")
    run.create(settings(**CONFIG))
    with run.lock(), pytest.raises(CheckpointError, match="in use by another process"):
        resume(run.path)


def test_with_every_checkpoint_damaged_the_run_does_not_silently_begin_again(
    tmp_path: Path,
) -> None:
    from fedalt.errors import CheckpointError

    folder = tmp_path / "run"
    die(folder, "committed", 3)
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"cannot go on.*delete .*checkpoints to begin again"):
        resume(folder)
