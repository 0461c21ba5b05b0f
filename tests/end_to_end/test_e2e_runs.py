"""Runs that were stopped, killed, failed, damaged or are still in use."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from e2e_command import DIGITS, PCA, Command, spawn

from fedalt.runs.folder import RunFolder

CHECKPOINT = 8
COMPARED = (*PCA, "compare=[fedpe]")


def state(command: Command) -> str:
    (facts,) = command("runs", "list", "--json").json()
    return str(facts["state"])


def test_nothing_has_been_run_yet(command: Command) -> None:
    told = command("runs", "list")
    assert told.code == 0
    assert told.out == "no runs beneath runs; begin one with: fedalt simulate NAME\n"
    assert command("runs", "list", "--json").json() == []
    told = command("runs", "list", "--root", "gone")
    assert told.code == 2 and "there is no folder gone; name another with --root" in told.err


@pytest.mark.parametrize("verb", ["show", "resume"])
def test_what_is_no_run(command: Command, verb: str) -> None:
    told = command("runs", verb, "nope")
    assert told.code == CHECKPOINT
    assert "there is no run 'nope', here or beneath runs; see: fedalt runs list" in told.err
    told = command("runs", verb, ".")
    assert told.code == CHECKPOINT
    assert "'.' is no run's folder: it holds no config.json" in told.err


def test_a_name_nearly_right(command: Command) -> None:
    command("simulate", *PCA)
    (run,) = command.runs()
    assert f"did you mean '{run.name}'" in command("runs", "show", run.name[:-1]).err


def test_a_damaged_configuration(command: Command) -> None:
    command("simulate", *PCA)
    (run,) = command.runs()
    (run / "config.json").write_text("{")
    for verb in ("show", "resume"):
        told = command("runs", verb, str(run))
        assert told.code == CHECKPOINT and re.search("config.json.*damaged", told.err), told.err
    assert state(command) == "damaged"
    assert "config.json is damaged" in " ".join(command("runs", "list").out.split())


@pytest.mark.parametrize("name", ["status.json", "result.json"])
def test_other_damage_is_shown_in_the_list(command: Command, name: str) -> None:
    command("simulate", *PCA)
    (run,) = command.runs()
    (run / name).write_text("{")
    assert state(command) == "damaged"
    assert command("runs", "list").code == 0


def test_a_run_in_use(command: Command) -> None:
    command("simulate", *PCA)
    (run,) = command.runs()
    (run / "result.json").unlink()
    RunFolder(run).set_status("running")
    with RunFolder(run).lock():
        told = command("runs", "resume", str(run))
        assert told.code == CHECKPOINT
        assert re.search(r"in use by another process \(\d+\); wait until it ends", told.err)
        assert state(command) == "running"
        assert "go on with" not in command("runs", "show", str(run)).out
    assert state(command) == "interrupted"


def test_a_run_whose_rounds_are_done_but_not_its_comparison(command: Command) -> None:
    whole = command("simulate", *COMPARED)
    (run,) = command.runs()
    shutil.rmtree(run / "variants")
    shutil.rmtree(run / "report")
    assert state(command) == "unfinished"
    assert "still to do: fedpe, report" in command("runs", "list").out
    assert f"fedalt runs resume {run}" in command("runs", "show", str(run)).out
    told = command("runs", "resume", str(run))
    assert told.code == 0 and state(command) == "finished"
    assert told.out == whole.out


def test_a_report_that_fails_leaves_a_run_that_can_be_resumed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise RuntimeError("no ink")

    with monkeypatch.context() as patch:
        patch.setattr("fedalt.scenarios.federated_pca.report.write", write)
        # An error that nobody foresaw keeps its trace, and still says how to go on.
        with pytest.raises(RuntimeError, match="no ink") as caught:
            command("simulate", *PCA)
    (run,) = command.runs()
    assert f"fedalt runs resume {run}" in caught.value.__notes__[0]
    status = RunFolder(run).status()
    assert (status["state"], status["error"]) == ("failed", "RuntimeError: no ink")
    assert command("runs", "resume", str(run)).code == 0
    assert state(command) == "finished"


def test_stopped_while_its_report_is_written(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedalt.scenarios.federated_pca.report.write", write)
        told = command("simulate", *COMPARED)
    (run,) = command.runs()
    assert told.code == 130
    assert told.err == f"fedalt: stopped; go on with: fedalt runs resume {run}\n"
    assert state(command) == "stopped"
    assert "still to do: report" in command("runs", "show", str(run)).out
    assert command("runs", "resume", str(run)).code == 0 and state(command) == "finished"


def test_a_client_that_fails_is_named_and_the_run_kept(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def site_data(*_: object) -> None:
        raise RuntimeError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("fedalt.scenarios.fedavg_mnist.task.DigitsTask.site_data", site_data)
        told = command("simulate", *DIGITS, "report=null")
    (run,) = command.runs()
    assert told.code == 6 and re.search(r"site \d .*the disk is gone", told.err, re.DOTALL)
    assert told.err.endswith(f"once the cause is mended: fedalt runs resume {run}\n")
    shown = command("runs", "show", str(run))
    assert "failed" in shown.out and state(command) == "failed"
    assert command("runs", "resume", str(run)).code == 0


def wait_for(path: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never held {text}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("how", "told"), [(signal.SIGINT, "stopped"), (signal.SIGKILL, "interrupted")]
)
def test_stopped_in_mid_run_and_resumed_ends_on_the_same_hash(
    command: Command, how: signal.Signals, told: str
) -> None:
    words = (*DIGITS, "rounds=40", "name=short")
    whole = command("simulate", *words, "out=whole", "--json").json()
    child = spawn("simulate", *words)
    while not command.runs():
        time.sleep(0.02)
        assert child.poll() is None, child.communicate()
    (run,) = command.runs()
    wait_for(run / "events.jsonl", '"event": "committed", "round": 3')
    child.send_signal(how)
    out, err = child.communicate(timeout=60)
    assert out == ""
    if how == signal.SIGINT:
        assert child.returncode == 130
        assert err == f"fedalt: stopped; go on with: fedalt runs resume {run}\n"
    shown = command("runs", "show", str(run))
    assert told in shown.out and f"fedalt runs resume {run}" in shown.out
    (facts,) = command("runs", "list", "--json").json()
    assert facts["state"] == told and 3 <= facts["round"] < 40 and facts["rounds"] == 40
    resumed = command("runs", "resume", run.name, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json()["weights_sha256"] == whole["weights_sha256"]
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
