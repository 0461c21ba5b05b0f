"""``fedalt scenarios``: what there is to run."""

from __future__ import annotations

import argparse
from typing import Any

from fedalt.cli.show import print_json, print_table
from fedalt.runs.report import Table
from fedalt.scenario import installed_scenarios


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "scenarios",
        help="list the scenarios that can be run",
        description="List the scenarios that come with fedalt. Each is a folder with a task, a "
        "YAML file and a README that says what it shows and whose work it follows.",
    )
    command.add_argument("--json", action="store_true", help="print as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the scenarios."""
    found = installed_scenarios()
    if arguments.json:
        print_json([{"name": s.name, "summary": s.summary()} for s in found.values()])
        return 0
    rows = tuple((s.name, s.summary()) for s in found.values())
    notes = ("run one:   fedalt simulate NAME [key=value …]", "first see: fedalt plan NAME")
    print_table(Table("scenarios", ("name", "what it shows"), rows, notes))
    return 0
