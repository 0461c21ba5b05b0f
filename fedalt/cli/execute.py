"""Carrying out a run that has a folder: new, or taken up after it was stopped."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from fedalt.build import TaskCache
from fedalt.cli.show import Bars, bars, console, print_json, print_table
from fedalt.runs.files import write_json
from fedalt.runs.folder import RunFolder
from fedalt.runs.plan import amount
from fedalt.runs.report import Finished, finished, stored_tables, write_report
from fedalt.runs.simulate import simulate


def execute(folder: RunFolder, tasks: TaskCache, bar: bool) -> None:
    """Run what is not finished of a run and its variants, then write the report."""
    config = folder.config()
    compared: dict[str, dict[str, Any]] = config["compared"]
    runs: dict[str, Finished] = {}
    with bars(bar) as drawn:
        runs["main"] = _one(folder, config, tasks, drawn, config["name"])
        for name, variant in compared.items():
            place = folder.variant(name)
            if not (place.path / "config.json").exists():
                place.create({**variant, "compared": {}})
            runs[name] = _one(place, variant, tasks, drawn, f"  {name}")
    if config["report"]:
        with console(stderr=True).status("writing the report") if bar else nullcontext():
            report = write_report(folder, config["report"], tasks(config["task"]), runs)
        figures = [str(path.relative_to(folder.path)) for path in report.figures]
        write_json(folder.report / "figures.json", figures)


def show_result(folder: RunFolder, as_json: bool) -> None:
    """Show a finished run: tables, hash, folder."""
    result = folder.result() or {}
    tables = stored_tables(folder)
    if as_json:
        rows = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in tables]
        print_json({"folder": str(folder.path), **result, "tables": rows})
        return
    for table in tables:
        print_table(table)
    out = console()
    out.print(
        f"{result['round']} rounds in {result['seconds']} s, "
        f"{amount(result['bytes_up'])} up, {amount(result['bytes_down'])} down",
        highlight=False,
    )
    out.print(f"weights sha256 {result['weights_sha256']}", highlight=False)
    out.print(f"folder  {folder.path}", highlight=False, soft_wrap=True)


def _one(
    folder: RunFolder, config: dict[str, Any], tasks: TaskCache, drawn: Bars, label: str
) -> Finished:
    if folder.result() is None:
        simulate(config, folder, tasks, [drawn.sink(label, config["watch"])])
    return finished(folder, label.strip())
