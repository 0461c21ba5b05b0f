"""``fedalt privacy audit``: is less protected than a ledger claims? An attack on a twin run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fedalt.audit.audit import audit
from fedalt.build import TaskCache
from fedalt.cli.bars import bars
from fedalt.cli.parser import chosen_overrides
from fedalt.cli.preflight import check_run
from fedalt.cli.preflight_privacy import how_to_protect, phases_of
from fedalt.cli.ready import make_ready
from fedalt.cli.show import print_json, print_table
from fedalt.errors import ConfigError
from fedalt.privacy.stages import any_private
from fedalt.runs.folder import new_name
from fedalt.scenario import find_scenario

FEWEST = 10
"""From fewer canaries no bound says anything."""
REFUTED = 10


def run(arguments: argparse.Namespace) -> int:
    """Audit a scenario; return 10 where a bound exceeds the claim."""
    if arguments.canaries < FEWEST:
        raise ConfigError(f"--canaries {arguments.canaries}: at least {FEWEST} are needed")
    if arguments.seed < 0:
        raise ConfigError(f"--seed {arguments.seed}: 0 or more expected")
    scenario = find_scenario(arguments.scenario)
    config = {**scenario.config(chosen_overrides(scenario, arguments)), "compared": {}}
    if not any_private(phases_of(config)):
        raise ConfigError(
            f"{config['name']} protects nobody, so there is no claim to audit; "
            f"{how_to_protect(config)}"
        )
    tasks, show = TaskCache(), bool(config["progress"]) and not arguments.json
    check_run(config, tasks)
    make_ready(config, tasks, show)
    name = new_name(f"{config['name']}-audit", arguments.seed)
    out = Path(arguments.out) if arguments.out else Path(config["out"]) / name
    with bars(show) as drawn:
        sink = drawn.sink(f"twin of {config['name']}")
        outcome = audit(config, out, arguments.canaries, arguments.seed, sink, tasks)
    if arguments.json:
        print_json({"folder": str(out), **outcome.to_dict()})
    else:
        print_table(outcome.table())
        print(f"\ntwin    {out}")
    if outcome.exceeded:
        print(
            f"fedalt: the audit refutes the claim: ε of a {outcome.unit} is at least "
            f"{outcome.bounds.largest:.4g}, the ledger claims {outcome.claim:.4g}; whatever adds "
            "the noise, or bounds what it hides, does not do what the ledger says",
            file=sys.stderr,
        )
        return REFUTED
    return 0
