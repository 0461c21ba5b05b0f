"""Conditions, curves and policies from plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedalt.alternation import condition as conditions
from fedalt.alternation import entry
from fedalt.alternation.adapt import Policy, exponentiated, proportional
from fedalt.alternation.condition import Condition
from fedalt.alternation.curve import SHAPES, Curve, Steps, steps
from fedalt.alternation.environment import Environment, read_environment
from fedalt.errors import ScheduleError


def read_condition(data: Any, where: str) -> Condition:
    """Read ``below``, ``above``, ``plateau``, ``rounds``, ``any``, ``all`` or ``not``."""
    known = ("below", "above", "plateau", "rounds", "any", "all", "not")
    kind, body = entry.single(data, where, "condition", known)
    where = f"{where}.{kind}"
    if kind in ("any", "all"):
        parts = [read_condition(item, place) for item, place in entry.items(body, where)]
        return conditions.any_of(*parts) if kind == "any" else conditions.all_of(*parts)
    if kind == "not":
        return conditions.not_(read_condition(body, where))
    if kind == "rounds":
        return conditions.rounds(entry.whole(body, where))
    if kind == "plateau":
        body = entry.keys(body, where, ["metric", "relative", "rounds"])
        relative = entry.number(body["relative"], f"{where}.relative")
        count = entry.whole(body["rounds"], f"{where}.rounds")
        return conditions.plateau(entry.text(body["metric"], f"{where}.metric"), relative, count)
    body = entry.keys(body, where, ["metric", "value"])
    metric = entry.text(body["metric"], f"{where}.metric")
    bound = entry.number(body["value"], f"{where}.value")
    return conditions.below(metric, bound) if kind == "below" else conditions.above(metric, bound)


def read_curve(data: Any, where: str) -> Curve | Steps:
    """Read ``linear``, ``cosine`` or ``exponential`` with from, to and rounds; or ``steps``."""
    shape, body = entry.single(data, where, "curve", (*SHAPES, "steps"))
    where = f"{where}.{shape}"
    if shape == "steps":
        return read_table(body, where)
    body = entry.keys(body, where, ["from", "to", "rounds"])
    return Curve(
        shape,
        entry.number(body["from"], f"{where}.from"),
        entry.number(body["to"], f"{where}.to"),
        entry.whole(body["rounds"], f"{where}.rounds"),
    )


def read_table(data: Any, where: str) -> Steps:
    """Read ``{round: value}``, rounds counted from 0."""
    if not isinstance(data, Mapping) or not data:
        raise ScheduleError(f"{where}: entries 'round: value' expected, but here is {data!r}")
    return steps(
        {
            entry.whole(start, f"{where}.{start}"): entry.scalar(value, f"{where}.{start}")
            for start, value in data.items()
        }
    )


def read_environments(data: Any, where: str) -> list[Environment]:
    """Read one environment, or a list of them in which sites live in turn."""
    if isinstance(data, list | tuple):
        return [read_environment(item, place) for item, place in entry.items(data, where)]
    return [read_environment(data, where)]


def read_policy(data: Any, where: str) -> Policy:
    """Read ``proportional`` or ``exponentiated``."""
    kind, body = entry.single(data, where, "policy", ("proportional", "exponentiated"))
    where = f"{where}.{kind}"
    if kind == "proportional":
        body = entry.keys(body, where, ["metric"])
        return proportional(entry.text(body["metric"], f"{where}.metric"))
    body = entry.keys(body, where, ["metric", "rate"])
    rate = entry.number(body["rate"], f"{where}.rate")
    return exponentiated(entry.text(body["metric"], f"{where}.metric"), rate)
