"""What the engine chose is told once, kept with the run, and handed back when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from federations import LeastSquares, federate, settings
from flwr.clientapp import ClientApp

from fedalt.clients.app import SiteApp
from fedalt.grids.local import LocalGrid
from fedalt.runs import simulate as engine
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.events import read_events
from fedalt.runs.folder import RunFolder
from fedalt.runs.simulate import client_settings, simulate
from fedalt.seeds import Seeds

CHOSEN = {"modes": {"train": "batched"}}


class Choosing(SiteApp):
    """A client app that chooses at its first cohort of training messages, unless told."""

    def __init__(self, load_task: Any, log: list[str]) -> None:
        super().__init__(load_task)
        self._facts: dict[str, Any] = {}
        self._log = log

    def cohort(self, messages: Any, contexts: Any) -> Any:
        if not self._facts:
            self._facts = {"modes": {"train": "batched"}}
            self._log.append("chose")
        return super().cohort(messages, contexts)

    def export_facts(self) -> dict[str, Any]:
        return self._facts

    def import_facts(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self._log.append("was told")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    load = engine._load

    def made(name: str) -> Any:
        return (lambda task: Choosing(task, told)) if name == engine.CLIENT else load(name)

    monkeypatch.setattr(engine, "_load", made)
    return told


def events(folder: Path) -> list[Any]:
    return [(e["event"], e["round"], e["facts"]) for e in read_events(folder / "events.jsonl")
            if e["event"] == "engine"]  # fmt: skip


def test_a_choice_is_told_once_and_is_in_the_result(log: list[str], tmp_path: Path) -> None:
    result, snapshot = federate(LeastSquares(), tmp_path / "run", rounds=3)
    assert result["engine"] == CHOSEN and snapshot.facts["engine"] == CHOSEN
    assert events(tmp_path / "run") == [("engine", 1, CHOSEN)]
    assert log == ["chose"]


def test_a_resumed_run_takes_the_choice_over(log: list[str], tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "run", rounds=2)
    run, task = RunFolder(tmp_path / "run"), LeastSquares()
    (run.path / "result.json").unlink()
    config = {**run.config(), "rounds": 4}
    result = simulate(config, run, lambda spec: task)  # type: ignore[arg-type]
    assert log == ["chose", "was told"]
    assert result["engine"] == CHOSEN and events(run.path) == [("engine", 1, CHOSEN)]
    found, _ = newest_checkpoint(run.checkpoints)
    assert found is not None and found.round == 4 and found.facts["engine"] == CHOSEN


def test_a_client_app_of_flowers_own_chooses_nothing() -> None:
    grid = LocalGrid(ClientApp(), 1, {}, Seeds(0))
    grid.import_facts(CHOSEN)
    assert grid.export_facts() == {}


def test_clients_are_told_the_engines_settings() -> None:
    config = settings(task={"n": 1})
    config["engine"] = {"name": "local", "device": "cuda", "timeout": None, "workers": 3}
    told = client_settings(config)
    assert {key: told[key] for key in ("device", "workers")} == {"device": "cuda", "workers": 3}
    # What the settings leave out has a default; what is null is not told.
    assert (told["mode"], told["precision"]) == ("sequential", "float32")
    assert "timeout" not in told and told["task"] == '{"n": 1}'


def test_a_profile_says_where_each_rounds_time_goes(tmp_path: Path) -> None:
    federate(LeastSquares(), tmp_path / "with", rounds=3, profile=True)
    told = [e for e in read_events(tmp_path / "with" / "events.jsonl") if e["event"] == "profile"]
    assert [event["round"] for event in told] == [1, 2, 3]
    spans = {"plan", "dispatch", "compute", "admission", "aggregation", "judgement", "commit"}
    for event in told:
        assert spans <= set(event["seconds"]) and all(s >= 0 for s in event["seconds"].values())
    federate(LeastSquares(), tmp_path / "without", rounds=1)
    events = read_events(tmp_path / "without" / "events.jsonl")
    assert not [event for event in events if event["event"] == "profile"]
