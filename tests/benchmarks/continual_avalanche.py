"""fedalt and Avalanche on the same streams: accuracies with paired intervals, and time.

    python tests/benchmarks/continual_avalanche.py                 MNIST, ten seeds
    python tests/benchmarks/continual_avalanche.py --seeds 2 --environments none upper

For each seed and environment, what fedalt's only client meets is exported, and Avalanche 0.6
trains on it: Naive on the experiences with the rehearsed rows among them, Cumulative on the new
rows alone for ``upper``. Same rows, initial weights, steps and optimiser; the order of rows is
each library's own. ``same batches`` then is Avalanche's loop on fedalt's batches: the largest
difference anywhere in R, which is rounding's alone. FEDALT_DATA says where the images are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from continual_streams import Met, export
from engines import HERE, ONE_THREAD, ROOT
from peers import install
from rich.console import Console
from rich.table import Table

from fedalt.build import TaskCache
from fedalt.evaluation import average_accuracy, backward_transfer, interval
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import finished
from fedalt.runs.simulate import simulate
from fedalt.scenario import find_scenario
from fedalt.scenarios.continual_power_law.measures import read_run

ENVIRONMENTS = ("none", "inverse_lag", "uniform", "upper")
BASE = (
    "task.clients=1",
    "phases.learn.epochs=6",
    "schedule.stream.rounds=1",
    "evaluate={clients_every: 0, server_every: 1, each: false}",
    "checkpoint.every=10000",
    "engine.mode=sequential",
    "profile=true",
    "compare=[]",
)
MEASURES = {"ACC": average_accuracy, "BWT": backward_transfer}
Line = dict[str, Any]


def main() -> None:
    """Run all seeds, store every matrix and print the table."""
    chosen = _options().parse_args()
    python, tasks, console = (
        install("avalanche"),
        TaskCache(),
        Console(width=None if os.isatty(1) else 140),
    )
    lines: list[Line] = []
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as place:
            lines += run_seed(seed, chosen, python, tasks, Path(place))
        console.print(f"seed {seed + 1} of {chosen.seeds}", highlight=False)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps({"options": _plain(chosen), "runs": lines}) + "\n")
    console.print(table(lines, chosen))
    console.print(f"stored {chosen.out}", highlight=False)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--environments", nargs="+", default=list(ENVIRONMENTS))
    options.add_argument("--data", default="mnist", help="mnist or fashion_mnist")
    options.add_argument("--tasks", type=int, default=10)
    options.add_argument("--rows", type=int, default=2000, help="new rows of an experience")
    options.add_argument("--rehearsal", type=float, default=0.1)
    options.add_argument("--out", type=Path, default=ROOT / ".bench" / "continual.json")
    return options


def run_seed(
    seed: int, chosen: argparse.Namespace, python: Path, tasks: TaskCache, place: Path
) -> list[Line]:
    """Return a line for each environment: both libraries' R, seconds and steps."""
    lines: list[Line] = []
    for environment in chosen.environments:
        overrides = [
            f"seed={seed}",
            f"task.data={chosen.data}",
            f"task.tasks={chosen.tasks}",
            f"task.rows={chosen.rows}",
            f"schedule.stream.rehearsal={chosen.rehearsal}",
            f"schedule.stream.environment={environment}",
        ]
        config = find_scenario("continual_power_law").config([*BASE, *overrides])
        task, file = tasks(config["task"]), place / f"{environment}.npz"
        check_rows(export(config, task, file), task.source, chosen.rows)
        told = {"seed": seed, "environment": environment, "source": task.source}
        told["fedalt"] = learn(config, task, place)
        strategy = "cumulative" if environment == "upper" else "naive"
        own, same = ask(python, seed, [f"{strategy}:{file}", f"given:{file}"], config)
        file.unlink()
        lines.append({**told, "strategy": strategy, "avalanche": own, "same_batches": same})
    return lines


def check_rows(met: Sequence[Met], source: str, rows: int) -> None:
    """Refuse data that are too few: without its images, a data set gives way to smaller ones."""
    found = sorted({each.new for each in met})
    if found != [rows]:
        raise SystemExit(
            f"experiences of {found} new rows of '{source}', but {rows} were asked for: "
            "set FEDALT_DATA to the folder that holds the images, or lower --rows"
        )


def learn(config: Mapping[str, Any], task: Any, place: Path) -> Line:
    """Return R of a run of fedalt, its steps, and its rounds' seconds without judging."""
    folder, judging = RunFolder(place / f"run-{time.monotonic_ns()}"), 0.0

    def hear(event: Mapping[str, Any]) -> None:
        nonlocal judging
        if event["event"] == "profile":
            judging += sum(event["seconds"].get(name, 0) for name in ("judgement", "evaluation"))

    folder.create({**config, "compared": {}})
    simulate(config, folder, lambda spec: task, [hear])  # type: ignore[arg-type]
    run = finished(folder, "main")
    seconds = sum(event["seconds"] for event in run.rounds) - judging
    read = read_run(task, run)
    return {"matrix": read.matrix.tolist(), "steps": read.steps, "seconds": seconds}


def ask(python: Path, seed: int, jobs: Sequence[str], config: Mapping[str, Any]) -> list[Line]:
    """Return what Avalanche makes of exported streams, in the order of ``jobs``."""
    phase = config["phases"]["learn"]
    settings = [f"--lr={phase['params']['lr']}", f"--batch={phase['batch_size']}"]
    script = str(HERE / "continual_peer.py")
    done = subprocess.run(
        [str(python), "-W", "ignore", script, *jobs, f"--seed={seed}", *settings],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"job"')]
    if done.returncode or len(lines) != len(jobs):
        raise SystemExit(f"avalanche: {done.stderr.strip()[-2000:] or done.stdout[-2000:]}")
    return [{**line, "steps": sum(line["steps"])} for line in lines]


def table(lines: Sequence[Line], chosen: argparse.Namespace) -> Table:
    """Return the table: means ± 95 % t-intervals over seeds, differences seed by seed."""
    found = Table(
        title=f"{lines[0]['source']}: {chosen.tasks} tasks of {chosen.rows} rows, r = "
        f"{chosen.rehearsal:g}, {chosen.seeds} seeds, mean ± 95 %"
    )
    columns = ("environment", "", "fedalt", "avalanche", "difference")
    for head in (*columns, "same batches", "fedalt ms a step", "avalanche"):
        found.add_column(head, justify="left" if head in columns[:2] else "right")
    for environment in chosen.environments:
        own = [line for line in lines if line["environment"] == environment]
        far, whose = max(_far(line) for line in own), ("fedalt", "avalanche")
        first = [environment, f"{far:.4f}", *(_step_ms(own, who) for who in whose)]
        for name, measure in MEASURES.items():
            ours, theirs = (
                np.array([measure(line[who]["matrix"]) for line in own]) for who in whose
            )
            cells = [_mean(values) for values in (ours, theirs, ours - theirs)]
            found.add_row(first[0], name, *cells, *first[1:])
            first = ["", "", "", ""]
    return found


def _far(line: Line) -> float:
    one, other = (np.array(line[who]["matrix"]) for who in ("fedalt", "same_batches"))
    steps = {line[who]["steps"] for who in ("fedalt", "avalanche", "same_batches")}
    if len(steps) != 1:
        raise SystemExit(f"seed {line['seed']}, {line['environment']}: steps differ: {steps}")
    return float(np.abs(one - other).max())


def _step_ms(lines: Sequence[Line], who: str) -> str:
    return f"{np.median([1000 * line[who]['seconds'] / line[who]['steps'] for line in lines]):.2f}"


def _mean(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values.mean():.4f}"
    band = interval(values)
    return f"{float(band.mean):.4f} ± {float(band.high - band.mean):.4f}"


def _plain(chosen: argparse.Namespace) -> Line:
    return {key: value for key, value in vars(chosen).items() if key != "out"}


if __name__ == "__main__":
    main()
