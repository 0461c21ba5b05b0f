"""``fedalt scenarios``: what there is to run, and what can be set."""

from __future__ import annotations

import argparse
from typing import Any

from fedalt.config import FILE
from fedalt.scenario import find_scenario, installed_scenarios

EPILOG = """\
examples:
  fedalt scenarios                  all of them
  fedalt scenarios federated_pca    one's settings, as its YAML holds them

To write one of your own, copy a scenario.yaml into a folder, change it, and
name that folder in place of a scenario: fedalt simulate ./my_scenario"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "scenarios",
        help="list the scenarios that can be run, or one's settings",
        description="List the scenarios that come with fedalt. Each is a folder with a task, a\n"
        "YAML file and a README that says what it shows and whose work it follows.",
        epilog=EPILOG,
    )
    command.add_argument("name", nargs="?", help="show this one's settings and where it lies")
    command.add_argument("--json", action="store_true", help="print as JSON")
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """List the scenarios, or show one."""
    from fedalt.cli.show import print_json, print_table
    from fedalt.runs.report import Table

    if arguments.name:
        scenario = find_scenario(arguments.name)
        if arguments.json:
            print_json(scenario.config())
            return 0
        print((scenario.folder / FILE).read_text(encoding="utf-8").rstrip())
        print(f"\n# folder  {scenario.folder}")
        return 0
    found = installed_scenarios()
    if arguments.json:
        print_json([{"name": s.name, "summary": s.summary()} for s in found.values()])
        return 0
    rows = tuple((s.name, s.summary()) for s in found.values())
    notes = (
        "settings:  fedalt scenarios NAME",
        "plan it:   fedalt plan NAME [key=value …]",
        "run it:    fedalt simulate NAME [key=value …]",
    )
    print_table(Table("scenarios", ("name", "what it shows"), rows, notes))
    return 0
