"""The command line of privacy, from a plan over a run to its report: one story, one ε."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

from e2e_command import Command

RUN = (
    *("fedavg_mnist", "task.rows=400", "rounds=3", "task.clients=40", "task.model=logistic"),
    *("evaluate.clients_every=0", "report=null", "progress=false", "privacy.delta=1e-3"),
    *(
        "~strategy.fraction_evaluate",
        "strategy._target_=fedalt.server.strategies.blockwise.Blockwise",
    ),
)
POISSON = "phases.train.clients={mode: poisson, rate: 0.25}"
CLIENTS = (POISSON, "phases.train.privacy={unit: client, clip: 1.0, noise: 1.0}")
RECORDS = (
    "phases.train.clients={mode: fixed, count: 4}",
    "phases.train.privacy={unit: record, clip: 1.0, noise: 1.2}",
)
TURNS = (
    "+phases.all={kernel: gradient, params: {lr: 0.05}, privacy: {unit: client, noise: 6.0}}",
    *(*CLIENTS, "schedule={cycle: [train, all]}"),
)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command line, in an empty folder without data: scikit-learn's digits are learnt."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDALT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return Command(capsys)


@pytest.mark.parametrize(
    "words",
    [(), ("plan",), ("report",), ("verify",), ("audit",)],
    ids=lambda words: " ".join(words),
)
def test_every_help_teaches_within_eighty_columns(command: Command, words: tuple[str, ...]) -> None:
    told = command("privacy", *words, "--help")
    assert told.code == 0 and told.err == ""
    assert told.out.startswith(f"usage: {' '.join(('fedalt', 'privacy', *words))}")
    assert max(map(len, told.out.splitlines())) <= 80


@pytest.mark.parametrize("changes", [CLIENTS, RECORDS, TURNS], ids=["clients", "records", "two"])
def test_plan_run_verify_and_report_tell_one_epsilon(
    command: Command, changes: tuple[str, ...]
) -> None:
    plan = command("privacy", "plan", *RUN, *changes, "--json").json()
    result = command("simulate", *RUN, *changes, "--json").json()
    run = str(command.runs()[0])
    verified = command("privacy", "verify", run, "--json").json()["ledgers"]["main"]
    report = command("privacy", "report", run, "--json").json()
    assert plan["rounds"] == result["round"] == verified["rounds"] == report["rounds"] == 3
    for unit, found in plan["units"].items():
        assert found["epsilon"] == verified["units"][unit]["epsilon"]
        assert found["epsilon"] == report["units"][unit]["epsilon"]
        assert found["running"] == result["metrics"][f"privacy/{unit}"]
        over = {row["round"]: row["epsilon"] for row in plan["over_rounds"] if row["unit"] == unit}
        assert list(over.values()) == report["over_rounds"][unit]["epsilon"]
    assert plan["scopes"] == report["scopes"] and plan["sites"] == report["sites"]
    assert verified["vouched"] == verified["entries"] and verified["unsettled"] == []


def test_a_plan_answers_in_tables_pictures_and_rows(command: Command) -> None:
    told = command(
        "privacy", "plan", *RUN, *CLIENTS, "--target", "2", "--budget", "4", "--runs", "3",
        "--plot", "plan.svg", "--csv", "plan.csv",
    )  # fmt: skip
    assert told.code == 0, told.err
    for text in ("ε at the end", "noise for ε ≤ 2", "rounds within ε = 4", "what tuning costs"):
        assert text in told.out
    assert Path("plan.svg").read_text().startswith("<?xml")
    rows = list(csv.DictReader(Path("plan.csv").read_text().splitlines()))
    assert [(row["round"], row["unit"]) for row in rows] == [(str(n), "client") for n in (1, 2, 3)]
    assert not command.runs()


def test_the_noise_that_a_target_takes_is_enough(command: Command) -> None:
    told = command("privacy", "plan", *RUN, *CLIENTS, "--target", "2", "--json").json()
    noise = told["target"]["noise"]["train"]
    again = command(
        "privacy", "plan", *RUN, POISSON,
        f"phases.train.privacy={{unit: client, clip: 1.0, noise: {noise}}}", "--json",
    ).json()  # fmt: skip
    assert 1.95 < again["units"]["client"]["epsilon"] <= 2.0


def test_the_rounds_of_a_budget_are_those_that_a_run_has(command: Command) -> None:
    budget = "privacy.budget={client: 2.0}"
    told = command("privacy", "plan", *RUN, *CLIENTS, "--budget", "2", "--json").json()
    rounds = told["budget"]["rounds"]["client"]
    ended = command("simulate", *RUN, *CLIENTS, budget, f"rounds={rounds + 2}", "--json")
    assert ended.code == 7 and ended.json()["ended"] == "budget"
    assert ended.json()["round"] == rounds and "above its budget of 2" in ended.err
    (run,) = command.runs()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    shown = command("runs", "show", str(run))
    assert shown.code == 0 and "ended   by its budget" in shown.out
    assert "privacy ε of a client" in shown.out
    plan = command("privacy", "plan", *RUN, *CLIENTS, budget, f"rounds={rounds + 2}")
    assert f"the run ends with the model of round {rounds}" in " ".join(plan.out.split())


def test_a_plan_that_would_exceed_is_refused_before_it_has_a_folder(command: Command) -> None:
    changes = (*CLIENTS, "privacy.budget={client: 2.0}", "privacy.policy=refuse", "rounds=40")
    told = command("simulate", *RUN, *changes)
    assert told.code == 7 and "after round" in told.err and "privacy.policy=refuse" in told.err
    assert not command.runs()


def test_a_plan_shows_its_epsilon_among_its_costs(command: Command) -> None:
    told = command("plan", *RUN, *CLIENTS)
    assert "ε after 3 rounds" in told.out
    data = command("plan", *RUN, *CLIENTS, "--json").json()
    whole = command("privacy", "plan", *RUN, *CLIENTS, "--json").json()
    assert data["privacy"]["client"]["epsilon"] == whole["units"]["client"]["epsilon"]


def test_tampering_ends_with_the_code_of_ledgers(command: Command) -> None:
    command("simulate", *RUN, *CLIENTS)
    (run,) = command.runs()
    path = run / "ledger.jsonl"
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"clip":1.0', b'"clip":2.0', 1))
    told = command("privacy", "verify", str(run))
    assert told.code == 9 and "line 2" in told.err and told.out == ""
    path.write_bytes(b"".join(kept.splitlines(keepends=True)[:-1]))
    for verb in ("verify", "report"):
        told = command("privacy", verb, str(run))
        assert told.code == 9 and "lacks entries" in told.err
    path.unlink()
    path.mkdir()
    assert command("privacy", "verify", str(run)).code == 9
    path.rmdir()
    path.write_bytes(kept)
    assert command("privacy", "verify", str(run)).code == 0


def test_a_secret_draw_waits_for_no_number_of_clients(command: Command) -> None:
    few = "phases.train.clients={mode: poisson, rate: 0.02}"
    told = command("privacy", "plan", *RUN, *CLIENTS, few, "rounds=20")
    assert told.code == 0, told.err
    told = command("simulate", *RUN, *CLIENTS, few)
    assert told.code == 0, told.err


def test_an_open_release_has_nothing_to_follow_over_rounds(command: Command) -> None:
    tells = "phases.train.privacy={unit: client, clip: 1.0, noise: 1.0, metrics: release}"
    command("simulate", *RUN, POISSON, tells, "privacy.allow_unprotected=true")
    told = command("privacy", "report", str(command.runs()[0]))
    assert told.code == 0 and "ε of a client is infinite" in told.out
    assert "over rounds" not in told.out
    assert "3 releases had no mechanism" in told.out


def test_a_ledger_knows_no_sizes_of_sites(command: Command) -> None:
    fixed = "phases.train.clients={mode: fixed, count: 4}"
    plan = command("privacy", "plan", *RUN, CLIENTS[1], fixed)
    assert "records" in plan.out.partition("by site")[2]
    command("simulate", *RUN, CLIENTS[1], fixed)
    report = command("privacy", "report", str(command.runs()[0]))
    sites = report.out.partition("by site")[2].partition("over rounds")[0]
    assert "charges" in sites and "records" not in sites


def test_who_protects_nobody_is_told_how(command: Command) -> None:
    told = command("privacy", "plan", *RUN)
    assert told.code == 2 and "'phases.train.privacy={unit: client" in told.err
    told = command("privacy", "audit", *RUN)
    assert told.code == 2 and "no claim to audit" in told.err
    assert command("simulate", *RUN).code == 0
    told = command("privacy", "verify", str(command.runs()[0]))
    assert told.code == 2 and "has no privacy ledger" in told.err


BAD = {
    "privacy.delta=0.05": "δ=0.05 is not below 1/N=0.025",
    "task.clients=8": "client-level privacy hides one of 8 clients among so few",
}


@pytest.mark.parametrize("change", BAD)
def test_what_means_little_is_warned_of_once_and_reported(command: Command, change: str) -> None:
    told = command("simulate", *RUN, *CLIENTS, change)
    assert told.code == 0 and told.err.count(BAD[change]) == 1
    report = command("privacy", "report", str(command.runs()[0]))
    assert BAD[change] in " ".join(report.out.split())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (("phases.train.privacy={unit: client, noise: 0}",), "without noise"),
        (("phases.train.privacy={unit: person}",), "unknown unit 'person'"),
        (("phases.train.privacy={unit: client, clip: .inf}",), "must be"),
        ((*CLIENTS, "evaluate.clients_every=2"), "which no noise covers"),
        ((*CLIENTS, "privacy.budget={record: 2}"), "take it out: ~privacy.budget.record"),
        ((*RECORDS, "privacy.relation=replace_one"), "use privacy.relation=add_remove\n"),
        ((*CLIENTS, "privacy.budget={clint: 2}"), "did you mean 'client'"),
        ((*CLIENTS, "privacy.relation=replace_one"), "not replace_one"),
        ((*CLIENTS, "privacy.relation=ad_remove"), "did you mean 'add_remove'"),
        (("privacy.budget={client: 2}",), "no phase protects anyone"),
        (
            (POISSON, "phases.train.privacy={unit: client, clips: {heed: 1.0}}"),
            "'heed' is no block that the phase trains",
        ),
        ((*CLIENTS, "phases.train.aggregate={all: median}"), "all"),
        (
            (
                "phases.train.clients={mode: fixed, count: 2}",
                "phases.train.privacy={unit: client, trust: distributed}",
            ),
            "2 clients under secure aggregation",
        ),
        (
            (
                "phases.train.clients={mode: all}",
                "phases.train.privacy={unit: client, mechanism: banded, bands: 3}",
            ),
            "take part again after 1",
        ),
    ],
)
def test_bad_input_is_named_before_a_run_has_a_folder(
    command: Command, changes: tuple[str, ...], text: str
) -> None:
    told = command("simulate", *RUN, *changes)
    assert told.code == 2 and text in told.err, told.err
    assert not command.runs()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--target", "0"), "--target 0: an ε above 0 expected"),
        (("--budget", "nan"), "--budget nan"),
        (("--runs", "1"), "--runs 1: at least 2"),
        (("--plot", "plan.jpg"), "unknown kind of picture"),
        (("--csv", "nowhere/plan.csv"), "there is no folder 'nowhere'"),
    ],
)
def test_options_out_of_range_are_named(
    command: Command, words: tuple[str, ...], text: str
) -> None:
    told = command("privacy", "plan", *RUN, *CLIENTS, *words)
    assert told.code == 2 and text in told.err


def test_an_audit_tells_bounds_beside_the_claim(command: Command) -> None:
    told = command("privacy", "audit", *RUN, *CLIENTS, "--canaries", "40", "--json")
    assert told.code == 0, told.err
    assert told.json()["unit"] == "client" and not told.json()["exceeded"]
    assert command("privacy", "audit", *RUN, *CLIENTS, "--canaries", "3").code == 2


def test_an_audit_that_refutes_a_claim_says_so_by_its_code(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedalt.server.strategies import private

    class Silent(np.random.Generator):
        """A mechanism that forgets its noise."""

        def standard_normal(self, *args: Any, **kwargs: Any) -> Any:
            return 0.0 * np.asarray(super().standard_normal(*args, **kwargs))

        def normal(self, *args: Any, **kwargs: Any) -> Any:
            return 0.0 * np.asarray(super().normal(*args, **kwargs))

    monkeypatch.setattr(private, "noise_generator", lambda *_: Silent(np.random.PCG64(1)))
    loud = "phases.train.privacy={unit: client, clip: 1.0, noise: 8.0}"
    told = command("privacy", "audit", *RUN, POISSON, loud, "--canaries", "200")
    assert told.code == 10 and "the audit refutes the claim" in told.err, told.out
    assert "refuted" in told.out
