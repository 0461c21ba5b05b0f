"""What only a ramp or a curriculum sets is judged before the run as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedalt.cli.main import main

TREES = [
    "{ramp: {of: {repeat: {of: train}}, set: {lrr: {linear: {from: 1, to: 0, rounds: 3}}}}}",
    "{curriculum: {of: {repeat: {of: train}}, set: {lrr: {0: 0.1, 1: 0.2}}}}",
]


@pytest.mark.parametrize("tree", TREES)
def test_a_misspelt_parameter_of_a_ramp_ends_before_the_run(
    tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fedavg_mnist", "task.rows=200", "rounds=2", "progress=false", f"schedule={tree}"]
    assert main(["simulate", *words]) == 2
    assert "unknown params.lrr (did you mean 'lr'?)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    right = [word.replace("lrr", "lr") for word in words]
    assert main(["simulate", *right]) == 0
