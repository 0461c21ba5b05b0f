"""Statements of a claim, read from a scenario's YAML.

Each is a number made of the arms' measures, a *contrast*, and where that number is claimed to
lie: ``{more: a, than: b}`` says that a − b lies above ``by``, ``{same: [a, b], within: w}`` that
it lies in ±w, ``{arm: a, near: v, within: w}`` that a lies in v ± w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fedalt.errors import ConfigError, nearest

KINDS = ("more", "same", "arm")
KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "more": (("more", "than", "measure"), ("by", "times")),
    "same": (("same", "measure", "within"), ()),
    "arm": (("arm", "measure", "near", "within"), ()),
}
"""For each kind the keys it needs, and those it may have."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms, and how it is written."""

    label: str
    weights: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Statement:
    """What is said of a measure: its contrasts, and the closed range where they shall lie.

    ``by_mean``: the mean alone must lie there, not its whole interval.
    """

    text: str
    measure: str
    contrasts: tuple[Contrast, ...]
    low: float
    high: float
    by_mean: bool = False

    @property
    def arms(self) -> set[str]:
        """The arms it speaks of."""
        return {arm for contrast in self.contrasts for arm, _ in contrast.weights}


def parse_statement(data: Any, arms: Collection[str], where: str) -> Statement:
    """Read one statement; raises :class:`ConfigError` naming its place and the wrong word."""
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where}: a statement such as {{more: a, than: b, measure: m}} expected, "
            f"but here is {data!r}"
        )
    kinds = [kind for kind in KINDS if kind in data]
    if len(kinds) != 1:
        raise ConfigError(
            f"{where}: a statement has one of {', '.join(KINDS)}, but this has "
            f"{' and '.join(kinds) or 'none'} (its keys: {', '.join(map(str, data)) or 'none'})"
        )
    kind = kinds[0]
    needed, allowed = KEYS[kind]
    for key in data:
        if key not in (*needed, *allowed):
            raise ConfigError(f"{where}: unknown key '{key}'{nearest(str(key), needed + allowed)}")
    for key in needed:
        if data.get(key) is None:
            raise ConfigError(f"{where}: '{key}' is missing; '{kind}' needs {', '.join(needed)}")
    if not isinstance(data["measure"], str):
        raise ConfigError(
            f"{where}.measure: the name of a measure expected, but here is {data['measure']!r}"
        )
    return READERS[kind](data, arms, where)


def _more(data: Mapping[str, Any], arms: Collection[str], where: str) -> Statement:
    more, than = (_side(data[key], arms, f"{where}.{key}") for key in ("more", "than"))
    if len(more) != len(than):
        raise ConfigError(
            f"{where}: 'more' and 'than' are both one arm, or both two ([a, b] means a − b)"
        )
    if more == than:
        raise ConfigError(f"{where}: 'more' and 'than' are the same, so nothing is compared")
    times = _number(data.get("times", 1), f"{where}.times")
    by = _number(data.get("by", 0), f"{where}.by")
    if times <= 0:
        raise ConfigError(f"{where}.times={times:g}: must be more than 0")
    left, right = " − ".join(more), " − ".join(than)
    if times != 1:
        right = f"{times:g} × ({right})" if len(than) == 2 else f"{times:g} × {right}"
    weights = [*zip(more, (1.0, -1.0), strict=False), *zip(than, (-times, times), strict=False)]
    low_text = f" + {by:g}" if by > 0 else f" − {-by:g}" if by < 0 else ""
    label = f"{left} − ({right})" if len(than) == 2 else f"{left} − {right}"
    contrast = Contrast(label, tuple(weights))
    measure = data["measure"]
    # 'More' is more: a difference of exactly ``by`` does not do.
    low = math.nextafter(by, math.inf)
    return Statement(f"{measure}: {left} > {right}{low_text}", measure, (contrast,), low, math.inf)


def _same(data: Mapping[str, Any], arms: Collection[str], where: str) -> Statement:
    names = data["same"]
    if not isinstance(names, list) or len(names) < 2:
        raise ConfigError(f"{where}.same: a list of two arms or more expected, not {names!r}")
    for i, name in enumerate(names):
        _arm(name, arms, f"{where}.same[{i}]")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}.same: an arm is named twice in {names}")
    within = _width(data, where)
    pairs = tuple(Contrast(f"{a} − {b}", ((a, 1.0), (b, -1.0))) for a, b in combinations(names, 2))
    text = f"{data['measure']}: {' ≈ '.join(names)} (± {within:g})"
    return Statement(text, data["measure"], pairs, -within, within)


def _near(data: Mapping[str, Any], arms: Collection[str], where: str) -> Statement:
    arm = _arm(data["arm"], arms, f"{where}.arm")
    near, within = _number(data["near"], f"{where}.near"), _width(data, where)
    text = f"{data['measure']}: {arm} = {near:g} ± {within:g}"
    alone = (Contrast(arm, ((arm, 1.0),)),)
    return Statement(text, data["measure"], alone, near - within, near + within, by_mean=True)


READERS: Mapping[str, Callable[[Mapping[str, Any], Collection[str], str], Statement]] = {
    "more": _more,
    "same": _same,
    "arm": _near,
}


def _side(value: Any, arms: Collection[str], where: str) -> tuple[str, ...]:
    """Read an arm, or two of which the difference is meant."""
    names: Sequence[Any] = value if isinstance(value, list) else [value]
    if isinstance(value, list) and len(names) != 2:
        raise ConfigError(f"{where}: one arm, or two as [a, b] for a − b, not {value!r}")
    return tuple(_arm(name, arms, where) for name in names)


def _arm(name: Any, arms: Collection[str], where: str) -> str:
    if not isinstance(name, str) or name not in arms:
        raise ConfigError(f"{where}: unknown arm '{name}'{nearest(str(name), arms)}")
    return name


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}={value!r}: a number expected")
    return float(value)


def _width(data: Mapping[str, Any], where: str) -> float:
    within = _number(data["within"], f"{where}.within")
    if within < 0:
        raise ConfigError(f"{where}.within={within:g}: must be 0 or more")
    return within
