"""``fedalt simulate``: run a scenario on this machine, and what it is compared with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedalt.cli.parser import add_scenario, add_variant, overrides_of_variant
from fedalt.config import variant_overrides
from fedalt.errors import ConfigError
from fedalt.scenario import Scenario, find_scenario

EPILOG = """\
examples:
  fedalt simulate federated_pca
  fedalt simulate federated_pca task.rank=10 seed=3
  fedalt simulate federated_pca task.data=synthetic compare=[]
  fedalt simulate fedavg_mnist task.partition=pathological rounds=30
  fedalt simulate unpaired_ct_mr --variant fedbn rounds=10
  fedalt simulate fedavg_mnist \\
    strategy._target_=flwr.serverapp.strategy.FedMedian
  fedalt simulate ./my_scenario         a folder with your own scenario.yaml

settings (all of a scenario's: fedalt scenarios NAME):
  rounds=N seed=N                       at most so many rounds; the run's seed
  task.KEY=… phases.NAME.KEY=…          what is learnt; what a phase does
  'schedule={chain: [a, b]}'            another schedule: it replaces the whole
  'phases.NAME.clients={mode: poisson, rate: 0.3}'
                                        other mappings are merged
  +phases.NAME.params.KEY=… ~KEY        add what the YAML lacks; take away
  compare=[] compare=[NAME]             without, or with some of, the variants
  quorum=0.8                            share of replies that must count
  evaluate.clients_every=5              clients judge the model too
  engine.mode=compiled                  how cohorts are computed; default auto
  engine.workers=2 engine.device=cuda   processes that share them; where
  profile=true                          a table of where the time went
  'phases.NAME.privacy={unit: client, clip: 1, noise: 1}'
                                        whom a phase protects, and how
  'privacy.budget={client: 8}'          the largest ε; its end is exit code 7
  out=FOLDER tensorboard=true progress=false

The run writes one folder beneath out=runs, and nothing if it cannot begin.
fedalt runs show NAME shows it again; after Ctrl-C or a crash, fedalt runs
resume NAME ends on the weights it would have had."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "simulate",
        help="run a scenario on this machine",
        description="Run a scenario's federation in this process: a Flower ServerApp, ClientApp\n"
        "and strategy on the local engine.",
        epilog=EPILOG,
    )
    add_scenario(command)
    add_variant(command)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """Simulate and show the result."""
    scenario = find_scenario(arguments.scenario)
    main = overrides_of_variant(scenario, arguments)
    config = with_variants(scenario, arguments.overrides, main)
    from fedalt.build import TaskCache
    from fedalt.cli.execute import execute, exit_code, show_result
    from fedalt.cli.preflight import check_run
    from fedalt.cli.preflight_privacy import check_budgets, privacy_notes
    from fedalt.cli.ready import make_ready
    from fedalt.runs.folder import RunFolder, new_name

    tasks = TaskCache()
    check_run(config, tasks)
    check_budgets(config, tasks)
    for note in privacy_notes(config, tasks):
        print(f"warning: {note}", file=sys.stderr)
    show = config["progress"] and not arguments.json
    make_ready(config, tasks, show)
    name = new_name(config["name"], config["seed"])
    folder = RunFolder(_claim(Path(config["out"]), name))
    folder.create(config)
    execute(folder, tasks, bar=show)
    show_result(folder, as_json=arguments.json)
    return exit_code(folder)


def with_variants(
    scenario: Scenario, overrides: list[str], main: Sequence[str] = ()
) -> dict[str, Any]:
    """Resolve a scenario, and the variants that it is compared with under ``compared``.

    ``main`` are overrides of the run itself, such as a variant's: those it is compared with
    vary the scenario, not that variant.
    """
    config = scenario.config([*main, *overrides])
    planned = {}
    for name in config["compare"]:
        changes = [*overrides, *variant_overrides(config, name), "compare=[]"]
        try:
            planned[name] = scenario.config(changes)
        except ConfigError as error:
            raise ConfigError(f"variant '{name}': {error}") from error
    return {**config, "compared": planned}


def _claim(root: Path, name: str) -> Path:
    """Make the run's folder; two runs begun in the same second get different ones."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = root / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ConfigError(
            f"out={root}: no run can be kept there ({error.strerror}); name another place"
        ) from error
