"""A scenario's claim: what is said, which methods (arms) it compares, and over how many seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedalt.claims.measures import check_reference
from fedalt.claims.statements import Statement, parse_statement
from fedalt.errors import ConfigError, nearest
from fedalt.overrides import Override

KEYS = ("text", "seeds", "measure", "base", "arms", "holds", "shown")
SET_BY_COMMAND = ("seed", "claim", "out")
"""What an arm cannot override: arms are compared seed by seed, and lie where the claim does."""


@dataclass(frozen=True)
class Claim:
    """A claim: ``arms`` are lists of overrides, ``holds`` what is claimed of their measures.

    ``base`` are overrides of all arms, which a user's own and an arm's take precedence of.
    ``shown`` are statements that are judged and told in the same way, but not claimed.
    """

    text: str
    seeds: int
    measure: str | None
    base: tuple[str, ...]
    arms: Mapping[str, tuple[str, ...]]
    holds: tuple[Statement, ...]
    shown: tuple[Statement, ...]

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements, claimed ones first."""
        return self.holds + self.shown

    @property
    def measures(self) -> list[str]:
        """The measures that statements speak of, in their order."""
        return list(dict.fromkeys(statement.measure for statement in self.statements))


def parse_claim(data: Mapping[str, Any]) -> Claim:
    """Read the ``claim`` of a configuration; raises :class:`ConfigError` naming the place."""
    for key in data:
        if key not in KEYS:
            raise ConfigError(f"claim: unknown key '{key}'{nearest(str(key), KEYS)}")
    for key in ("text", "arms", "holds"):
        if not data.get(key):
            raise ConfigError(f"claim: '{key}' is missing; a claim needs text, arms and holds")
    text, seeds, measure = data["text"], data.get("seeds", 3), data.get("measure")
    if not isinstance(text, str):
        raise ConfigError(f"claim.text: a text expected, but here is {text!r}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"claim.seeds={seeds!r}: a whole number of at least 1 expected")
    if measure is not None:
        check_reference(measure)
    base = _overrides(data.get("base"), "claim.base")
    arms = _arms(data["arms"])
    holds, shown = (_statements(data.get(key), arms, f"claim.{key}") for key in ("holds", "shown"))
    return Claim(" ".join(text.split()), seeds, measure, base, arms, holds, shown)


def _arms(data: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"claim.arms: entries 'name: [overrides]' expected, not {data!r}")
    arms = {}
    for name, changes in data.items():
        where = f"claim.arms.{name}"
        if re.fullmatch(r"[\w.+-]+", str(name)) is None:
            raise ConfigError(f"{where}: an arm's name has letters, digits, '.', '+', '-' or '_'")
        arms[str(name)] = _overrides(changes, where)
    return arms


def _overrides(changes: Any, where: str) -> tuple[str, ...]:
    if not isinstance(changes, list | None):
        raise ConfigError(
            f"{where}: a list of overrides expected, such as [rounds=9], but here is {changes!r}"
        )
    return tuple(_override(item, where) for item in changes or ())


def _override(item: Any, where: str) -> str:
    if not isinstance(item, str):
        raise ConfigError(
            f"{where}: an override is a text such as rounds=9, but here is {item!r}; "
            "one with a blank, a comma or braces needs quotes"
        )
    try:
        key = Override.read(item).key
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if key.split(".")[0] in SET_BY_COMMAND:
        raise ConfigError(f"{where}: '{item}': an arm cannot set {key}; the claim does")
    return item


def _statements(data: Any, arms: Mapping[str, Any], where: str) -> tuple[Statement, ...]:
    if not isinstance(data, list | None):
        raise ConfigError(f"{where}: a list of statements expected, but here is {data!r}")
    return tuple(parse_statement(item, arms, f"{where}[{i}]") for i, item in enumerate(data or ()))
