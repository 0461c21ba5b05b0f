"""``fedalt plan``: what a run would do, before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedalt.errors import ConfigError
from fedalt.scenario import find_scenario

EPILOG = """\
examples:
  fedalt plan federated_pca
  fedalt plan federated_pca --plot plan.png
  fedalt plan fedavg_mnist task.clients=100 rounds=50 --json

Nothing is trained. Conditions on metrics, which only a run measures, count as not yet true,
so a schedule with 'until' is shown at its longest."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "plan",
        help="show what a run would do: timeline, who is touched how often, bytes",
        description="Show a scenario's schedule before it runs: a timeline, how often each "
        "site's data is touched, and the bytes that travel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("scenario", help="a name (see: fedalt scenarios) or a folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    command.add_argument("--plot", metavar="FILE", help="draw the timeline into a PNG, SVG or PDF")
    command.add_argument("--json", action="store_true", help="print as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Preview a scenario's schedule."""
    config = find_scenario(arguments.scenario).config(arguments.overrides)
    from fedalt.alternation import text_timeline
    from fedalt.cli.show import console, print_json, print_table
    from fedalt.runs.plan import estimate, preview_of

    preview, model = preview_of(config)
    costs = estimate(preview, model)
    if arguments.plot:
        from fedalt.alternation.plot import draw_timeline

        try:
            drawn = draw_timeline(preview, Path(arguments.plot), config["name"])
        except (OSError, ValueError) as error:
            raise ConfigError(f"--plot {arguments.plot} cannot be drawn: {error}") from error
    if arguments.json:
        print_json(costs.to_dict())
        return 0
    print(text_timeline(preview, most_sites=12))
    for table in costs.tables():
        print_table(table)
    if arguments.plot:
        console().print(f"picture  {drawn}", highlight=False, soft_wrap=True)
    return 0
