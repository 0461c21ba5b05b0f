"""What a run will cost, derived from its plan alone: touches and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedalt.alternation import ALL, BlockMap, Phase, Preview, parse_schedule, preview_schedule
from fedalt.alternation.local import local_arrays
from fedalt.build import TaskCache
from fedalt.runs.report import Table
from fedalt.seeds import Seeds


@dataclass(frozen=True)
class PhaseCost:
    """One phase over the whole run: its rounds, its site-rounds, and bytes each way."""

    phase: str
    kernel: str
    trained: tuple[str, ...]
    rounds: int
    site_rounds: int
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class Touches:
    """How often sites are touched for one block, modality and task, over the whole run."""

    block: str
    modality: str
    task: str
    sites: int
    least: int
    mean: float
    most: int


@dataclass(frozen=True)
class Costs:
    """A plan's costs; bytes are those of the arrays, without a transport's own."""

    rounds: int
    ended: bool
    phases: tuple[PhaseCost, ...]
    touches: tuple[Touches, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "rounds": self.rounds,
            "ends": self.ended,
            "phases": [vars(cost) for cost in self.phases],
            "touches": [vars(touch) for touch in self.touches],
            "notes": list(self.notes),
        }

    def tables(self) -> tuple[Table, Table]:
        """Return the costs as two tables: by phase, and by block, modality and task."""
        rows = [
            (
                cost.phase,
                cost.kernel,
                ", ".join(cost.trained),
                cost.rounds,
                cost.site_rounds,
                amount(cost.bytes_down),
                amount(cost.bytes_up),
            )
            for cost in self.phases
        ]
        down = sum(cost.bytes_down for cost in self.phases)
        up = sum(cost.bytes_up for cost in self.phases)
        total = ("all", "", "", self.rounds, sum(c.site_rounds for c in self.phases))
        columns = ("phase", "kernel", "trains", "rounds", "site-rounds", "down", "up")
        phases = Table("work and bytes", columns, (*rows, (*total, amount(down), amount(up))))
        touched = Table(
            "how often a site's data is touched",
            ("block", "modality", "task", "sites", "least", "mean", "most"),
            tuple(
                (t.block, t.modality or "any", t.task or "any", t.sites, t.least, t.mean, t.most)
                for t in self.touches
            ),
        )
        return phases, touched


def preview_of(
    config: Mapping[str, Any], tasks: TaskCache | None = None
) -> tuple[Preview, dict[str, np.ndarray]]:
    """Preview a configuration's schedule; return it with the model before the first round."""
    task = (tasks or TaskCache())(config["task"])
    seeds = Seeds(config["seed"])
    model = task.initial_arrays(seeds.at("initial"))
    blocks = BlockMap.of(model, task.blocks)
    schedule = parse_schedule(config["phases"], config["schedule"])
    preview = preview_schedule(schedule, seeds.at("schedule"), task.sites, config["rounds"], blocks)
    return preview, model


def estimate(preview: Preview, model: Mapping[str, np.ndarray]) -> Costs:
    """Count a preview's touches and bytes."""
    sizes = {name: values.nbytes for name, values in model.items()}
    blocks = preview.blocks or BlockMap.of(model)
    phases: dict[str, Phase] = {}
    rounds: dict[str, int] = {}
    site_rounds: dict[str, int] = {}
    touched: dict[tuple[str, str, str], dict[int, int]] = {}
    for plan in preview.rounds:
        for part in plan.parts:
            phase = part.phase
            phases[phase.name] = phase
            rounds[phase.name] = rounds.get(phase.name, 0) + 1
            site_rounds[phase.name] = site_rounds.get(phase.name, 0) + len(part.cohort)
            for block in phase.train or (ALL,):
                cell = touched.setdefault((block, phase.modality, phase.task), {})
                for site in part.cohort:
                    cell[site.index] = cell.get(site.index, 0) + 1
    local = local_arrays(phases.values(), blocks)
    costs = []
    for name, phase in phases.items():
        down = sum(sizes[array] for array in blocks.select(phase.send) if array not in local)
        up = sum(sizes[array] for array in blocks.select(phase.train) if array not in local)
        times = site_rounds[name]
        costs.append(
            PhaseCost(
                phase=name,
                kernel=phase.kernel,
                trained=phase.train or (ALL,),
                rounds=rounds[name],
                site_rounds=times,
                bytes_down=down * times,
                bytes_up=up * times,
            )
        )
    touches = [_touches(key, cell, len(preview.sites)) for key, cell in touched.items()]
    return Costs(len(preview.rounds), preview.ended, tuple(costs), tuple(touches), preview.notes)


def _touches(key: tuple[str, str, str], cell: Mapping[int, int], sites: int) -> Touches:
    counts = [*cell.values(), *([0] * (sites - len(cell)))]
    return Touches(*key, len(cell), min(counts), float(np.mean(counts)), max(counts))


def amount(number: float) -> str:
    """Write a number of bytes with three digits and a unit (powers of 1000)."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    # 999.5 would be written 1000: it is 1.00 of the next unit.
    while number >= (1000 if unit == "B" else 999.5) and unit != "PB":
        number, unit = number / 1000, next(units)
    return f"{number:.0f} B" if unit == "B" else f"{number:#.3g}".rstrip(".") + f" {unit}"
