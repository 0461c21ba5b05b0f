"""A claim's outcome as tables, as plain data and as files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from fedalt import __version__
from fedalt.claims.jobs import Job
from fedalt.claims.judge import HOLDS, Interval, Judged, interval
from fedalt.claims.outcome import Outcome
from fedalt.claims.picture import draw
from fedalt.claims.tradeoff import draw_tradeoff
from fedalt.runs.files import write_atomic, write_json
from fedalt.runs.report import Table, Value

STATEMENTS = ("statement", "found", "95 % interval", "verdict")


def tables(outcome: Outcome) -> list[Table]:
    """Return the arms' measures, the claimed statements, and those only shown."""
    count = len(outcome.seeds)
    made = [_arms(outcome), _statements(f"claimed, {_seeds(count)}", outcome.holds, count)]
    if outcome.shown:
        made.append(_statements("measured, not claimed", outcome.shown, count))
    return made


def verdict_line(outcome: Outcome) -> str:
    """Say in one line whether the claim holds, and by how many statements."""
    verdicts = [item.verdict for item in outcome.holds]
    told = [f"{verdicts.count(HOLDS)} of {len(outcome.claim.holds)} statements hold"]
    told += [
        f"{verdicts.count(other)} {words}"
        for other, words in (("does not hold", "do not"), ("undecided", "undecided"))
        if other in verdicts
    ]
    if outcome.left_out:
        told.append(f"{len(outcome.left_out)} not judged, for want of arms")
    verdict = {"undecided": "is undecided"}.get(outcome.verdict, outcome.verdict)
    return f"the claim {verdict}: {', '.join(told)}" + (
        "" if len(outcome.seeds) > 1 else " (by the means of one seed; no interval)"
    )


def to_data(outcome: Outcome, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the outcome as plain data; a number that is not finite is None."""
    folders = {pair: job.folder.name for job in jobs for pair in job.stands_for}
    return {
        "name": outcome.name,
        "fedalt": __version__,
        "claim": outcome.claim.text,
        "verdict": outcome.verdict,
        "seeds": list(outcome.seeds),
        "holds": [_judged_data(item) for item in outcome.holds],
        "shown": [_judged_data(item) for item in outcome.shown],
        "not_judged": [item.text for item in outcome.left_out],
        "arms": {
            arm: {
                "overrides": list(outcome.claim.arms[arm]),
                "measures": {name: _interval_data(i) for name, i in _intervals(runs).items()},
                "runs": [
                    {
                        "seed": seed,
                        "folder": folders[arm, seed],
                        "weights_sha256": run.weights_sha256,
                        "measures": {n: _finite(v) for n, v in sorted(run.values.items())},
                        "facts": dict(run.facts),
                    }
                    for seed, run in zip(outcome.seeds, runs, strict=True)
                ],
            }
            for arm, runs in outcome.runs.items()
        },
    }


def write_files(outcome: Outcome, data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write claim.json, the tables as CSV and the pictures; return their paths."""
    write_json(folder / "claim.json", data)
    measures = (
        (arm, seed, name, value)
        for arm, runs in outcome.runs.items()
        for seed, run in zip(outcome.seeds, runs, strict=True)
        for name, value in sorted(run.values.items())
    )
    _csv(folder / "measures.csv", ("arm", "seed", "measure", "value"), measures)
    keys = ("statement", "measure", "contrast", "mean", "low", "high", "seeds", "verdict")
    judged = [("claimed", item) for item in data["holds"]]
    judged += [("shown", item) for item in data["shown"]]
    rows = ((how, *(item[key] for key in keys)) for how, item in judged)
    _csv(folder / "statements.csv", ("how", *keys), rows)
    pictures = [draw(outcome, folder / "claim.png")]
    tradeoff = draw_tradeoff(outcome, folder / "tradeoff.png")
    if tradeoff is not None:
        pictures.append(tradeoff)
    return [folder / "claim.json", folder / "measures.csv", folder / "statements.csv", *pictures]


def figure(found: Interval) -> str:
    """Write mean ± half with the digits that the half supports."""
    mean = _rounded(found.mean, found.half)
    return mean if found.half is None else f"{mean} ± {_rounded(found.half, found.half)}"


def _arms(outcome: Outcome) -> Table:
    names = outcome.claim.measures
    values = {name: outcome.values(name) for name in names}
    rows = tuple(
        (arm, *(figure(interval(v[arm])) if arm in v else None for v in values.values()))
        for arm in outcome.runs
    )
    count = len(outcome.seeds)
    how = "mean ± half of the 95 % t-interval, " if count > 1 else ""
    return Table(f"{outcome.name}: {how}{_seeds(count)}", ("arm", *names), rows, _facts(outcome))


def _facts(outcome: Outcome) -> tuple[str, ...]:
    """Tell what runs say in words, once where all say the same."""
    said: dict[tuple[str, str], list[str]] = {}
    for arm, runs in outcome.runs.items():
        for pair in dict.fromkeys(pair for run in runs for pair in run.facts.items()):
            said.setdefault(pair, []).append(arm)
    return tuple(
        f"{name}: {text}" + ("" if len(arms) == len(outcome.runs) else f" ({', '.join(arms)})")
        for (name, text), arms in said.items()
    )


def _statements(title: str, judged: Sequence[Judged], count: int) -> Table:
    rows = list[tuple[Value, ...]]()
    notes = []
    for item in judged:
        found = item.found
        mean, low, high = (_rounded(v, found.half) for v in (found.mean, found.low, found.high))
        wide = f"{low} to {high}" if count > 1 else None
        verdict = item.verdict if count > 1 else f"{item.verdict} (one seed)"
        rows.append((item.statement.text, mean, wide, verdict))
        if len(item.statement.contrasts) > 1:
            notes.append(f"{item.statement.text}: furthest out is {item.contrast}")
    return Table(title, STATEMENTS, tuple(rows), tuple(notes))


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _rounded(value: float, half: float | None) -> str:
    """Write a value with the decimals that show two digits of its interval's half."""
    if not half or not math.isfinite(half):
        return f"{value:.4g}"
    return f"{value:.{min(6, max(0, 1 - math.floor(math.log10(half))))}f}"


def _judged_data(item: Judged) -> dict[str, Any]:
    return {
        "statement": item.statement.text,
        "measure": item.statement.measure,
        "contrast": item.contrast,
        "verdict": item.verdict,
        **_interval_data(item.found),
    }


def _interval_data(found: Interval) -> dict[str, Any]:
    alone = found.half is None
    return {
        "mean": _finite(found.mean),
        "low": None if alone else _finite(found.low),
        "high": None if alone else _finite(found.high),
        "seeds": found.count,
    }


def _intervals(runs: Sequence[Any]) -> dict[str, Interval]:
    common = set.intersection(*(set(run.values) for run in runs))
    return {name: interval([run.values[name] for run in runs]) for name in sorted(common)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())
