"""``fedalt runs list|show|resume``: runs on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedalt.build import TaskCache
from fedalt.cli.execute import execute, show_result
from fedalt.cli.show import print_json, print_table
from fedalt.errors import CheckpointError, ConfigError, nearest
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.folder import RunFolder, list_runs
from fedalt.runs.report import Table

EPILOG = """\
examples:
  fedalt runs list                      runs beneath ./runs
  fedalt runs list --root elsewhere
  fedalt runs show runs/NAME            one run: status, tables, hash
  fedalt runs resume runs/NAME          go on with a run that was stopped or killed
A name alone is looked for beneath the root."""


def add_to(commands: Any) -> None:
    """Add the command and its three verbs to the parser."""
    command = commands.add_parser(
        "runs",
        help="list, show and resume runs",
        description="Runs on disk.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = command.add_subparsers(dest="verb", metavar="list|show|resume", required=True)
    for verb, handler, text in (
        ("list", _list, "list the runs beneath a folder"),
        ("show", _show, "show one run"),
        ("resume", _resume, "go on with a run from its last committed round"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        if verb != "list":
            sub.add_argument("name", help="a run's folder, or its name beneath the root")
        sub.add_argument("--root", default="runs", help="where runs lie (default: runs)")
        sub.add_argument("--json", action="store_true", help="print as JSON")
        sub.set_defaults(run=handler)


def _list(arguments: argparse.Namespace) -> int:
    root = Path(arguments.root)
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; name another with --root")
    found = list_runs(root)
    facts = [_facts(run) for run in found]
    if arguments.json:
        print_json(facts)
        return 0
    columns = ("run", "state", "round", "seconds", "weights sha256")
    rows = tuple(
        (f["name"], f["state"], f["round"], f["seconds"], (f["weights_sha256"] or "")[:12] or None)
        for f in facts
    )
    print_table(Table(f"runs beneath {root}", columns, rows))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    folder = _find(arguments)
    if folder.result() is not None:
        show_result(folder, arguments.json)
        return 0
    facts = {**folder.status(), **_facts(folder), "folder": str(folder.path)}
    if arguments.json:
        print_json(facts)
        return 0
    rows = tuple((key, str(value)) for key, value in facts.items() if value is not None)
    notes = (f"go on with: fedalt runs resume {folder.path}",)
    print_table(Table(folder.name, ("what", "value"), rows, notes))
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    folder = _find(arguments)
    config = folder.config()
    execute(folder, TaskCache(), bar=config["progress"] and not arguments.json)
    show_result(folder, arguments.json)
    return 0


def _find(arguments: argparse.Namespace) -> RunFolder:
    for path in (Path(arguments.name), Path(arguments.root) / arguments.name):
        if (path / "config.json").exists():
            return RunFolder(path)
    root = Path(arguments.root)
    names = [run.name for run in list_runs(root)] if root.is_dir() else []
    raise CheckpointError(f"no run '{arguments.name}'{nearest(arguments.name, names)}")


def _facts(run: RunFolder) -> dict[str, Any]:
    result = run.result() or {}
    number = result.get("round")
    if number is None:
        snapshot, _ = newest_checkpoint(run.checkpoints)
        number = snapshot.round if snapshot is not None else None
    return {
        "name": run.name,
        "state": run.status()["state"],
        "round": number,
        "seconds": result.get("seconds"),
        "weights_sha256": result.get("weights_sha256"),
    }
