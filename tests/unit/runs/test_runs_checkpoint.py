"""Checkpoints are whole or absent, and a damaged one is passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.errors import CheckpointError
from fedalt.runs import files
from fedalt.runs.checkpoint import Snapshot, newest_checkpoint, read_checkpoint, write_checkpoint
from fedalt.runs.events import EventLog, read_events


def snapshot(number: int) -> Snapshot:
    rng = np.random.default_rng(number)
    model = {
        "z.last": rng.standard_normal((3, 2)).astype(np.float32),
        "a.first": rng.integers(0, 9, 4),
        "scalar": np.array(7, dtype=np.int64),
    }
    return Snapshot(
        round=number,
        model=model,
        bank={"left/right": {"w": rng.standard_normal(2)}},
        clients={0: {"optim|m": rng.standard_normal(3)}, 11: {"dual": rng.standard_normal(1)}},
        strategies={"train": {"m_t/w": rng.standard_normal(2)}},
        facts={"model_order": list(model), "history": [{"loss": 0.5}], "nested": {"a": [1, 2]}},
    )


def same(one: Snapshot, other: Snapshot) -> None:
    assert (one.round, one.facts) == (other.round, other.facts)
    assert list(one.model) == list(other.model)
    pairs = [
        ({"": dict(one.model)}, {"": dict(other.model)}),
        (one.bank, other.bank),
        (one.clients, other.clients),
        (one.strategies, other.strategies),
    ]
    for mine, theirs in pairs:
        assert set(mine) == set(theirs)
        for key in mine:
            assert set(mine[key]) == set(theirs[key])
            for name, values in mine[key].items():
                assert (values.dtype, values.shape) == (
                    theirs[key][name].dtype,
                    theirs[key][name].shape,
                )
                np.testing.assert_array_equal(values, theirs[key][name])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    same(read_checkpoint(write_checkpoint(tmp_path, snapshot(3))), snapshot(3))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10):
        write_checkpoint(tmp_path, snapshot(number), keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "round-000009.safetensors",
        "round-000010.safetensors",
    ]
    newest, notes = newest_checkpoint(tmp_path)
    assert newest is not None and newest.round == 10 and not notes


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, snapshot(1))
    path = write_checkpoint(tmp_path, snapshot(2))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
    path.write_bytes(
        {"truncate": bytes(data[:-10]), "flip": bytes(data), "empty": b"", "text": b"x" * 99}[
            damage
        ]
    )
    with pytest.raises(CheckpointError, match="round-000002"):
        read_checkpoint(path)
    newest, notes = newest_checkpoint(tmp_path)
    assert newest is not None and newest.round == 1
    assert len(notes) == 1 and "round-000002" in notes[0]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    missed = []
    for place in rng.choice(len(data), size=150, replace=False):
        altered = bytearray(data)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(altered))
        try:
            same(read_checkpoint(path), snapshot(1))
        except CheckpointError:
            continue
        except AssertionError:
            missed.append(int(place))
    assert not missed, f"bytes {missed} may be altered without notice"


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, snapshot(1))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, snapshot(2))
    assert [p.name for p in tmp_path.iterdir()] == ["round-000001.safetensors"]


def test_event_log_is_cut_back_to_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit("round", round=1)
    offset = log.sync()
    log.emit("round", round=2, metrics={"x": float("nan")})
    log.close()
    assert [e["round"] for e in read_events(path)] == [1, 2]
    again = EventLog(path, offset)
    again.emit("round", round=2, metrics={"x": 1.0})
    again.close()
    assert [e.get("metrics") for e in read_events(path)] == [None, {"x": 1.0}]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "round", "round": 1}\n{"event": "rou')
    assert len(read_events(path)) == 1
