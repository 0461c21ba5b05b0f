"""A schedule from plain data, as YAML holds it.

``phases`` names the phases; ``schedule`` is a tree in which a text is a phase by name and a
mapping with one key is a combinator. Every error names its place in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedalt.alternation import draws, entry, nesting, sequence, task_stream, together, vary
from fedalt.alternation.adapt import adaptive
from fedalt.alternation.curve import Curve
from fedalt.alternation.parse_parts import (
    read_condition,
    read_curve,
    read_environments,
    read_policy,
    read_table,
)
from fedalt.alternation.phase import RESERVED, Phase
from fedalt.alternation.schedule import Leaf, Schedule
from fedalt.errors import ScheduleError, nearest


def parse_schedule(phases: Mapping[str, Any], schedule: Any) -> Schedule:
    """Read a schedule.

    Raises :class:`ScheduleError` that names the place of a wrong entry, such as
    ``schedule.chain[1].until.of``.
    """
    if not isinstance(phases, Mapping):
        raise ScheduleError(f"phases: entries 'name: …' expected, but here is {phases!r}")
    book = {}
    for name, data in phases.items():
        if not isinstance(data, Mapping | None):
            raise ScheduleError(f"phases.{name}: a phase's settings expected, but here is {data!r}")
        if str(name) in RESERVED:
            raise ScheduleError(
                f"phases.{name}: the loop's own metrics have this name; choose another"
            )
        book[str(name)] = Phase.from_dict(data or {}, name=str(name), where=f"phases.{name}")
    return _Reader(book).read(schedule, "schedule")


@dataclass(frozen=True)
class _Reader:
    """Reads trees over a set of phases."""

    phases: Mapping[str, Phase]

    def read(self, data: Any, where: str) -> Schedule:
        if isinstance(data, str):
            if data not in self.phases:
                raise ScheduleError(f"{where}: unknown phase '{data}'{nearest(data, self.phases)}")
            return Leaf(self.phases[data])
        if isinstance(data, list | tuple):
            raise ScheduleError(f"{where}: a list here needs a name, such as 'chain: […]'")
        kind, body = entry.single(data, where, "combinator", list(_KINDS))
        return _placed(lambda: _KINDS[kind](self, body, f"{where}.{kind}"), f"{where}.{kind}")

    def all(self, body: Any, where: str) -> list[Schedule]:
        return [self.read(item, place) for item, place in entry.items(body, where)]


def _placed(build: Callable[[], Schedule], where: str) -> Schedule:
    """Put the place before an error that a constructor raised without knowing it."""
    try:
        return build()
    except ScheduleError as error:
        if str(error).startswith(where):
            raise
        raise ScheduleError(f"{where}: {error}") from error


def _chain(reader: _Reader, body: Any, where: str) -> Schedule:
    return sequence.chain(*reader.all(body, where))


def _cycle(reader: _Reader, body: Any, where: str) -> Schedule:
    return sequence.cycle(*reader.all(body, where))


def _parallel(reader: _Reader, body: Any, where: str) -> Schedule:
    return together.parallel(*reader.all(body, where))


def _repeat(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of"], ["times"])
    times = body.get("times")
    count = None if times is None else entry.whole(times, f"{where}.times")
    return sequence.repeat(reader.read(body["of"], f"{where}.of"), count)


def _until(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of", "stop"], ["max_rounds"])
    item = reader.read(body["of"], f"{where}.of")
    stop = read_condition(body["stop"], f"{where}.stop")
    most = body.get("max_rounds")
    count = None if most is None else entry.whole(most, f"{where}.max_rounds")
    return sequence.until(item, stop, count)


def _fork(reader: _Reader, body: Any, where: str) -> Schedule:
    named = entry.mapping(body, where)
    return together.fork({name: reader.read(x, f"{where}.{name}") for name, x in named.items()})


def _when(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["if", "then"], ["else", "level"])
    level = body.get("level", "round")
    yes = reader.read(body["then"], f"{where}.then")
    no = reader.read(body["else"], f"{where}.else") if body.get("else") is not None else None
    if level == "client":
        return together.when(entry.mapping(body["if"], f"{where}.if"), yes, no, level)
    return together.when(read_condition(body["if"], f"{where}.if"), yes, no, level)


def _nest(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["outer", "inner"], ["local"])
    local = body.get("local", False)
    if not isinstance(local, bool):
        raise ScheduleError(f"{where}.local: true or false expected, but here is {local!r}")
    outer = reader.read(body["outer"], f"{where}.outer")
    return nesting.nest(outer, reader.read(body["inner"], f"{where}.inner"), local)


def _choose(reader: _Reader, body: Any, where: str) -> Schedule:
    if isinstance(body, list | tuple):
        return draws.choose(*reader.all(body, where))
    body = entry.keys(body, where, ["of"], ["weights"])
    weights = None
    if body.get("weights") is not None:
        weights = [
            entry.number(w, at) for w, at in entry.items(body["weights"], f"{where}.weights")
        ]
    return draws.choose(*reader.all(body["of"], f"{where}.of"), weights=weights)


def _power_law(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of"], ["exponent", "offset", "p_new"])
    values = {k: entry.number(v, f"{where}.{k}") for k, v in body.items() if k != "of"}
    return draws.power_law(*reader.all(body["of"], f"{where}.of"), **values)


def _stream(reader: _Reader, body: Any, where: str) -> Schedule:
    counts = ("new", "rounds", "experiences", "first")
    optional = ("environment", "rehearsal", "order", "budget", *counts)
    body = entry.keys(body, where, ["of", "tasks"], optional)
    tasks: Any = body["tasks"]
    if isinstance(tasks, list | tuple):
        tasks = [entry.whole(task, at) for task, at in entry.items(tasks, f"{where}.tasks")]
    else:
        tasks = entry.whole(tasks, f"{where}.tasks")
    values: dict[str, Any] = {}
    for key in optional:
        value, at = body.get(key), f"{where}.{key}"
        if value is None:
            continue
        if key in counts:
            values[key] = entry.whole(value, at)
        elif key == "rehearsal":
            values[key] = entry.number(value, at)
        elif key == "environment":
            values[key] = read_environments(value, at)
        else:
            values[key] = entry.text(value, at)
    return task_stream.stream(reader.read(body["of"], f"{where}.of"), tasks, **values)


def _adaptive(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of", "policy"], ["floor"])
    policy = read_policy(body["policy"], f"{where}.policy")
    floor = entry.number(body.get("floor", 0.0), f"{where}.floor")
    return adaptive(*reader.all(body["of"], f"{where}.of"), policy=policy, floor=floor)


def _sweep(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["over", "values", "of"], ["order"])
    over = body["over"]
    fields = [over] if isinstance(over, str) else [f for f, _ in entry.items(over, f"{where}.over")]
    values = [entry.scalar(v, at) for v, at in entry.items(body["values"], f"{where}.values")]
    item = reader.read(body["of"], f"{where}.of")
    return vary.sweep(
        [entry.text(f, f"{where}.over") for f in fields], values, item, body.get("order", "given")
    )


def _ramp(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of", "set"])
    named = entry.mapping(body["set"], f"{where}.set")
    curves = {name: read_curve(data, f"{where}.set.{name}") for name, data in named.items()}
    if all(not isinstance(curve, Curve) for curve in curves.values()):
        raise ScheduleError(f"{where}.set: only fixed steps; 'curriculum' is the name for that")
    return vary.ramp(reader.read(body["of"], f"{where}.of"), curves)


def _curriculum(reader: _Reader, body: Any, where: str) -> Schedule:
    body = entry.keys(body, where, ["of", "set"])
    named = entry.mapping(body["set"], f"{where}.set")
    tables = {name: read_table(data, f"{where}.set.{name}") for name, data in named.items()}
    return vary.ramp(reader.read(body["of"], f"{where}.of"), tables)


_KINDS: Mapping[str, Callable[[_Reader, Any, str], Schedule]] = {
    "chain": _chain,
    "cycle": _cycle,
    "repeat": _repeat,
    "until": _until,
    "parallel": _parallel,
    "fork": _fork,
    "when": _when,
    "nest": _nest,
    "choose": _choose,
    "power_law": _power_law,
    "stream": _stream,
    "adaptive": _adaptive,
    "sweep": _sweep,
    "ramp": _ramp,
    "curriculum": _curriculum,
}
