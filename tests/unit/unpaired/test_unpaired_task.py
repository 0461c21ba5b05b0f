"""The segmentation task in federations: blocks, judgements, local norms, modes, resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import Stop, federate
from segmentation import SCHEDULE, TRAIN, segment, small_task, task_spec
from torch import nn

from fedalt.clients.kernels.model import ReusedModel
from fedalt.errors import ConfigError
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Finished, finished
from fedalt.scenarios.unpaired_ct_mr.judge import judged, predictions
from fedalt.scenarios.unpaired_ct_mr.measures import measure
from fedalt.scenarios.unpaired_ct_mr.outcome import final
from fedalt.scenarios.unpaired_ct_mr.report import write
from fedalt.scenarios.unpaired_ct_mr.source import Scan
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.seeds import Seeds

SIZE = (32, 32)


def run(task: SegmentationTask, folder: Path, phases: Any = None, **changes: Any) -> Finished:
    given = {"phases": phases or segment(), "schedule": SCHEDULE, "rounds": 2, **changes}
    federate(task, folder, **given)
    return finished(RunFolder(folder), "main")


@pytest.mark.parametrize("norm", ["group", "batch", "batch_statistics", "instance"])
@pytest.mark.parametrize("head", ["modality", "plain"])
def test_blocks_part_the_model(norm: str, head: str) -> None:
    task = small_task({"norm": norm, "head": head}, size=[64, 64])
    names = [name for block in task.blocks for name in block.globs]
    assert sorted(names) == sorted(task.initial_arrays(Seeds(0)))
    assert len(set(names)) == len(names)
    assert [block.name for block in task.blocks] == TRAIN
    norms = dict(zip(TRAIN, task.blocks, strict=True))["norm"].globs
    assert any("running_mean" in name for name in norms) == (norm == "batch")
    assert not any(name.startswith("head") for name in norms)


class Told(nn.Module):
    """Labels every pixel by the modality that it is told: CT 1, MR 2."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(()))

    def forward(self, image: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(image), 4, *image.shape[2:])
        logits[torch.arange(len(image)), modality + 1] = 1.0
        return logits


def test_each_scan_is_predicted_as_its_modality() -> None:
    task = small_task()
    scans = task.source.held_by_server()
    large = Scan("l", "s", "mr", np.zeros((40, 50), np.float32), np.zeros((40, 50), np.uint8),
                 np.ones(4, bool), (1.0, 1.0))  # fmt: skip
    some = [scans[-1], scans[0], large]
    assert [np.unique(p).tolist() for p in predictions(Told(), some, SIZE)] == [[2], [1], [2]]
    swapped = predictions(Told(), some, SIZE, swapped=True)
    assert [np.unique(p).tolist() for p in swapped] == [[1], [2], [1]]


def test_the_judgement_is_dice_by_hand() -> None:
    task = small_task()
    arrays = task.initial_arrays(Seeds(1))
    model = task.loaded(arrays)
    scans = task.source.scans(0)
    found = {}
    for k, organ in enumerate(task.organs, start=1):
        values = []
        for scan in scans:
            image = torch.from_numpy(scan.image)[None, None]
            with torch.no_grad():
                labels = model(image, torch.tensor([0])).argmax(1)[0].numpy() == k
            true = scan.label == k
            if true.any() or labels.any():
                values.append(2 * (true & labels).sum() / (true.sum() + labels.sum()))
        found[f"dice/{organ}"] = float(np.mean(values))
    count, metrics = task.site_judge(model, 0)
    assert count == 3
    assert metrics == pytest.approx({"dice": np.mean(list(found.values())), **found})


def test_modalities_weigh_alike_on_the_server() -> None:
    task = small_task(sites={"ct": 1, "mr": 1})
    metrics = task.evaluate(task.initial_arrays(Seeds(1)))
    assert metrics["dice"] == pytest.approx((metrics["dice/ct"] + metrics["dice/mr"]) / 2)
    assert {f"dice/{m}/{o}" for m in ("ct", "mr") for o in task.organs} <= set(metrics)


def test_local_norms_are_each_sites_own(tmp_path: Path) -> None:
    task = small_task({"norm": "batch"})
    phases = segment(aggregate={"norm": "local"})
    evaluate = {"clients_every": 2, "server_every": 0, "each": True}
    made = run(task, tmp_path, phases, evaluate=evaluate)
    norm = next(block.globs for block in task.blocks if block.name == "norm")
    assert made.local == set(norm)
    ct, mr = made.arrays_of(0), made.arrays_of(1)
    start = task.initial_arrays(Seeds(0).at("initial"))
    for name in norm:
        assert (made.arrays[name] == start[name]).all()
    assert any((ct[name] != mr[name]).any() for name in norm)
    # The report judges each site by its own model, as the sites did.
    outcome = final(task, made)
    assert outcome.by == "each site's model"
    (row,) = write(task, {"main": made}, tmp_path).tables[0].rows
    assert row[2:8] == (None, None, measure(task, made)["sites"], None, None, None)
    told = made.clients[-1]["sites"]
    for site in (0, 1):
        _, metrics = task.site_judge(task.loaded(made.arrays_of(site)), site)
        assert told[str(site)]["dice"] == pytest.approx(metrics["dice"], rel=1e-5)
        assert outcome.table.mean("dice", site=task.sites[site].name) == pytest.approx(
            metrics["dice"]
        )


def test_measures_and_report_of_a_small_run(tmp_path: Path) -> None:
    task = small_task({"norm": "batch"})
    made = run(task, tmp_path / "run")
    found = measure(task, made)
    scans = task.source.held_by_server()
    swapped = judged(task.loaded(made.arrays), scans, task.organs, SIZE, swapped=True)
    assert found["swapped/ct"] == pytest.approx(swapped.mean("dice", modality="ct"))
    assert {"dice", "sites/mr", "unseen/ct", "batch_statistics"} <= set(found)
    assert found["data"] == task.source.described
    told = write(task, {"main": made}, tmp_path)
    assert all(figure.stat().st_size > 10_000 for figure in told.figures)
    assert [row[0] for row in told.tables[0].rows] == ["main"]
    assert len((tmp_path / "cases.csv").read_text().splitlines()) == 1 + len(scans) * 3


def test_a_report_judges_each_run_by_its_own_network(tmp_path: Path) -> None:
    target = {"_target_": "fedalt.scenarios.unpaired_ct_mr.tasks.phantom_task"}
    runs, wanted = {}, {}
    for name, network in (
        ("main", {}),
        ("batch_statistics", {"norm": "batch_statistics"}),
        ("no_modality", {"head": "text"}),
        ("batch", {"norm": "batch"}),
    ):
        task = small_task(network)
        config = {"task": {**target, **task_spec(network)}}
        made = run(task, tmp_path / name, segment(steps=12), rounds=3)
        runs[name] = replace(made, config=config)
        wanted[name] = measure(task, made)
    table = write(small_task(), runs, tmp_path).tables[0]
    # The table has whose numbers it says, and they differ.
    assert len({row[2:4] for row in table.rows}) == len(runs)
    for row in table.rows:
        assert row[2:4] == (wanted[row[0]]["dice/ct"], wanted[row[0]]["dice/mr"])
    # One told the wrong modality is no other where the head knows none.
    assert wanted["no_modality"]["swapped"] == pytest.approx(wanted["no_modality"]["dice"])


def test_a_stopped_run_ends_on_the_same_weights(tmp_path: Path) -> None:
    task = small_task({"norm": "batch"}, sites={"both": 2})
    changes: dict[str, Any] = {
        "phases": segment(aggregate={"norm": "local"}, view={"slices": ["ct", "mr"]}),
        "schedule": SCHEDULE,
    }
    straight, _ = federate(task, tmp_path / "a", **changes)
    with pytest.raises(Stop):
        federate(task, tmp_path / "b", stop_at=1, **changes)
    resumed, _ = federate(task, tmp_path / "b", **changes)
    assert resumed["weights_sha256"] == straight["weights_sha256"]


@pytest.mark.parametrize("backbone", ["unet", "swin"])
def test_volumes_train_on_the_cpu(tmp_path: Path, backbone: str) -> None:
    network: dict[str, Any] = {"backbone": backbone, "norm": "instance"}
    if backbone == "swin":
        network |= {"feature_size": 12}
    size = [32, 32, 32] if backbone == "unet" else [64, 32, 32]
    task = small_task(network, size=size, images=2, site_test=1, server_test=1)
    made = run(task, tmp_path, segment(steps=1, batch_size=2), rounds=1)
    start = task.initial_arrays(Seeds(0).at("initial"))
    assert all(np.isfinite(values).all() for values in made.arrays.values())
    assert any((made.arrays[name] != start[name]).any() for name in start)
    assert 0.0 <= made.result["metrics"]["server/dice"] <= 1.0


def test_volumes_have_no_channels_last_layout() -> None:
    task = small_task({"norm": "instance"}, size=[32, 32, 32], images=2, site_test=1)
    with pytest.raises(ConfigError, match="channels last is a layout of pictures"):
        ReusedModel(task, "cpu", channels_last=True)


def test_models_are_judged_on_the_tasks_device() -> None:
    """On torch's ``meta`` device, which is everywhere."""
    task = small_task()
    arrays = task.initial_arrays(Seeds(0))
    assert {p.device.type for p in task.loaded(arrays).parameters()} == {"cpu"}
    task.device = "meta"
    assert {p.device.type for p in task.loaded(arrays).parameters()} == {"meta"}
