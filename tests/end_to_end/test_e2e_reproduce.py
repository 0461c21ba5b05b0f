"""``fedalt reproduce``: a claim's runs are carried out once, resumed, judged and told plainly."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
from e2e_command import Command, spawn

YAML = """\
name: mine
rounds: 3
task:
  _target_: fedalt.scenarios.fedavg_mnist.task.DigitsTask
  clients: 5
  rows: 300
  partition: iid
  model: logistic
  seed: ${seed}
phases:
  train: {batch_size: 16, params: {lr: 0.05}}
schedule:
  repeat: {of: train}
strategy:
  _target_: flwr.serverapp.strategy.FedAvg
progress: false
claim:
  text: Learning beats standing still (made up for a test).
  seeds: 2
  measure: fedalt.scenarios.fedavg_mnist.measures:measure
  base: [engine.mode=sequential]
  arms:
    still: [phases.train.params.lr=0.0]
    slow: [rounds=2]
    fast:
  holds:
    - {more: still, than: fast, measure: server/loss, by: 0.1}
    - {arm: slow, measure: rounds, near: 2, within: 0}
  shown:
    - {more: [fast, still], than: [slow, still], measure: server/accuracy, by: -1}
"""
CONFIG = 2
ROOT = Path("runs/reproduce/mine")


@pytest.fixture(autouse=True)
def mine(command: Command) -> None:
    """A scenario of one's own with a claim, in the empty folder."""
    Path("mine").mkdir()
    write()


def write(*changes: tuple[str, str]) -> None:
    text = YAML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    Path("mine/scenario.yaml").write_text(text)


def folders() -> list[Path]:
    return sorted(path.parent for path in ROOT.glob("*/config.json"))


def stamps() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in ROOT.glob("*/*.json")}


def test_a_claim_is_judged_and_told(command: Command) -> None:
    told = command("reproduce", "./mine", "--seeds", "3")
    assert told.code == 0 and told.err == "", told.err
    assert "claim: Learning beats standing still" in told.out
    assert "the claim holds: 2 of 2 statements hold" in told.out
    assert "measured, not claimed" in told.out and "data: scikit-learn" in told.out
    assert max(map(len, told.out.splitlines())) <= 100
    data = json.loads((ROOT / "claim.json").read_text())
    assert data["seeds"] == [0, 1, 2] and set(data["arms"]) == {"still", "slow", "fast"}
    assert {run["folder"] for arm in data["arms"].values() for run in arm["runs"]} == {
        path.name for path in folders()
    }
    # The difference, recomputed from the file of measures.
    rows = list(csv.DictReader((ROOT / "measures.csv").read_text().splitlines()))
    loss = {(r["arm"], r["seed"]): float(r["value"]) for r in rows if r["measure"] == "server/loss"}
    gain = [loss["still", seed] - loss["fast", seed] for seed in "012"]
    assert data["holds"][0]["mean"] == pytest.approx(sum(gain) / 3)
    judged = list(csv.DictReader((ROOT / "statements.csv").read_text().splitlines()))
    assert [(r["how"], r["verdict"]) for r in judged] == [
        *[("claimed", "holds")] * 2,
        ("shown", judged[2]["verdict"]),
    ]
    assert (ROOT / "claim.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((folders()[0] / "result.json").read_text())
    assert result["weights_sha256"] in json.dumps(data)


def test_what_is_done_is_read_and_what_is_new_is_run(command: Command) -> None:
    first = command("reproduce", "./mine", "--json").json()
    before = stamps()
    assert command("reproduce", "./mine", "--json").json() == first
    # Another wording and another name for an arm: the same runs.
    write(("standing still (made", "idling (made"), ("still", "idle"))
    again = command("reproduce", "./mine", "--json").json()
    assert again["holds"][0]["mean"] == first["holds"][0]["mean"] and "idle" in again["arms"]
    assert stamps() == before
    more = command("reproduce", "./mine", "--seeds", "3", "--json").json()
    assert more["seeds"] == [0, 1, 2] and len(folders()) == 9
    assert {path: stamps()[path] for path in before} == before
    later = command("reproduce", "./mine", "seed=1", "--json").json()
    assert later["seeds"] == [1, 2] and len(folders()) == 9
    other = command("reproduce", "./mine", "task.rows=200", "--arms", "fast", "--json").json()
    assert len(folders()) == 11 and other["verdict"] == "undecided"


def test_a_claim_that_does_not_hold_is_no_error_unless_asked(command: Command) -> None:
    write(("more: still, than: fast", "more: fast, than: still"))
    words = ("reproduce", "./mine", "--seeds", "3")
    told = command(*words)
    assert told.code == 0
    assert "the claim does not hold: 1 of 2 statements hold, 1 do not" in told.out
    assert command(*words, "--strict").code == 1
    write()
    assert command(*words, "--strict").code == 0


def test_some_arms_and_one_seed(command: Command) -> None:
    told = command("reproduce", "./mine", "--arms", "slow", "--seeds", "1")
    assert told.code == 0 and len(folders()) == 1
    assert "holds (one seed)" in told.out and "1 not judged, for want of arms" in told.out
    assert command("reproduce", "./mine", "--arms=slow", "--seeds=1", "--strict").code == 1


def test_so_many_processes_change_nothing(command: Command) -> None:
    one = command("reproduce", "./mine", "--json").json()
    two = command("reproduce", "./mine", "--json", "--jobs", "2", "out=other").json()
    assert {k: v for k, v in one.items() if k != "folder"} == {
        k: v for k, v in two.items() if k != "folder"
    }


def test_a_run_that_was_begun_is_gone_on_with(command: Command) -> None:
    whole = command("reproduce", "./mine", "--json").json()
    half = folders()[0]
    for name in ("result.json", "measures.json"):
        (half / name).unlink()
    rounds = sorted((half / "checkpoints").glob("round-*.safetensors"))
    rounds[-1].unlink()
    told = command("reproduce", "./mine", "progress=true")
    assert "5 of 6 runs are done already\nchecking the settings of 1 run\n" in told.err
    assert "goes on after round" in told.err
    assert command("reproduce", "./mine", "--json").json() == whole


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_stopped_and_repeated(command: Command, jobs: str) -> None:
    words = ("reproduce", "./mine", "rounds=25", "--arms", "still,fast", "--jobs", jobs)
    child = spawn(*words)
    events = "*/events.jsonl"
    end = time.monotonic() + 90
    while not any('"round": 3' in path.read_text() for path in ROOT.glob(events)):
        assert time.monotonic() < end and child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and out == ""
    assert "fedalt: stopped; " in err and "the same command goes on" in err
    assert "Traceback" not in err
    states = {json.loads((path / "status.json").read_text())["state"] for path in folders()}
    assert "stopped" in states and states <= {"stopped", "finished"}
    goes_on = command(*words, "--json")
    assert goes_on.code == 0, goes_on.err
    fresh = command(*words, "--json", "out=fresh").json()
    assert {**goes_on.json(), "folder": ""} == {**fresh, "folder": ""}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_arm_that_fails_is_named_and_the_others_are_kept(command: Command, jobs: str) -> None:
    command("reproduce", "./mine", "--seeds", "1", "--arms", "fast")
    (broken,) = folders()
    (broken / "result.json").unlink()
    (broken / "measures.json").unlink()
    for path in (broken / "checkpoints").glob("round-*"):
        path.write_bytes(b"no checkpoint")
    told = command("reproduce", "./mine", "--jobs", jobs)
    assert told.code == 8 and told.out == ""
    assert told.err.startswith("fedalt: arm 'fast', seed 0: no checkpoint of ")
    assert "5 of 6 runs are done and kept; once the cause is mended, repeat" in told.err
    assert len(folders()) == 6 and "Traceback" not in told.err
    for path in broken.rglob("*"):
        if path.is_file():
            path.unlink()
    assert command("reproduce", "./mine", "--jobs", jobs).code == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told(command: Command) -> None:
    child = spawn("reproduce", "./mine", "rounds=80", "--jobs", "2", "--arms", "still,fast")
    end = time.monotonic() + 90
    while not any("pid" in path.read_text() for path in ROOT.glob("*/status.json")):
        assert time.monotonic() < end and child.poll() is None, child.communicate()
        time.sleep(0.02)
    status = next(ROOT.glob("*/status.json"))
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1 and "its process ended with code -9" in err
    assert "3 of 4 runs are done and kept" in err
    assert command("reproduce", "./mine", "rounds=80", "--arms", "still,fast").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("claim:\n", "clam:\n"), r"unknown key 'clam' (did you mean 'claim'?)"),
        (("  seeds: 2", "  seed: 2"), "claim: unknown key 'seed' (did you mean 'seeds'?)"),
        (("than: fast", "than: fats"), "claim.holds[0].than: unknown arm 'fats' (did you mean 'fa"),
        (("[rounds=2]", "[rond=2]"), "arm 'slow': unknown override 'rond'"),
        (("[rounds=2]", "[rounds=many]"), "arm 'slow': rounds: "),
        (("[rounds=2]", "[phases.train.kernel=gradent]"), "arm 'slow', seed 0: phase 'train': unk"),
        (("[rounds=2]", "[task.rows=9999]"), "arm 'slow', seed 0: task.rows=9999: must be 1 to"),
        (("measures:measure", "measures:mesure"), "no function 'mesure' (did you mean 'measure'?)"),
    ],
)
def test_a_mistake_costs_nothing(command: Command, change: tuple[str, str], message: str) -> None:
    write(change)
    told = command("reproduce", "./mine")
    assert told.code == CONFIG and message in told.err, told.err
    assert told.out == "" and not Path("runs").exists()


def test_a_misspelt_measure_ends_it_after_one_run(command: Command) -> None:
    write(("measure: server/loss", "measure: server/los"))
    told = command("reproduce", "./mine")
    assert told.code == CONFIG and len(folders()) == 1
    assert "no measure 'server/los' (did you mean 'server/loss'?)" in told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arms", "fats"), "--arms: unknown arm 'fats' (did you mean 'fast'?)"),
        (("--arms", ","), "--arms names no arm (known: still, slow, fast)"),
        (("--seeds", "0"), "--seeds 0: at least 1 expected"),
        (("--jobs", "0"), "--jobs 0: at least 1 expected"),
        (("--sedes", "3"), "unknown option --sedes (did you mean '--seeds'?)"),
        (("rond=3",), "unknown override 'rond'"),
        (("out=mine/scenario.yaml",), "no run can be kept there"),
    ],
)
def test_a_command_that_cannot_be(command: Command, words: tuple[str, ...], message: str) -> None:
    told = command("reproduce", "./mine", *words)
    assert told.code == CONFIG and message in told.err, told.err
    assert not Path("runs").exists()


def test_a_scenario_without_a_claim(command: Command) -> None:
    write((YAML[YAML.index("claim:") :], ""))
    told = command("reproduce", "./mine")
    assert told.code == CONFIG
    assert "scenario 'mine' has no claim to reproduce: the key 'claim'" in told.err
    assert "fedavg_mnist" in told.err.split("scenarios that have one: ")[1]


def test_help_teaches_within_eighty_columns(command: Command) -> None:
    told = command("reproduce", "--help")
    assert told.code == 0 and "fedalt reproduce fedavg_mnist" in told.out
    assert max(map(len, told.out.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.skipif("FEDALT_DATA" not in os.environ, reason="FEDALT_DATA is unset: no MNIST")
def test_fedavg_needs_ten_times_fewer_rounds(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDALT_DATA", REAL)
    told = command("reproduce", "fedavg_mnist", "progress=false", "--strict")
    assert told.code == 0 and "data: MNIST" in told.out, told.out


REAL = os.environ.get("FEDALT_DATA", "")
