"""Clients' states: kept within a limit, the least recently used on disk, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedalt.errors import CheckpointError
from fedalt.grids.store import StateStore
from fedalt.runs import states as layout
from fedalt.runs.segments import SegmentRef
from fedalt.runs.states import SegmentedStates

KB = 1024


def state(site: int, version: int = 0) -> dict[str, np.ndarray]:
    """A kilobyte and a bit of several types, different for each site and version."""
    rng = np.random.default_rng([site, version])
    return {
        "m": rng.standard_normal(128),
        "half": rng.standard_normal((2, 3)).astype(np.float16),
        "step": np.array(site, np.int64),
        "mask": rng.random(5) < 0.5,
        "empty": np.empty((0, 4), np.float32),
    }


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name, values in one.items():
        assert (values.dtype, values.shape) == (other[name].dtype, other[name].shape)
        assert values.tobytes() == other[name].tobytes()


def in_memory(store: StateStore) -> list[int]:
    return list(store._resident)


def test_past_the_limit_the_least_recently_used_leave_memory(tmp_path: Path) -> None:
    store = StateStore(tmp_path, limit=10 * KB)
    for site in range(8):
        store.put(site, state(site))
    store.trim()
    assert in_memory(store) == list(range(8)) and not list(tmp_path.iterdir())
    store.get(0)
    store.get(2)
    for site in (8, 9):
        store.put(site, state(site))
    store.trim()
    # 1 and 3 are the oldest now: 0 and 2 have been used since.
    assert in_memory(store)[:1] == [5] and in_memory(store)[-4:] == [0, 2, 8, 9]
    assert store.resident_bytes <= 10 * KB
    for site in range(10):
        same(store.get(site), state(site))
        store.trim()
        assert store.resident_bytes <= 10 * KB


def test_a_state_read_back_and_unchanged_is_not_written_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path, limit=2 * KB)
    for site in range(6):
        store.put(site, state(site))
        store.trim()
    store.save()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for site in range(6):
        store.get(site)
        store.trim()
    store.save()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_without_a_folder_nothing_leaves_memory() -> None:
    store = StateStore(limit=0)
    for site in range(5):
        store.put(site, state(site))
        store.trim()
    assert in_memory(store) == list(range(5)) and store.save() is None


def test_a_row_of_a_stack_does_not_keep_the_stack(tmp_path: Path) -> None:
    import torch

    stack, tensor = np.zeros((1000, 8)), torch.zeros(1000, 8)
    store = StateStore()
    store.put(0, {"a": stack[3], "b": tensor[3].numpy(), "c": np.ones(8).view()})
    assert all(values.base is None or values.base.nbytes == 64 for values in store.get(0).values())
    stack[:] = 1.0
    np.testing.assert_array_equal(store.get(0)["a"], 0.0)


def refs(store: StateStore) -> tuple[SegmentRef, ...]:
    found = store.save()
    assert found is not None
    return found


def test_any_course_of_changes_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain dict: changes, removals, commits, a limit, and small largest segments."""
    monkeypatch.setattr(layout, "LARGEST", 24 * KB)
    rng = np.random.default_rng(0)
    store, wanted = StateStore(tmp_path, limit=5 * KB), dict[int, dict[str, np.ndarray]]()
    for step in range(400):
        site = int(rng.integers(40))
        if rng.random() < 0.2:
            store.put(site, {})
            wanted.pop(site, None)
        else:
            wanted[site] = state(site, step)
            store.put(site, dict(wanted[site]))
        store.trim()
        probe = int(rng.integers(40))
        same(store.get(probe), wanted.get(probe, {}))
        if step % 25 == 24:
            assert store.sites() == sorted(wanted)
            known = refs(store)
            opened = SegmentedStates.open(tmp_path, known)
            assert list(opened) == sorted(wanted) and len(opened) == len(wanted)
            for key, arrays in wanted.items():
                same(opened[key], arrays)
            # As a commit does: what no checkpoint names goes.
            for path in tmp_path.iterdir():
                if path.name not in {ref.name for ref in known}:
                    path.unlink()
        if step == 250:
            store = StateStore(tmp_path, limit=5 * KB)
            store.replace(SegmentedStates.open(tmp_path, known))
            for key in set(wanted) | set(opened):
                if key not in wanted or not np.array_equal(
                    wanted[key]["m"], store.get(key).get("m", np.empty(0))
                ):
                    store.put(key, dict(wanted.get(key, {})))


def test_what_is_on_disk_stays_near_what_is_alive(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    rng, alive = np.random.default_rng(1), sum(v.nbytes for v in state(0).values()) * 100
    for _ in range(120):
        for site in rng.choice(100, 5, replace=False):
            store.put(int(site), state(int(site), int(rng.integers(99))))
        known = {ref.name for ref in refs(store)}
        for path in tmp_path.iterdir():
            if path.name not in known:
                path.unlink()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2.5 * alive
    assert len(known) <= 24


def test_what_a_long_round_spills_does_not_pile_up(tmp_path: Path) -> None:
    """Between two commits, segments that are out of date go at once."""
    store = StateStore(tmp_path, limit=3 * KB)
    for version in range(60):
        for site in range(4):
            store.put(site, state(site, version))
            store.trim()
    assert len(list(tmp_path.iterdir())) <= 6


def test_a_snapshot_of_another_folder_is_taken_over(tmp_path: Path) -> None:
    old = StateStore(tmp_path / "old")
    old.put(3, state(3))
    segments = SegmentedStates.open(tmp_path / "old", refs(old))
    for store in (StateStore(tmp_path / "new"), StateStore()):
        store.put(9, state(9))
        store.replace(segments)
        assert store.sites() == [3]
        same(store.get(3), state(3))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_segment_is_named(damage: str, tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.put(1, state(1))
    (ref,) = refs(store)
    path = tmp_path / ref.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if damage == "flip" else path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=ref.name):
        SegmentedStates.open(tmp_path, [ref])
