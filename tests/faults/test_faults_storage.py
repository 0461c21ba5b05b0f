"""Storage that fails: full, read-only, damaged or shared; and processes that are ended."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, federate, settings

from fedalt.errors import CheckpointError, ConfigError
from fedalt.runs import files
from fedalt.runs.checkpoint import Snapshot, newest_checkpoint, write_checkpoint
from fedalt.runs.events import EventLog, read_events
from fedalt.runs.folder import RunFolder, list_runs
from fedalt.runs.simulate import simulate

ROUNDS = 5


def resume(folder: Path, **changes: Any) -> dict[str, Any]:
    run, task = RunFolder(folder), LeastSquares()
    return simulate({**run.config(), **changes}, run, lambda spec: task)  # type: ignore[arg-type]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A disk on which no file whose name holds a word of the list can be flushed."""
    words: list[str] = []
    flush = os.fsync

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").resolve().name
        if any(word in name for word in words):
            raise OSError(28, "No space left on device")
        flush(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    yield words
    words.clear()


@pytest.mark.parametrize("words", [["round-000003"], ["events"], ["round-000003", "status"]])
def test_a_full_disk_ends_the_run_and_loses_nothing(
    words: list[str], full_disk: list[str], tmp_path: Path
) -> None:
    expected, _ = federate(LeastSquares(), tmp_path / "whole", rounds=ROUNDS)

    def fill(event: Any) -> None:
        if event["event"] == "planned" and event["round"] == 3:
            full_disk.extend(words)

    run, task = RunFolder(tmp_path / "run"), LeastSquares()
    run.create(settings(rounds=ROUNDS))
    with pytest.raises((CheckpointError, OSError), match="No space left") as caught:
        simulate(run.config(), run, lambda spec: task, [fill])  # type: ignore[arg-type]
    if words != ["events"]:
        assert "round 3 cannot be committed" in str(caught.value)
        assert "fedalt runs resume" in str(caught.value)
    assert run.status()["state"] == ("interrupted" if "status" in words else "failed")
    assert run.result() is None
    snapshot, notes = newest_checkpoint(run.checkpoints)
    assert snapshot is not None and snapshot.round == 2 and not notes
    full_disk.clear()
    assert resume(run.path)["weights_sha256"] == expected["weights_sha256"]
    told = [e["round"] for e in read_events(run.events) if e["event"] == "round"]
    assert told == list(range(1, ROUNDS + 1))
    assert not list(run.path.rglob("*.tmp"))


def test_a_full_disk_leaves_no_open_file(full_disk: list[str], tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    full_disk.append("events")
    with pytest.raises(OSError, match="No space"):
        log.close()
    assert log._file.closed


def test_a_lost_event_log_is_not_filled_with_zeros(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "run", rounds=2)
    (tmp_path / "run" / "events.jsonl").unlink()
    resume(tmp_path / "run", rounds=4)
    told = [
        e["round"] for e in read_events(tmp_path / "run" / "events.jsonl") if e["event"] == "round"
    ]
    assert told == [3, 4]


def test_leftovers_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "run", rounds=1)
    leftover = tmp_path / "run" / "checkpoints" / ".round-000002.safetensors.999.tmp"
    leftover.write_bytes(b"half")
    resume(tmp_path / "run", rounds=2)
    assert not leftover.exists()


def test_a_run_is_not_made_over_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(settings())
    with pytest.raises(ConfigError, match=r"already holds a run.*runs resume"):
        run.create(settings(rounds=7))
    assert run.config()["rounds"] == 3


def test_a_read_only_folder_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: Any, **settings: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\).*out=…"):
        RunFolder(tmp_path / "run").create(settings())


def test_a_read_only_run_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(settings())
    run.set_status("running")
    opened = Path.open

    def read_only(self: Path, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        if set(mode) & set("wax+"):
            raise OSError(30, "Read-only file system", str(self))
        return opened(self, mode, *arguments, **settings)

    monkeypatch.setattr(Path, "open", read_only)
    assert run.status()["state"] == "interrupted"


def test_status_of_a_live_a_dead_and_a_finished_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.status() == {"state": "new"}
    run.create(settings())
    with run.lock():
        run.set_status("running")
        assert run.status()["state"] == "running"
        assert run.status()["state"] == "running", "looking does not take the lock"
    assert run.status()["state"] == "interrupted"
    run.write_result({"round": 3})
    assert run.status()["state"] == "finished", "it died between its last two files"


def test_looking_at_a_run_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    import fcntl
    import threading

    run = RunFolder(tmp_path / "run")
    run.create(settings())
    with (run.path / ".lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with run.lock():
            pass


def test_runs_are_listed_oldest_first_and_by_name_within_a_moment(tmp_path: Path) -> None:
    for name, when in (("c", 5), ("b", 9), ("a", 9), ("d", 1)):
        RunFolder(tmp_path / name).create(settings())
        os.utime(tmp_path / name / "config.json", (when, when))
    (tmp_path / "no-run").mkdir()
    assert [run.name for run in list_runs(tmp_path)] == ["d", "c", "a", "b"]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_later_checkpoints_do_not_push_out_sound_ones(tmp_path: Path, keep: int) -> None:
    """A run that fell back commits earlier rounds than the damaged files lie at."""
    for number in (4, 5, 6):
        write_checkpoint(tmp_path, Snapshot(number, {"w": np.ones(2)}), keep)
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    write_checkpoint(tmp_path, Snapshot(3, {"w": np.ones(2)}), keep)
    found, notes = newest_checkpoint(tmp_path)
    assert found is not None and found.round == 3 and not notes


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from federations import LeastSquares, federate
task = LeastSquares()
judge = task.evaluate
def slowly(arrays):
    print("round", flush=True)
    time.sleep(0.2)
    return judge(arrays)
task.evaluate = slowly
federate(task, Path(sys.argv[2]), rounds=500)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    here = str(Path(__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, here, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == "round\n"
    return child


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_is_gone_soon_and_is_not_finished(
    sign: signal.Signals, tmp_path: Path
) -> None:
    with start(tmp_path / "run") as child:
        run = RunFolder(tmp_path / "run")
        assert run.status()["state"] == "running"
        with pytest.raises(CheckpointError, match="in use by another process"), run.lock():
            pass
        begun = time.monotonic()
        child.send_signal(sign)
        code = child.wait(10)
    assert code != 0 and time.monotonic() - begun < 10
    assert run.status()["state"] in ("interrupted", "stopped") and run.result() is None
    with run.lock():
        pass
    # It stood at round 3 or a little later.
    done = resume(run.path, rounds=60)
    whole, _ = federate(LeastSquares(), tmp_path / "whole", rounds=60)
    assert done["weights_sha256"] == whole["weights_sha256"]


def test_two_processes_run_side_by_side(tmp_path: Path) -> None:
    config = json.dumps({"rounds": ROUNDS})
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from federations import LeastSquares, federate\n"
        "federate(LeastSquares(), Path(sys.argv[2]), **json.loads(sys.argv[3]))"
    )
    here = str(Path(__file__).parents[1])
    places = [tmp_path / "one", tmp_path / "two"]
    children = [
        subprocess.Popen([sys.executable, "-c", code, here, str(place), config]) for place in places
    ]
    assert [child.wait(120) for child in children] == [0, 0]
    expected, _ = federate(LeastSquares(), tmp_path / "alone", rounds=ROUNDS)
    hashes = {(RunFolder(place).result() or {})["weights_sha256"] for place in places}
    assert hashes == {expected["weights_sha256"]}


def test_two_hundred_rounds_do_not_grow(tmp_path: Path) -> None:
    """Memory after 200 rounds is that after 40, within 5 %, and few objects stay a round."""
    resident: dict[int, int] = {}
    objects: dict[int, int] = {}

    def measure(event: Any) -> None:
        if event["event"] == "committed" and event["round"] in (40, 200):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[event["round"]] = pages * resource.getpagesize()
            objects[event["round"]] = len(gc.get_objects())

    run, task = RunFolder(tmp_path / "run"), LeastSquares()
    run.create(settings(rounds=200))
    handles = len(list(Path("/proc/self/fd").iterdir()))
    simulate(run.config(), run, lambda spec: task, [measure])  # type: ignore[arg-type]
    assert resident[200] < 1.05 * resident[40]
    assert objects[200] - objects[40] < 5 * 160
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles
