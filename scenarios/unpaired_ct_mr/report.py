"""What a segmentation run shows: Dice by modality and organ, distances, overlays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from fedalt.build import build
from fedalt.medical.organ_heat_map import organ_heat_map
from fedalt.medical.overlays import Overlay, overlay_page
from fedalt.runs.plots import Series, curves
from fedalt.runs.report import Finished, Report, Table, Value
from fedalt.scenarios.unpaired_ct_mr.measures import measured
from fedalt.scenarios.unpaired_ct_mr.outcome import Judged, final
from fedalt.scenarios.unpaired_ct_mr.source import MODALITIES
from fedalt.scenarios.unpaired_ct_mr.task import SegmentationTask
from fedalt.task import Task

RUNS = (
    *("run", "rounds", "Dice CT", "Dice MR", "at the sites"),
    *("unseen CT", "unseen MR", "modality swapped", "MB up"),
)
MEASURED = ("dice/ct", "dice/mr", "sites", "unseen/ct", "unseen/mr", "swapped")
ORGANS = (
    *("modality", "site", "organ", "Dice", "HD95 mm", "ASSD mm"),
    *("cases", "missed", "false alarms"),
)
SHOWN = 2
"""Cases of each modality in the overlays: the one in the middle by Dice, and the worst."""


def write(task: Task, runs: Mapping[str, Finished], folder: Path) -> Report:
    """Write the tables and pictures of a run."""
    segmentation = cast(SegmentationTask, task)
    main = final(segmentation, runs["main"], surfaces=True)
    main.table.to_csv(folder / "organs.csv")
    main.table.to_csv(folder / "cases.csv", cases=True)
    tables = (_runs_table(segmentation, runs, main), organ_table(main))
    figures = [
        overlay_page(
            overlays_of(main),
            segmentation.organs,
            folder / "overlays.png",
            agreement=True,
            title=f"{main.by}: the case of middle Dice and the worst of each modality",
        ),
        organ_heat_map(
            main.table, folder / "organs.png", title=f"Dice by organ and site: {main.by}"
        ),
    ]
    lines = _lines(runs)
    if lines:
        title = f"Dice by round, {segmentation.source.described}"
        figures.append(curves(lines, folder / "dice.png", "Dice", title))
    return Report(tables, tuple(figures))


def _runs_table(task: SegmentationTask, runs: Mapping[str, Finished], main: Judged) -> Table:
    rows = []
    for label, run in runs.items():
        known = {main.measure: main.table} if label == "main" else {}
        found = measured(_task_of(run, task, runs["main"]), run, known)
        values: list[Value] = [found.get(name) for name in MEASURED]
        sent = float(run.result["bytes_up"]) / 1e6
        rows.append((label, int(run.result["round"]), *values, sent))
    notes = [
        f"data: {task.source.described}; organs: {', '.join(task.organs)}",
        "at the sites: each site's model, with the blocks it keeps, on its own test scans; the "
        "other columns are the server's model, of which there is none where blocks stay at sites",
    ]
    if task.embeddings is not None:
        notes.append(f"text embeddings sha256 {task.embeddings.hash[:16]}")
    if not task.source.held_by_server():
        notes.append("the server has no scans: each site judges its own")
    return Table("Dice of the final models", RUNS, tuple(rows), tuple(notes))


def _task_of(run: Finished, task: SegmentationTask, main: Finished) -> SegmentationTask:
    """Return a run's own task, ``task`` being the main run's: variants may differ in network."""
    spec = run.config["task"]
    return task if spec == main.config["task"] else cast(SegmentationTask, build(spec, "task"))


def organ_table(main: Judged) -> Table:
    """Return the scores of the main run by modality, site and organ."""
    rows = []
    for row in main.table.rows():
        if row["site"] != "all" and row["organ"] != "mean":
            continue
        values = (row[name] for name in ("dice", "hd95", "assd"))
        told: list[Value] = [None if np.isnan(float(v)) else float(v) for v in values]
        counts = (row["dice_cases"], row["missed"], row["false_alarms"])
        rows.append((row["modality"], row["site"], row["organ"], *told, *counts))
    notes = [
        f"{main.by} of the run 'main'; distances of organs that are there and found only, which "
        "missed ones and false alarms (found, but not there) do not change",
        "every case and organ: cases.csv; every site and organ: organs.csv",
    ]
    seen = list(dict.fromkeys(scan.site for scan in main.scans if scan.trained))
    if seen:
        notes.append(f"judged on what they trained on, for want of test scans: {', '.join(seen)}")
    return Table("organs", ORGANS, tuple(rows), tuple(notes))


def overlays_of(main: Judged) -> list[Overlay]:
    """Return, of each modality, the cases of middle and of least Dice.

    Cases without an organ, true or found, are passed over where there are others.
    """
    scores = [_case_dice(case.scores.dice) for case in main.table.cases]
    chosen: list[int] = []
    for modality in MODALITIES:
        own = [i for i, scan in enumerate(main.scans) if scan.modality == modality]
        own = [i for i in own if scores[i] is not None] or own[:1]
        own.sort(key=lambda i: -(scores[i] or 0.0))
        chosen += list(dict.fromkeys([own[len(own) // 2], own[-1]]))[:SHOWN] if own else []
    return [
        Overlay(
            f"{scan.modality.upper()}, {scan.site}",
            scan.image,
            scan.label,
            main.predicted[i],
            "no organs" if scores[i] is None else f"Dice {scores[i]:.2f}",
            scan.spacing,
        )
        for i in chosen
        for scan in [main.scans[i]]
    ]


def _case_dice(dice: np.ndarray) -> float | None:
    """Return a case's mean over its organs (K−1,), None where there is nothing to judge."""
    found = dice[np.isfinite(dice)]
    return float(found.mean()) if found.size else None


def _lines(runs: Mapping[str, Finished]) -> dict[str, Series]:
    """Return Dice by round: of each modality by the server, or by the sites where it has none."""
    found: dict[str, Series] = {}
    for label, run in runs.items():
        for modality in () if run.local else MODALITIES:
            found[f"{label}, {modality.upper()}"] = run.metric(f"server/dice/{modality}")
        found[f"{label}, at the sites"] = run.metric("clients/dice")
    return {name: line for name, line in found.items() if line[0]}
