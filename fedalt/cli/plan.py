"""``fedalt plan``: what a run would do, before it runs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from fedalt.cli.files import cannot_write, picture_path
from fedalt.cli.parser import add_scenario, add_variant, chosen_overrides
from fedalt.scenario import find_scenario

EPILOG = """\
examples:
  fedalt plan federated_pca
  fedalt plan federated_pca --plot plan.png
  fedalt plan fedavg_mnist task.clients=100 rounds=50 --json
  fedalt plan unpaired_ct_mr --variant alt_server

Nothing is trained, and nothing but the picture is written. Conditions on
metrics, which only a run measures, count as not yet true, so a schedule with
'until' is shown at its longest."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "plan",
        help="what a run would do: timeline, visits to sites, bytes",
        description="Show a scenario's schedule before it runs: a timeline, how often each site's\n"
        "data is touched, and the bytes that travel.",
        epilog=EPILOG,
    )
    add_scenario(command)
    add_variant(command)
    command.add_argument("--plot", metavar="FILE", help="draw the timeline into a PNG, SVG or PDF")
    command.add_argument("--json", action="store_true", help="print as JSON")
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """Preview a scenario's schedule."""
    picture = picture_path(arguments.plot)
    scenario = find_scenario(arguments.scenario)
    config = scenario.config(chosen_overrides(scenario, arguments))
    from fedalt.alternation import text_timeline
    from fedalt.build import TaskCache
    from fedalt.cli.preflight import check_run
    from fedalt.cli.preflight_privacy import privacy_of
    from fedalt.cli.show import console, print_json, print_notes, print_table
    from fedalt.runs.plan import estimate, preview_of
    from fedalt.runs.streams import MOST_SITES, walk_streams

    tasks = TaskCache()
    check_run(config, tasks)
    preview, model = preview_of(config, tasks)
    costs = estimate(preview, model)
    streams = walk_streams(preview, tasks(config["task"]), config["seed"], MOST_SITES)
    if picture is not None:
        from fedalt.alternation.plot import draw_timeline

        try:
            draw_timeline(preview, picture, config["name"])
        except OSError as error:
            raise cannot_write("--plot", picture, error) from error
    facts, spent = privacy_of(config, preview, not arguments.json)
    if arguments.json:
        extra = {"streams": streams.to_dict()} if streams else {}
        print_json(costs.to_dict() | extra | facts)
        return 0
    width = min(console().width, 100)
    print(text_timeline(replace(preview, notes=()), width=width, most_sites=12))
    print_notes([f"note: {note}" for note in preview.notes])
    for table in (*costs.tables(), *(streams.tables() if streams else ()), *spent):
        print()
        print_table(table)
    if picture is not None:
        print(f"\npicture  {picture}")
    return 0
