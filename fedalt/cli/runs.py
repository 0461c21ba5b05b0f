"""``fedalt runs list|show|resume``: runs on disk."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedalt.cli.parser import Parser
from fedalt.errors import CheckpointError, ConfigError, nearest

if TYPE_CHECKING:
    from fedalt.runs.folder import RunFolder

ROOT = "runs"

EPILOG = """\
examples:
  fedalt runs list                   runs beneath ./runs
  fedalt runs list --root elsewhere
  fedalt runs show runs/NAME         one run: status, tables, hash
  fedalt runs resume runs/NAME       go on with a run that was stopped or killed

A name alone is looked for beneath the root. States: finished; running;
unfinished (its rounds are done, but not what it is compared with or its
report); stopped (by Ctrl-C); interrupted (killed); failed; damaged."""

VERBS = {
    "list": "List the runs beneath a folder.",
    "show": "Show one run: its tables and hash, or where it stands and why.",
    "resume": "Go on with a run from its last committed round, and with what it is compared\n"
    "with. It ends on the weights it would have had. A finished run is shown again.",
}


def add_to(commands: Any) -> None:
    """Add the command and its three verbs to the parser."""
    command = commands.add_parser(
        "runs", help="list, show and resume runs", description="Runs on disk.", epilog=EPILOG
    )
    verbs = command.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser
    )
    for verb, handler in (("list", _list), ("show", _show), ("resume", _resume)):
        text = VERBS[verb]
        short = text.split(".")[0].split(":")[0].split(",")[0]
        sub = verbs.add_parser(verb, help=short[0].lower() + short[1:], description=text)
        if verb != "list":
            sub.add_argument("name", help="a run's folder, or its name beneath the root")
        sub.add_argument("--root", default=ROOT, help=f"where runs lie (default: {ROOT})")
        sub.add_argument("--json", action="store_true", help="print as JSON")
        sub.set_defaults(run=handler, parser=sub)


def _list(arguments: argparse.Namespace) -> int:
    from fedalt.cli.facts import facts_of
    from fedalt.cli.show import print_json, print_table
    from fedalt.runs.folder import list_runs
    from fedalt.runs.report import Table

    root = Path(arguments.root)
    # The default need not be there: nothing has been run yet.
    if not root.is_dir() and (root.exists() or arguments.root != ROOT):
        raise ConfigError(f"there is no folder {root}; name another with --root")
    facts = [facts_of(run) for run in list_runs(root)]
    if arguments.json:
        print_json(facts)
        return 0
    if not facts:
        print(f"no runs beneath {root}; begin one with: fedalt simulate NAME")
        return 0
    columns = ("run", "state", "round", "seconds", "weights sha256")
    rows = tuple(
        (f["name"], f["state"], f["round"], f["seconds"], (f["weights_sha256"] or "")[:12] or None)
        for f in facts
    )
    notes = [f"{f['name']}: {_first_line(f['note'])}" for f in facts if f["note"]]
    if any(f["state"] in ("unfinished", "stopped", "interrupted") for f in facts):
        notes.append("go on with one: fedalt runs resume NAME")
    print_table(Table(f"runs beneath {root}", columns, rows, tuple(notes)))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from fedalt.cli.execute import show_result
    from fedalt.cli.facts import facts_of
    from fedalt.cli.show import print_json, print_table
    from fedalt.runs.report import Table

    folder = find_run(arguments)
    config, facts = folder.config(), {**facts_of(folder), "folder": str(folder.path)}
    if facts["state"] == "finished":
        show_result(folder, arguments.json)
        return 0
    if arguments.json:
        print_json({**facts, "scenario": config["name"]})
        return 0
    rows = tuple((key, str(value)) for key, value in facts.items() if value is not None)
    notes: tuple[str, ...] = ()
    if facts["state"] not in ("running", "damaged"):
        notes = (f"go on with: fedalt runs resume {shlex.quote(str(folder.path))}",)
    print_table(Table(folder.name, ("what", "value"), rows, notes))
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    from fedalt.build import TaskCache
    from fedalt.cli.execute import execute, exit_code, show_result
    from fedalt.cli.facts import left_to_do

    folder = find_run(arguments)
    config = folder.config()
    if folder.locked():
        process = folder.status().get("pid")
        raise CheckpointError(
            f"run {folder.path} is in use by another process ({process}); "
            "wait until it ends, or stop it first"
        )
    if left_to_do(folder, config):
        execute(folder, TaskCache(), bar=config["progress"] and not arguments.json)
    else:
        print("nothing is left to do: the run is finished", file=sys.stderr)
    show_result(folder, arguments.json)
    return exit_code(folder)


def find_run(arguments: argparse.Namespace) -> RunFolder:
    """Find the run that an argument names; raises :class:`CheckpointError` if there is none."""
    from fedalt.runs.folder import RunFolder, list_runs

    root = Path(arguments.root)
    for path in (Path(arguments.name), root / arguments.name):
        if (path / "config.json").exists():
            return RunFolder(path)
    names = [run.name for run in list_runs(root)] if root.is_dir() else []
    if Path(arguments.name).is_dir():
        wrong = f"'{arguments.name}' is no run's folder: it holds no config.json"
    else:
        wrong = f"there is no run '{arguments.name}', here or beneath {root}"
    raise CheckpointError(f"{wrong}{nearest(arguments.name, names)}; see: fedalt runs list")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
