"""Results of a part of a claim never take the place of the whole claim's."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fedalt.claims.claim import Claim, parse_claim
from fedalt.claims.place import results_folder
from fedalt.cli.main import main

ROOT = Path("root")


def claim() -> Claim:
    holds = [{"more": "b", "than": "a", "measure": "acc"}]
    return parse_claim(
        {"text": "b beats a", "arms": {"a": [], "b": []}, "holds": holds, "seeds": 3}
    )


def place(*overrides: str, arms: tuple[str, ...] = ("a", "b"), seeds: int = 3) -> Path:
    return results_folder(ROOT, claim(), arms, range(seeds), overrides)


def test_the_whole_claim_lies_beside_its_runs() -> None:
    assert place() == place(seeds=5) == ROOT
    assert place("progress=false", "out=runs", "+tensorboard=true") == ROOT


def test_a_part_of_it_has_a_folder_that_says_which() -> None:
    assert place(arms=("b",)).parent == ROOT / "parts"
    assert place(arms=("b",)).name.startswith("arms=b-")
    assert place("task.rows=9", seeds=1).name.startswith("seeds=1_task.rows=9-")
    assert place("claim.seeds=1") != ROOT, "another claim is judged"
    every = {
        *(place(), place(arms=("a",)), place(arms=("b",)), place(seeds=1), place(seeds=2)),
        *(place("task.rows=9"), place("task.rows=8"), place("task.rows=9", arms=("a",))),
    }
    assert len(every) == 8


def test_equal_wishes_share_a_folder_and_long_ones_fit_a_file_system() -> None:
    assert place("a=1", "b=2") == place("b=2", "a=1") == place("b=2", "a=3", "a=1")
    assert place("progress=false", "a=1") == place("a=1")
    long = place(*(f"phases.learn.params.name{i}={{x: {i}/{i}}}" for i in range(40)))
    assert len(long.name) < 80 and long.parent == ROOT / "parts"


YAML = """\
name: mine
rounds: 1
task:
  _target_: fedalt.scenarios.fedavg_mnist.task.DigitsTask
  clients: 2
  rows: 40
  model: logistic
phases:
  train: {batch_size: 16, params: {lr: 0.05}}
schedule:
  repeat: {of: train}
strategy:
  _target_: flwr.serverapp.strategy.FedAvg
progress: false
evaluate: {clients_every: 0, server_every: 1}
claim:
  text: Learning beats standing still (made up for a test).
  seeds: 1
  base: [engine.mode=sequential]
  arms: {still: [phases.train.params.lr=0.0], fast: }
  holds: [{more: still, than: fast, measure: server/loss}]
"""


def test_the_command_leaves_the_whole_claims_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("mine").mkdir()
    Path("mine/scenario.yaml").write_text(YAML)
    root = Path("runs/reproduce/mine")
    assert main(["reproduce", "./mine"]) == 0
    whole = {path: path.read_bytes() for path in root.glob("*.*")}
    assert {path.name for path in whole} >= {"claim.json", "measures.csv", "statements.csv"}
    capsys.readouterr()
    for words in (["--arms", "fast"], ["rounds=2"]):
        assert main(["reproduce", "./mine", "--json", *words]) == 0
        told = json.loads(capsys.readouterr().out)
        assert Path(told["folder"]).parent == root / "parts"
        assert told["overrides"] == [word for word in words if "=" in word]
        rows = csv.DictReader((Path(told["folder"]) / "measures.csv").read_text().splitlines())
        assert {row["arm"] for row in rows} == set(told["arms"])
    assert {path: path.read_bytes() for path in root.glob("*.*")} == whole
