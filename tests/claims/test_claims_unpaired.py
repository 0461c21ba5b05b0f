"""Unpaired CT and MR, small: what turns do to running statistics, and that one modality is not two.

The full claim, with its federations, is for `fedalt reproduce unpaired_ct_mr`; a part of it over
two seeds is slow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from claims_runs import Runs

from fedalt.cli.main import main
from fedalt.scenario import find_scenario
from fedalt.scenarios.unpaired_ct_mr.measures import measure

SMALL = (
    *("task.phantoms.size=[32,32]", "task.phantoms.anatomy=analytic", "task.phantoms.images=40"),
    *("task.phantoms.organs=[liver,spleen,kidney_left]", "task.phantoms.server_test=20"),
    *("task.phantoms.sites={ct: 0, mr: 0, both: 1}", "task.phantoms.site_test=2"),
    "task.phantoms.vendors={ct: [a], mr: [a]}",
    *("rounds=8", "phases.segment.steps=30", "evaluate.server_every=0"),
    *("checkpoint.every=1000", "engine.mode=sequential"),
)
TURNS = "phases.segment.view.slices=[ct,mr]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def measured(runs: Runs, *changes: str) -> dict[str, Any]:
    scenario = find_scenario("unpaired_ct_mr")
    run = runs.carry_out(changes, lambda: scenario.config([*SMALL, *changes]))
    return measure(runs.tasks(run.config["task"]), run)


def test_by_turns_running_statistics_fail_and_a_batchs_own_do_not(runs: Runs) -> None:
    batch = measured(runs, TURNS, "task.network.norm=batch")
    assert batch["batch_statistics"] > 0.6, batch
    assert batch["dice"] < batch["batch_statistics"] - 0.15, batch


def test_what_was_learnt_on_ct_is_not_known_of_mr(runs: Runs) -> None:
    ct = measured(runs, "phases.segment.view.slices=[ct]", "task.network.head=plain")
    assert ct["dice/ct"] > 0.6 and ct["dice/mr"] < 0.4, ct
    # A head that is told no modality says the same of either.
    assert ct["swapped"] == ct["dice"]


def test_the_head_heeds_the_modality(runs: Runs) -> None:
    both = measured(runs, TURNS)
    assert both["dice"] > 0.6, both
    assert both["swapped"] < both["dice"] - 0.2, both


@pytest.mark.slow
def test_a_part_of_the_claim_over_two_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = "ct_only,alt,mixed,sequential,alt_bn,alt_bs"
    words = ["reproduce", "unpaired_ct_mr", "--arms", arms, "--seeds", "2", "--jobs", "2"]
    assert main([*words, "progress=false"]) == 0
    (told,) = Path("runs/reproduce/unpaired_ct_mr/parts").glob("*/claim.json")
    data: Any = json.loads(told.read_text(encoding="utf-8"))
    judged = {s["statement"]: s["verdict"] for s in data["holds"] if s["verdict"] != "not judged"}
    assert len(judged) >= 6 and "does not hold" not in judged.values(), judged
