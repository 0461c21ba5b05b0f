"""Runs of other data are other runs: files that changed, data found in place of others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedalt.claims import data as data_module
from fedalt.claims.claim import parse_claim
from fedalt.claims.data import DataIdentity, rows_digest
from fedalt.claims.jobs import plan_jobs
from fedalt.cli.main import main

SPEC = {"_target_": "toy"}


class FileTask:
    """One site, whose rows are the bytes of a file ``rows.bin`` in the data folder."""

    built = 0

    def __init__(self) -> None:
        type(self).built += 1
        self.rows = np.frombuffer((Path(os.environ["FEDALT_DATA"]) / "rows.bin").read_bytes(), "u1")
        self.sites = [type("Site", (), {"size": len(self.rows)})()]

    def initial_arrays(self, seeds: Any) -> dict[str, np.ndarray]:
        return {}

    def evaluate(self, arrays: Any) -> dict[str, float]:
        return {"mean": float(self.rows.mean())}

    def site_data(self, site: int) -> Any:
        return (torch.tensor(self.rows), {"last": self.rows[-1:]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with rows, and a cache that lies nowhere else."""
    found = tmp_path / "data"
    found.mkdir()
    (found / "rows.bin").write_bytes(b"abcd")
    monkeypatch.setenv("FEDALT_DATA", str(found))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data_module, "TaskCache", lambda: lambda spec: FileTask())
    FileTask.built = 0
    return found


def identity(tmp_path: Path) -> str | None:
    """Ask anew, as another command would, and remember."""
    asked = DataIdentity(tmp_path)
    found = asked(SPEC)
    assert asked(SPEC) == found
    asked.save()
    return found


def test_rows_are_read_only_where_files_changed(folder: Path, tmp_path: Path) -> None:
    first = identity(tmp_path)
    assert first is not None and identity(tmp_path) == first and FileTask.built == 1
    (folder / "other.txt").write_text("of no account")
    assert identity(tmp_path) == first and FileTask.built == 2, "read again, and found the same"
    os.utime(folder / "rows.bin", ns=(1, 1))
    assert identity(tmp_path) == first and FileTask.built == 3
    # The same size and mean: only the rows themselves tell.
    (folder / "rows.bin").write_bytes(b"acbd")
    other = identity(tmp_path)
    assert other not in (first, None)
    (folder / "rows.bin").write_bytes(b"abcd")
    assert identity(tmp_path) == first
    (tmp_path / "data.json").write_text("{")
    assert identity(tmp_path) == first


def test_a_file_that_the_settings_name_counts(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.npz"
    own.write_bytes(b"1")
    spec = {**SPEC, "files": [str(own)]}
    asked = DataIdentity(tmp_path)
    asked(spec)
    asked.save()
    DataIdentity(tmp_path)(spec)
    assert FileTask.built == 1
    own.write_bytes(b"12")
    DataIdentity(tmp_path)(spec)
    assert FileTask.built == 2


def test_a_folder_that_leads_back_into_itself_comes_to_an_end(folder: Path, tmp_path: Path) -> None:
    (folder / "again").symlink_to(folder)
    assert identity(tmp_path) is not None


def test_what_cannot_be_built_is_left_to_the_check(folder: Path, tmp_path: Path) -> None:
    (folder / "rows.bin").unlink()
    assert identity(tmp_path) is None


def test_data_of_any_form_count_whole() -> None:
    class Task:
        sites = (type("Site", (), {"size": 2})(),) * 3

        def __init__(self, *data: Any) -> None:
            self.data = data

        def initial_arrays(self, seeds: Any) -> dict[str, np.ndarray]:
            return {}

        def evaluate(self, arrays: Any) -> dict[str, float]:
            return {}

        def site_data(self, site: int) -> Any:
            return self.data[site]

    half = torch.ones(2, dtype=torch.bfloat16)
    base = (torch.zeros(2), {"x": np.zeros(2)}, [half, "text"])
    changed = [
        (torch.tensor([0.0, 1.0]), *base[1:]),
        (base[0], {"x": np.array([0.0, 1.0])}, base[2]),
        (base[0], {"y": np.zeros(2)}, base[2]),
        (*base[:2], [half * 2, "text"]),
        (*base[:2], [half, "other"]),
        (torch.zeros(2, dtype=torch.int64), *base[1:]),
    ]
    digests = [rows_digest(Task(*data)) for data in (base, *changed)]  # type: ignore[arg-type]
    assert len(set(digests)) == 7 and rows_digest(Task(*base)) == digests[0]  # type: ignore[arg-type]


def test_the_job_is_named_by_its_data() -> None:
    holds = [{"arm": "a", "measure": "acc", "near": 0, "within": 1}]
    claim = parse_claim({"text": "x", "arms": {"a": []}, "holds": holds})

    def job(data: str | None) -> Path:
        made = plan_jobs(claim, lambda _: {"task": SPEC}, [], ["a"], [0], Path("r"), lambda _: data)
        return made[0].folder

    assert len({job("x"), job("y"), job(None)}) == 3 and job("x") == job("x")


YAML = """\
name: mine
rounds: 1
task:
  _target_: fedalt.scenarios.continual_power_law.own.ArrayStream
  folder: own
  clients: 1
  hidden: [3]
phases:
  train: {steps: 1, batch_size: 4, params: {lr: 0.05}}
schedule:
  stream: {of: train, tasks: 2}
strategy:
  _target_: fedalt.server.strategies.blockwise.Blockwise
progress: false
evaluate: {clients_every: 0, server_every: 1}
claim:
  text: Made up for a test.
  seeds: 1
  base: [engine.mode=sequential]
  arms: {only: }
  holds: [{arm: only, measure: server/loss, near: 0, within: 100}]
"""


@pytest.mark.parametrize("changed", ["train_x", "test_x"])
def test_the_command_runs_again_on_other_rows(
    changed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, labels = np.random.default_rng(0), np.tile([0, 1], 10)
    rows = {"train_x": rng.standard_normal((20, 4)), "test_x": rng.standard_normal((20, 4))}
    Path("own").mkdir()
    Path("mine").mkdir()
    Path("mine/scenario.yaml").write_text(YAML)

    def folder(**others: Any) -> str:
        for name in ("1-a", "2-b"):
            arrays = rows | {"train_y": labels, "test_y": labels} | others
            np.savez(Path("own") / name, **arrays)
        assert main(["reproduce", "./mine", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        return str(data["arms"]["only"]["runs"][0]["folder"])

    first = folder()
    assert folder() == first, "written again, the same"
    assert folder(**{changed: rows[changed] + 0.5}) != first
    assert folder() == first
