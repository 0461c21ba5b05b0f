"""Unpaired CT and MR by the command line: plan, variants, real volumes, mistakes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from e2e_command import Command

SMALL = (
    *("task.phantoms.images=4", "task.phantoms.site_test=2", "task.phantoms.server_test=2"),
    *("task.phantoms.size=[32,32]", "task.network.features=[4,4,4,4,4,4]"),
    *("task.phantoms.anatomy=analytic", "rounds=2", "phases.segment.steps=2"),
    *("phases.segment.batch_size=2", "engine.mode=sequential", "progress=false"),
)
DATA = os.environ.get("FEDALT_DATA", "")
needs_volumes = pytest.mark.skipif(not DATA, reason="volumes: FEDALT_DATA names no folder")
VOLUMES = f"task.folder={DATA}/abdomen"


def test_a_variant_in_place_of_the_scenarios_own_settings(command: Command) -> None:
    told = command("simulate", "unpaired_ct_mr", "--variant", "fedbn", *SMALL, "--json")
    assert told.code == 0, told.err
    config = json.loads((Path(told.json()["folder"]) / "config.json").read_text())
    assert config["task"]["network"]["norm"] == "batch"
    assert config["phases"]["segment"]["aggregate"]["norm"] == "local"
    assert config["rounds"] == 2


def test_a_variants_plan_and_its_misspelling(command: Command) -> None:
    told = command("plan", "unpaired_ct_mr", "--variant", "alt_server", *SMALL, "rounds=4")
    assert told.code == 0 and "segment" in told.out
    told = command("plan", "unpaired_ct_mr", "--variant", "alt_servr")
    assert told.code == 2
    assert "unknown variant 'alt_servr' (did you mean 'alt_server'?)" in told.err


@needs_volumes
def test_a_ct_site_and_an_mr_site_learn_from_their_volumes(
    command: Command, tmp_path: Path
) -> None:
    """A smoke test: that real files go through, not that two patients are enough."""
    told = command(
        "simulate",
        "unpaired_ct_mr_volumes",
        VOLUMES,
        "task.patches.per_volume=4",
        "task.patches.size=[32,32]",
        "task.preparation.spacing=[9,9,9]",
        "task.network.features=[4,4,4,4,4,4]",
        *("rounds=2", "phases.segment.steps=2", "phases.segment.batch_size=2"),
        *(f"task.cache={tmp_path}/cache", "evaluate.clients_every=2", "progress=false"),
    )
    assert told.code == 0, told.err
    assert "ct_hospital" in told.out and "mr_hospital" in told.out
    report = next(tmp_path.rglob("report"))
    assert (report / "overlays.png").stat().st_size > 20_000


@needs_volumes
def test_an_organ_that_nobody_labels_ends_before_a_run(command: Command, tmp_path: Path) -> None:
    wrong = "task.preparation.organs=[liver,splen]"
    told = command("simulate", "unpaired_ct_mr_volumes", VOLUMES, wrong)
    assert told.code == 2
    assert "unknown organ 'splen' (did you mean 'spleen'?)" in told.err
    assert not list(tmp_path.rglob("events.jsonl"))


@needs_volumes
def test_a_faulty_volume_is_named_before_a_run(command: Command, tmp_path: Path) -> None:
    table, image = tmp_path / "sites.csv", tmp_path / "broken.nii.gz"
    image.write_bytes(b"not a volume")
    good, maps = f"{DATA}/abdomen/ct_a", f"{DATA}/abdomen/labels.json"
    rows = [
        "image,label,modality,site,split,labels",
        f"{good}_image.nii.gz,{good}_labels.nii.gz,ct,north,train,{maps}",
        f"{image},{good}_labels.nii.gz,ct,south,train,{maps}",
    ]
    table.write_text("\n".join(rows))
    told = command(
        "simulate",
        "unpaired_ct_mr_volumes",
        "task.layout=null",
        f"task.table={table}",
        f"task.cache={tmp_path}/cache",
    )
    assert told.code == 3
    assert "broken.nii.gz" in told.err and "Traceback" not in told.err
    assert not list(tmp_path.rglob("config.json"))


def test_a_slice_that_a_site_lacks_is_named_before_a_run(command: Command) -> None:
    told = command("plan", "unpaired_ct_mr", *SMALL, "phases.segment.view.slices=[ct]")
    assert told.code == 2
    assert "site 'mr-0' has no rows of the slice 'ct'" in told.err
