"""``fedalt simulate``: run a scenario on this machine, and what it is compared with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedalt.build import TaskCache
from fedalt.config import variant_overrides
from fedalt.runs.folder import RunFolder, new_name
from fedalt.scenario import find_scenario

EPILOG = """\
examples:
  fedalt simulate federated_pca
  fedalt simulate federated_pca task.clients=50 seed=3
  fedalt simulate federated_pca task.data=synthetic compare=[]
  fedalt simulate fedavg_mnist task.partition=pathological rounds=30
  fedalt simulate fedavg_mnist strategy._target_=flwr.serverapp.strategy.FedMedian

Every setting of the scenario's YAML can be overridden as key=value (Hydra's grammar).
The run writes one folder beneath out=runs; fedalt runs show NAME shows it again."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "simulate",
        help="run a scenario on this machine",
        description="Run a scenario's federation in this process: a Flower ServerApp, "
        "ClientApp and strategy on the local engine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("scenario", help="a name (see: fedalt scenarios) or a folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate and show the result."""
    scenario = find_scenario(arguments.scenario)
    config = scenario.config(arguments.overrides)
    folder = _free_folder(Path(config["out"]), new_name(config["name"], config["seed"]))
    planned = {
        name: scenario.config(
            [*arguments.overrides, *variant_overrides(config, name), "compare=[]"]
        )
        for name in config["compare"]
    }
    from fedalt.cli.execute import execute, show_result

    tasks = TaskCache()
    tasks(config["task"])  # bad data or settings end here, before any folder is made
    folder.create({**config, "compared": planned})
    execute(folder, tasks, bar=config["progress"] and not arguments.json)
    show_result(folder, as_json=arguments.json)
    return 0


def _free_folder(root: Path, name: str) -> RunFolder:
    """Two runs begun in the same second get different folders."""
    candidate, number = root / name, 2
    while candidate.exists():
        candidate, number = root / f"{name}-{number}", number + 1
    return RunFolder(candidate)
