"""A commit writes what changed, and what it needs of earlier ones is vouched for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate

from fedalt.errors import CheckpointError
from fedalt.grids.store import StateStore
from fedalt.runs import checkpoint
from fedalt.runs.checkpoint import Snapshot, newest_checkpoint, read_checkpoint, write_checkpoint
from fedalt.runs.commit import Committer
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate

KEEP = 2


def dual(site: int, version: int) -> dict[str, np.ndarray]:
    return {"dual": np.random.default_rng([site, version]).standard_normal(500)}


class Run:
    """Commits of a federation in which a few sites a round change their state."""

    def __init__(self, folder: Path, sites: int) -> None:
        self.folder, self.store = folder, StateStore(folder)
        self.committer = Committer(folder, KEEP)
        self.wanted = {site: dual(site, 0) for site in range(sites)}
        for site, arrays in self.wanted.items():
            self.store.put(site, dict(arrays))

    def commit(self, number: int, changed: tuple[int, ...] = ()) -> int:
        """Commit a round and return the bytes of the files that it wrote, the journal's gain in."""
        before = self.files()
        for site in changed:
            self.wanted[site] = dual(site, number)
            self.store.put(site, dict(self.wanted[site]))
        segments = self.store.save()
        assert segments is not None
        model = {"w": np.full(4, float(number))}
        grown = {
            "history": {"rounds": [{"loss": float(number)}]},
            "ledger": {"touches": {"all": {str(site): 1 for site in changed}}},
        }
        facts = {"model_order": ["w"]}
        self.committer.commit(Snapshot(number, model, facts=facts, segments=segments), grown)
        return sum(size - before.get(name, 0) for name, size in self.files().items()
                   if size != before.get(name))  # fmt: skip

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.folder.iterdir()}


def check(found: Snapshot, run: Run) -> None:
    assert set(found.clients) == set(run.wanted)
    for site, arrays in run.wanted.items():
        np.testing.assert_array_equal(found.clients[site]["dual"], arrays["dual"])


def test_a_commit_does_not_grow_with_those_untouched_since(tmp_path: Path) -> None:
    written = {}
    for sites in (20, 2000):
        run = Run(tmp_path / str(sites), sites)
        run.commit(1)
        # Eight commits: once in so many, small segments are written together.
        written[sites] = [run.commit(number, (1, 2, 3)) for number in range(2, 10)]
        check(read_checkpoint(run.folder / "round-000009.safetensors"), run)
    assert sum(written[2000]) < 1.3 * sum(written[20])
    assert max(written[2000]) < 2000 * 500 * 8 / 20


def test_a_commit_does_not_grow_with_the_rounds_before(tmp_path: Path) -> None:
    run = Run(tmp_path, 0)
    sizes = [run.commit(number) for number in range(1, 200)]
    # The numbers of the rounds and of the journal's bytes gain digits.
    assert max(sizes[100:]) <= max(sizes[:20]) + 40


def test_history_and_ledger_come_back_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, 3)
    for number in range(1, 6):
        run.commit(number, (0, number % 3))
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    losses = [entry["loss"] for entry in found.facts["history"]["rounds"]]
    assert losses == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert found.facts["ledger"]["touches"]["all"] == {"0": 5, "1": 2, "2": 2}


def test_a_run_that_fell_back_overwrites_the_journal_from_there(tmp_path: Path) -> None:
    run = Run(tmp_path, 2)
    for number in (1, 2, 3):
        run.commit(number, (0,))
    before = read_checkpoint(tmp_path / "round-000002.safetensors")
    again = Run(tmp_path, 0)
    again.committer = Committer(tmp_path, KEEP, before)
    again.store.replace(before.clients)
    again.commit(3, (1,))
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None and found.round == 3
    assert [e["loss"] for e in found.facts["history"]["rounds"]] == [1.0, 2.0, 3.0]
    assert found.facts["ledger"]["touches"]["all"] == {"0": 2, "1": 1}


@pytest.mark.parametrize("damage", ["newest segment", "journal's end", "checkpoint"])
def test_what_the_newest_alone_needs_costs_one_commit(damage: str, tmp_path: Path) -> None:
    run = Run(tmp_path, 5)
    for number in (1, 2, 3):
        run.commit(number, (number,))
    newest = {
        "newest segment": max(tmp_path.glob("states-*")),
        "journal's end": tmp_path / "journal.jsonl",
        "checkpoint": tmp_path / "round-000003.safetensors",
    }[damage]
    newest.write_bytes(newest.read_bytes()[:-4])
    found, notes = newest_checkpoint(tmp_path)
    assert found is not None and found.round == 2
    assert len(notes) == 1 and newest.name in notes[0] and "round-000003" in notes[0]


def test_a_segment_that_both_kept_commits_need_is_missed_by_both(tmp_path: Path) -> None:
    run = Run(tmp_path, 5)
    for number in (1, 2, 3):
        run.commit(number, (number,))
    min(tmp_path.glob("states-*")).unlink()
    found, notes = newest_checkpoint(tmp_path)
    assert found is None and len(notes) == 2


def test_segments_that_no_kept_commit_names_are_removed(tmp_path: Path) -> None:
    run = Run(tmp_path, 2)
    run.commit(1)
    orphan = tmp_path / "states-00000099-of-a-process-that-died.safetensors"
    orphan.write_bytes(b"half a segment")
    for number in range(2, 12):
        run.commit(number, (0, 1))
    assert not orphan.exists()
    # Every commit replaced both states: each of the two kept needs one segment.
    assert len(list(tmp_path.glob("states-*"))) == KEEP
    assert len(list(tmp_path.glob("round-*"))) == KEEP


def test_a_removed_state_stays_removed(tmp_path: Path) -> None:
    run = Run(tmp_path, 3)
    run.commit(1)
    run.store.put(1, {})
    del run.wanted[1]
    run.commit(2, (0,))
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None
    check(found, run)


def test_a_run_of_the_former_format_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Format 1 has everything in one file; the next commit continues its history and ledger."""
    persist = {
        "train": {
            "kernel": "gradient",
            "params": {"lr": 0.1, "momentum": 0.9, "optimizer_state": "persist"},
        }
    }
    whole, end = federate(LeastSquares(), tmp_path / "whole", rounds=5, phases=persist)
    federate(LeastSquares(), tmp_path / "run", rounds=3, phases=persist)
    place = tmp_path / "run" / "checkpoints"
    now = read_checkpoint(place / "round-000003.safetensors")
    clients = dict(now.clients)
    assert len(clients) == 7
    for path in place.iterdir():
        path.unlink()
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    write_checkpoint(place, Snapshot(3, now.model, {}, clients, now.strategies, now.facts))
    monkeypatch.undo()
    run, task = RunFolder(tmp_path / "run"), LeastSquares()

    def load(spec: Any) -> Any:
        return task

    result = simulate({**run.config(), "rounds": 5}, run, load)  # type: ignore[arg-type]
    assert result["weights_sha256"] == whole["weights_sha256"]
    found, notes = newest_checkpoint(place)
    assert found is not None and not notes and found.journal is not None
    assert found.facts["history"] == end.facts["history"]
    assert found.facts["ledger"] == end.facts["ledger"]


def test_an_unknown_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    path = write_checkpoint(tmp_path, Snapshot(1, {"w": np.ones(2)}))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 3, this version reads 1 and 2"):
        read_checkpoint(path)
