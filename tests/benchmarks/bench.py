"""The benchmark: engines in turn, each run in a fresh process; medians and ratios, no verdict.

    python tests/benchmarks/bench.py                        fedalt, its limit and a bare loop
    python tests/benchmarks/bench.py --peers                with the peers, set up on first use
    python tests/benchmarks/bench.py --works logistic --engines fedalt fedalt:mode=sequential pfl
    python tests/benchmarks/bench.py --quick                two repeats of six rounds

Machines are shared and noisy, so engines take turns (A B C, A B C, …) and ratios compare runs
of one turn. Prints a table, stores bench.json with every run, and draws bench.png.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines import ENGINES, OWN, ROOT, WORKS, Engine, PeerMissing, RunFailed, find_engine
from plot import draw
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from summary import plain, show, summarise


def main() -> None:
    """Run what was asked for, and store it after every repeat."""
    chosen = _options().parse_args()
    if chosen.quick:
        chosen.repeat, chosen.rounds = chosen.repeat or 2, chosen.rounds or 6
    console = Console(width=None if os.isatty(1) else 140)
    left_out: dict[str, str] = {}
    names = chosen.engines or (list(ENGINES) if chosen.peers else list(OWN))
    engines = _present([find_engine(name) for name in names], chosen.peers, left_out)
    reference = next((e.name for e in engines if e.name.startswith("fedalt")), "bare")
    facts = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": _machine(),
        "reference": reference,
        "rounds": chosen.rounds or "each work's own",
    }
    lines: list[dict[str, Any]] = []
    repeats = chosen.repeat or 5
    for _ in _turns(engines, chosen.works, repeats, chosen.rounds, lines, left_out, console):
        rows = summarise(lines, chosen.works, reference)
        stored = {**facts, "rows": plain(rows), "left_out": left_out, "runs": lines}
        chosen.out.write_text(json.dumps(stored, indent=1) + "\n")
    rows = summarise(lines, chosen.works, reference)
    show(rows, left_out, reference, console)
    if rows:
        picture = chosen.out.with_suffix(".png")
        draw(rows, picture, f"{facts['machine']['cpu']}, one thread, {facts['date'][:10]}")
        console.print(f"stored {chosen.out} and {picture}")


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    options.add_argument("--engines", nargs="+", help=f"of {', '.join(ENGINES)}")
    options.add_argument("--peers", action="store_true", help="set up and run the peers too")
    options.add_argument("--repeat", type=int, help="turns; by default 5")
    options.add_argument("--rounds", type=int, help="by default each work's own number")
    options.add_argument("--quick", action="store_true", help="2 repeats of 6 rounds")
    options.add_argument("--out", type=Path, default=ROOT / "bench.json")
    return options


def _present(engines: Sequence[Engine], make: bool, left_out: dict[str, str]) -> list[Engine]:
    """Return the engines that can run here; say of the others why not."""
    found = []
    for engine in engines:
        try:
            engine.python(make)
        except PeerMissing as error:
            left_out[engine.name] = str(error)
        else:
            found.append(engine)
    return found


def _turns(
    engines: Sequence[Engine],
    works: Sequence[str],
    repeats: int,
    rounds: int | None,
    lines: list[dict[str, Any]],
    left_out: dict[str, str],
    console: Console,
) -> Any:
    """Run everything in turns, adding to ``lines``; yields after each repeat."""
    pairs = [(engine, work) for work in works for engine in engines if work in engine.works]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=repeats * len(pairs))
        for repeat in range(repeats):
            for engine, work in pairs:
                label = f"{engine.name} on {work}"
                bar.update(task, description=f"{repeat + 1}/{repeats} {label}", advance=1)
                if label in left_out:
                    continue
                try:
                    lines.append({**engine.run(work, rounds), "repeat": repeat})
                except RunFailed as error:
                    left_out[label] = str(error)
            yield repeat


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        told = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line for line in told if line.startswith("model name")).partition(":")[2].strip()
    except (OSError, StopIteration):
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


if __name__ == "__main__":
    main()
