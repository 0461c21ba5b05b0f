"""Settings that are a name, or a name with options: ``{name: dirichlet, alpha: 0.3}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedalt.errors import ConfigError, nearest

Known = Mapping[str, Mapping[str, Any]]
"""Names, each with its options and their defaults."""


def named(value: Any, where: str, known: Known) -> tuple[str, dict[str, Any]]:
    """Return a setting's name, and its options with defaults filled in.

    An option must be of the default's type, where that is not ``None``. Raises
    :class:`ConfigError` naming the setting.
    """
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or "name" not in given:
        raise ConfigError(f"{where} is {value!r}, expected a name or {{name: …}} with options")
    name = str(given["name"])
    if name not in known:
        raise ConfigError(f"{where}: unknown name '{name}'{nearest(name, known)}")
    options = dict(known[name])
    for key, option in given.items():
        if key == "name":
            continue
        if key not in options:
            hint = nearest(key, options) if options else " (it takes none)"
            raise ConfigError(f"{where} '{name}': unknown option '{key}'{hint}")
        _check_type(f"{where} '{name}': {key}", option, options[key])
        options[key] = option
    return name, options


def whole(value: Any, where: str, least: int) -> int:
    """Return a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where} is {value!r}, expected a whole number of at least {least}")
    return value


def number(value: Any, where: str) -> float:
    """Return a finite number."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not abs(value) < float("inf"):
        raise ConfigError(f"{where} is {value!r}, expected a finite number")
    return float(value)


def listed(value: Any, where: str) -> list[Any]:
    """Return a list of values; a text or a single value is none."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} is {value!r}, expected a list")
    return list(value)


def widths(value: Any, where: str) -> list[int]:
    """Return a list of whole numbers from 1 on."""
    return [whole(v, f"{where}[{place}]", 1) for place, v in enumerate(listed(value, where))]


def _check_type(where: str, option: Any, default: Any) -> None:
    if default is None:
        return
    wanted, words = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        float: ((int, float), "a number"),
        str: (str, "a text"),
        tuple: ((list, tuple), "a list"),
    }[type(default)]
    wrong_bool = isinstance(option, bool) and wanted is not bool
    if wrong_bool or not isinstance(option, wanted):  # type: ignore[arg-type]
        raise ConfigError(f"{where} is {option!r}, expected {words}")
