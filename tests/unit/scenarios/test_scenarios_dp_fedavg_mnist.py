"""DP-FedAvg on digits: groups, what a plan costs, and a private run end to end; small digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedalt.build import TaskCache
from fedalt.errors import ConfigError
from fedalt.privacy.entries import COMMITTED
from fedalt.privacy.ledger import FILE
from fedalt.privacy.replay import replay
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.dp_fedavg_mnist import report
from fedalt.scenarios.dp_fedavg_mnist.task import GroupedDigits

SMALL = ["task.rows=400", "task.clients=40", "rounds=4", "evaluate.server_every=1"]


@pytest.fixture(autouse=True)
def no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def finish(folder: Path, variant: str = "", *overrides: str) -> Finished:
    scenario = find_scenario("dp_fedavg_mnist")
    changes = scenario.config()["variants"].get(variant, [])
    config = scenario.config([*changes, *SMALL, *overrides])
    run = RunFolder(folder)
    run.create({**config, "compared": {}})
    simulate(config, run, TaskCache())
    return finished(run, variant or "main")


def test_clients_are_dealt_into_groups() -> None:
    task = GroupedDigits(groups=3, clients=10, rows=100)
    found = [site.attributes["group"] for site in task.sites]
    assert found == ["0", "1", "2", "0", "1", "2", "0", "1", "2", "0"]
    with pytest.raises(ConfigError, match=r"task\.groups=11: must be 1 to 10"):
        GroupedDigits(groups=11, clients=10, rows=100)


@pytest.mark.parametrize("variant", ["", "adaptive", "banded"])
def test_it_runs_and_reports_under_each_mechanism(tmp_path: Path, variant: str) -> None:
    run = finish(tmp_path / "run", variant)
    free = finish(tmp_path / "free", "free")
    assert 0.0 < report.epsilon(run) < report.epsilon(free) == float("inf")
    done = [entry for entry, _ in replay(tmp_path / "run" / FILE) if entry.status == COMMITTED]
    assert len(done) == 4
    spec = run.config["phases"]["train"]["privacy"]
    assert done[0].mechanism.sensitivity == pytest.approx(spec["clip"])
    made = report.write(TaskCache()(run.config["task"]), {"main": run, "free": free}, tmp_path)
    assert all(path.is_file() for path in made.figures)
    columns, lines = made.tables[0].columns, made.tables[0].rows
    rows = {line[0]: dict(zip(columns, line, strict=True)) for line in lines}
    assert rows["free"]["ε of a client"] == "∞"
    assert rows["main"]["ε of a client"] == report.epsilon(run)


def test_noise_beyond_what_clients_bear_teaches_nothing(tmp_path: Path) -> None:
    often = ("phases.train.clients.rate=0.9", "~privacy.budget")
    little = finish(tmp_path / "little", "", *often, "phases.train.privacy.noise=0.01")
    much = finish(tmp_path / "much", "", *often, "phases.train.privacy.noise=50")
    assert little.metric("server/accuracy")[1][-1] > 0.5
    assert much.metric("server/accuracy")[1][-1] < 0.4


def test_a_run_shorter_than_its_judging_says_so(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", "", "rounds=2", "evaluate.server_every=5")
    free = finish(tmp_path / "free", "free", "rounds=3", "evaluate.server_every=2")
    task = TaskCache()(run.config["task"])
    alone = report.write(task, {"main": run}, tmp_path)
    assert [path.name for path in alone.figures] == ["spent.png"]
    table = alone.tables[0]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["test accuracy"] is None
    assert row["ε of a client"] == report.epsilon(run)
    assert "main: never judged (evaluate.server_every=5)" in table.notes
    both = report.write(task, {"main": run, "free": free}, tmp_path)
    assert all(path.is_file() for path in both.figures)
    row = dict(zip(table.columns, both.tables[0].rows[1], strict=True))
    assert row["test accuracy"] == free.metric("server/accuracy")[1][-1]
    assert "free: judged last in round 2 of 3 (evaluate.server_every=2)" in both.tables[0].notes


def test_a_private_run_tells_nothing_of_what_clients_hold(tmp_path: Path) -> None:
    run, free = finish(tmp_path / "run"), finish(tmp_path / "free", "free")
    task = TaskCache()(run.config["task"])
    for runs, told in (({"main": free}, True), ({"main": run}, False)):
        notes = " ".join(report.write(task, runs, tmp_path).tables[0].notes)
        assert ("a client holds 10 to 10 images" in notes) == told
        assert ("left out: computed on clients' own images" in notes) != told
