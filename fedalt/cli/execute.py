"""Carrying out a run that has a folder: new, or taken up after it was stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from fedalt.build import TaskCache
from fedalt.cli.bars import Bars, Lines, bars
from fedalt.cli.facts import FIGURES, left_to_do
from fedalt.cli.show import console, print_json, print_table
from fedalt.cli.spent import spent_lines
from fedalt.errors import BudgetError
from fedalt.runs.files import write_json
from fedalt.runs.folder import RunFolder
from fedalt.runs.plan import amount
from fedalt.runs.profile import mode_lines, profile_table
from fedalt.runs.report import Finished, Table, finished, stored_tables, write_report
from fedalt.runs.simulate import simulate


def execute(folder: RunFolder, tasks: TaskCache, bar: bool) -> None:
    """Run what is not finished of a run and its variants, then write the report.

    What ends it early gains a note with the command that goes on.
    """
    go_on = f"fedalt runs resume {shlex.quote(str(folder.path))}"
    try:
        _execute(folder, tasks, bar)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"go on with: {go_on}") from None
    except Exception as error:
        error.add_note(f"what was committed is kept; once the cause is mended: {go_on}")
        raise


def _execute(folder: RunFolder, tasks: TaskCache, bar: bool) -> None:
    config = folder.config()
    compared: dict[str, dict[str, Any]] = config["compared"]
    runs: dict[str, Finished] = {}
    with bars(bar) as drawn:
        runs["main"] = _one(folder, config, tasks, drawn, config["name"])
        if not left_to_do(folder, config):
            return
        with _held(folder):
            for name, variant in compared.items():
                place = folder.variant(name)
                if not (place.path / "config.json").exists():
                    place.create({**variant, "compared": {}})
                runs[name] = _one(place, variant, tasks, drawn, f"  {name}")
            if config["report"]:
                _report(folder, config, tasks, runs, bar)


def _report(
    folder: RunFolder,
    config: dict[str, Any],
    tasks: TaskCache,
    runs: dict[str, Finished],
    bar: bool,
) -> None:
    shown = bar and sys.stderr.isatty()
    with console(stderr=True).status("writing the report") if shown else nullcontext():
        report = write_report(folder, config["report"], tasks(config["task"]), runs)
    figures = [str(path.relative_to(folder.path)) for path in report.figures]
    write_json(folder.report / FIGURES, figures)


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold a run whose rounds are done while its variants and its report are made."""
    with folder.lock():
        folder.set_status("running")
        try:
            yield
        except BaseException as error:
            folder.set_status(
                "stopped" if isinstance(error, KeyboardInterrupt) else "failed",
                error=f"{type(error).__name__}: {error}",
                exit_code=getattr(error, "exit_code", 1),
            )
            raise
        folder.set_status("finished", round=(folder.result() or {}).get("round"))


def show_result(folder: RunFolder, as_json: bool) -> None:
    """Show a finished run: tables, hash, folder."""
    result = folder.result() or {}
    tables = stored_tables(folder) or [_metrics(folder, result)]
    spent = profile_table(folder)
    if spent is not None:
        tables = [*tables, spent]
    if as_json:
        rows = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in tables]
        print_json({"folder": str(folder.path), **result, "tables": rows})
        return
    for table in tables:
        print_table(table)
        print()
    count = result["round"]
    print(
        f"{count} round{'' if count == 1 else 's'} in {result['seconds']} s, "
        f"{amount(result['bytes_up'])} up, {amount(result['bytes_down'])} down"
    )
    for line in (*mode_lines(result), *spent_lines(folder, result)):
        print(line)
    print(f"weights sha256 {result['weights_sha256']}")
    print(f"folder  {folder.path}")
    if folder.report.is_dir():
        print(f"report  {folder.report} ({', '.join(_kinds(folder))})")


def exit_code(folder: RunFolder) -> int:
    """Return 0, or the code of a run or variant that its budget ended; says so on stderr."""
    compared = folder.config().get("compared", {})
    places = {"": folder, **{name: folder.variant(name) for name in compared}}
    code = 0
    for name, place in places.items():
        result = place.result() or {}
        if result.get("ended") == "budget":
            where = f"variant '{name}': " if name else ""
            print(f"fedalt: {where}{result['reason']}", file=sys.stderr)
            code = BudgetError.exit_code
    return code


def _metrics(folder: RunFolder, result: dict[str, Any]) -> Table:
    """A run without a report shows its last metrics, beside those of its variants."""
    compared = folder.config().get("compared", {})
    results = {"value" if not compared else "main": result}
    results |= {name: folder.variant(name).result() or {} for name in compared}
    metrics = {name: found.get("metrics", {}) for name, found in results.items()}
    names = sorted({metric for found in metrics.values() for metric in found})
    rows = tuple((name, *(found.get(name) for found in metrics.values())) for name in names)
    return Table("metrics after the last round", ("metric", *metrics), rows)


def _kinds(folder: RunFolder) -> list[str]:
    tables = len(list(folder.report.glob("table-*.csv")))
    pictures = len(list(folder.report.glob("*.png")))
    counts = ((tables, "table"), (pictures, "picture"))
    return [f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts if n] or ["empty"]


def _one(
    folder: RunFolder, config: dict[str, Any], tasks: TaskCache, drawn: Bars | Lines, label: str
) -> Finished:
    if folder.result() is None:
        simulate(config, folder, tasks, [drawn.sink(label, config["watch"])])
    return finished(folder, label.strip())
