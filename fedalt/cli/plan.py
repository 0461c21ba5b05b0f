"""``fedalt plan``: what a run would do, before it runs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedalt.cli.parser import add_scenario, add_variant, chosen_overrides
from fedalt.errors import ConfigError, nearest
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

PICTURES = (".png", ".svg", ".pdf")


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
    picture = _picture(arguments.plot)
    scenario = find_scenario(arguments.scenario)
    config = scenario.config(chosen_overrides(scenario, arguments))
    from fedalt.alternation import text_timeline
    from fedalt.build import TaskCache
    from fedalt.cli.preflight import check_run
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
            raise ConfigError(f"--plot {picture}: cannot be written ({error.strerror})") from error
    if arguments.json:
        print_json(costs.to_dict() | ({"streams": streams.to_dict()} if streams else {}))
        return 0
    width = min(console().width, 100)
    print(text_timeline(replace(preview, notes=()), width=width, most_sites=12))
    print_notes([f"note: {note}" for note in preview.notes])
    for table in (*costs.tables(), *(streams.tables() if streams else ())):
        print()
        print_table(table)
    if picture is not None:
        print(f"\npicture  {picture}")
    return 0


def _picture(text: str | None) -> Path | None:
    """Check where a picture shall go, before anything long begins."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        hint = nearest(path.suffix, PICTURES) if path.suffix else f" (use {', '.join(PICTURES)})"
        raise ConfigError(f"--plot {text}: unknown kind of picture '{path.suffix}'{hint}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {text}: there is no folder '{path.parent}'; make it first")
    if path.is_dir():
        raise ConfigError(f"--plot {text}: that is a folder; name a file in it")
    return path
