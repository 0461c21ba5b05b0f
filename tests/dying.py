"""Runs that kill themselves with SIGKILL at a named place: nothing in them can clean up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federations import LeastSquares

from fedalt.runs.folder import RunFolder

CHILD = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from federations import LeastSquares, settings
from fedalt.runs import files
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import simulate

config, folder = json.loads(sys.argv[2]), RunFolder(Path(sys.argv[3]))
place, number = sys.argv[4], int(sys.argv[5])
task = LeastSquares()

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def hear(event):
    if event["event"] == place and event.get("round") == number:
        kill()

state = {"round": 0}
def follow(event):
    state["round"] = event.get("round", state["round"])

WRITES = {
    "in a segment": ".states-", "in the journal": "journal", "during the write": ".round-",
    "in the ledger": "ledger",
}
APPENDED = ("journal.jsonl", "ledger.jsonl")
if place in WRITES:
    # The file is cut short when the process dies; of the journal, only what was added.
    def half(handle):
        name = Path(f"/proc/self/fd/{handle}").resolve().name
        if state["round"] == number and name.startswith(WRITES[place]):
            size = os.fstat(handle).st_size
            os.ftruncate(handle, size - 9 if name in APPENDED else size // 2)
            kill()
        return original(handle)
    original, files.os.fsync = files.os.fsync, half
if place == "client trains":
    loss = task.loss
    calls = [0]
    def counted(model, batch):
        calls[0] += 1
        if state["round"] == number and calls[0] % 7 == 0:
            kill()
        return loss(model, batch)
    task.loss = counted
folder.create(config)
simulate(config, folder, lambda spec: task, [hear, follow])
"""


def die_at(folder: Path, place: str, number: int, config: Mapping[str, Any]) -> None:
    """Run a federation of least squares until it dies at a place of a round."""
    here = str(Path(__file__).parent)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, here, json.dumps(config), str(folder), place, str(number)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


def resume(folder: Path) -> dict[str, Any]:
    """Go on with such a run, in this process."""
    from fedalt.runs.simulate import simulate

    run, task = RunFolder(folder), LeastSquares()
    return simulate(run.config(), run, lambda spec: task)  # type: ignore[arg-type]
