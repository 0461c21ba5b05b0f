"""A schedule as plain data: the inverse of :mod:`fedalt.alternation.parse`."""

from __future__ import annotations

from typing import Any

from fedalt.alternation.adapt import Adaptive, Exponentiated, Policy, Proportional
from fedalt.alternation.condition import Condition, Not, Plateau, Rounds, Several, Threshold
from fedalt.alternation.curve import Curve, Steps
from fedalt.alternation.draws import Choose, PowerLaw
from fedalt.alternation.nesting import LocalNest, Nest
from fedalt.alternation.phase import Phase
from fedalt.alternation.schedule import Leaf, Schedule, as_schedule
from fedalt.alternation.sequence import Chain, Repeat, Until
from fedalt.alternation.task_stream import TaskStream
from fedalt.alternation.together import Fork, Parallel, Split, When
from fedalt.alternation.vary import Ramp, Sweep
from fedalt.errors import ScheduleError


def to_dict(schedule: Schedule | Phase) -> dict[str, Any]:
    """Return ``{"phases": {name: …}, "schedule": tree}``, as a YAML file holds it.

    Reading it back gives an equal schedule. Phases that differ but share a name are listed
    as ``name#2`` and so on.
    """
    book = _PhaseBook()
    tree = _tree(as_schedule(schedule), book)
    return {
        "phases": {key: plain_phase(p, key) for key, p in book.phases.items()},
        "schedule": tree,
    }


def plain_phase(phase: Phase, key: str) -> dict[str, Any]:
    """Return what of a phase differs from the default; its name only if it is not the key."""
    data, usual = phase.to_dict(), Phase(key).to_dict()
    return {name: value for name, value in data.items() if value != usual[name]}


class _PhaseBook:
    """Gives every phase of a tree a key; equal phases share one."""

    def __init__(self) -> None:
        self.phases: dict[str, Phase] = {}

    def key(self, phase: Phase) -> str:
        key, number = phase.name, 1
        while key in self.phases and self.phases[key] != phase:
            number += 1
            key = f"{phase.name}#{number}"
        self.phases[key] = phase
        return key


def _tree(node: Schedule, book: _PhaseBook) -> Any:
    below = [_tree(child, book) for child in node.children]
    match node:
        case Leaf(phase):
            return book.key(phase)
        case Chain():
            return {"chain": below}
        case Repeat(times=times):
            extra = {} if times is None else {"times": times}
            return {"repeat": {"of": below[0], **extra}}
        case Until(stop=stop, max_rounds=most):
            extra = {} if most is None else {"max_rounds": most}
            return {"until": {"of": below[0], "stop": plain_condition(stop), **extra}}
        case Parallel():
            return {"parallel": below}
        case Fork(names=names):
            return {"fork": dict(zip(names, below, strict=True))}
        case When(condition=condition):
            return {"when": {"if": plain_condition(condition), "then": below[0], "else": below[1]}}
        case Split(test=test):
            sides = dict(zip(("then", "else"), below, strict=False))
            where = {key: list(values) for key, values in test.where.items()}
            return {"when": {"if": where, **sides, "level": "client"}}
        case Nest() | LocalNest():
            extra = {"local": True} if isinstance(node, LocalNest) else {}
            return {"nest": {"outer": below[0], "inner": below[1], **extra}}
        case _:
            return _drawn_or_varied(node, below)


def _drawn_or_varied(node: Schedule, below: list[Any]) -> Any:
    match node:
        case Choose(weights=weights):
            return {"choose": {"of": below, "weights": list(weights)}}
        case PowerLaw(exponent=exponent, offset=offset, p_new=p_new):
            values = {"exponent": exponent, "offset": offset, "p_new": p_new}
            return {"power_law": {"of": below, **values}}
        case TaskStream():
            return {"stream": {"of": below[0], **_stream(node)}}
        case Adaptive(policy=policy, floor=floor):
            return {"adaptive": {"of": below, "policy": _policy(policy), "floor": floor}}
        case Sweep(fields=fields, values=values, order=order):
            over = fields[0] if len(fields) == 1 else list(fields)
            entry = {"over": over, "values": list(values), "of": below[0]}
            return {"sweep": {**entry, "order": order}}
        case Ramp(settings=settings):
            if all(isinstance(curve, Steps) for _, curve in settings):
                tables = {name: _curve(curve)["steps"] for name, curve in settings}
                return {"curriculum": {"of": below[0], "set": tables}}
            return {"ramp": {"of": below[0], "set": {n: _curve(c) for n, c in settings}}}
    raise ScheduleError(f"a {type(node).__name__} cannot be written as plain data")


def _stream(node: TaskStream) -> dict[str, Any]:
    view = node.view.to_dict()
    view.pop("experience")
    view["environment"] = view.pop("environments")
    return {**view, "rounds": node.rounds, "experiences": node.experiences}


def plain_condition(condition: Condition) -> dict[str, Any]:
    """Return a condition as plain data."""
    match condition:
        case Threshold(metric, value, side):
            return {side: {"metric": metric, "value": value}}
        case Plateau(metric, relative, rounds):
            return {"plateau": {"metric": metric, "relative": relative, "rounds": rounds}}
        case Rounds(count):
            return {"rounds": count}
        case Several(parts, mode):
            return {mode: [plain_condition(part) for part in parts]}
        case Not(part):
            return {"not": plain_condition(part)}
    raise ScheduleError(f"a {type(condition).__name__} cannot be written as plain data")


def _policy(policy: Policy) -> dict[str, Any]:
    match policy:
        case Proportional(metric):
            return {"proportional": {"metric": metric}}
        case Exponentiated(metric, rate):
            return {"exponentiated": {"metric": metric, "rate": rate}}
    raise ScheduleError(f"a {type(policy).__name__} cannot be written as plain data")


def _curve(curve: Curve | Steps) -> dict[str, Any]:
    if isinstance(curve, Steps):
        return {"steps": {str(start): value for start, value in curve.values}}
    return {curve.shape: {"from": curve.start, "to": curve.stop, "rounds": curve.rounds}}
