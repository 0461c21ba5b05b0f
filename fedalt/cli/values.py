"""Settings against the annotations of what they are passed to.

A constructor that is given a text for a number fails somewhere inside, with a message about
``<`` and ``str``. Comparing with its own annotations first names the setting instead.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from fedalt.errors import ConfigError

NAMES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
}


def check_values(target: Callable[..., Any], values: Mapping[str, Any], where: str) -> None:
    """Raise :class:`ConfigError` for a value that its parameter's annotation excludes.

    Only annotations made of int, float, str, bool and None are judged.
    """
    for key, hint in _hints(target).items():
        allowed = _plain(hint)
        if key in values and allowed and not any(_fits(values[key], kind) for kind in allowed):
            wanted = " or ".join(NAMES[kind] for kind in allowed)
            raise ConfigError(f"{where}.{key}={values[key]!r}: {wanted} expected")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):
        # An annotation that is only there for type checkers; nothing can be said.
        return {}


def _plain(hint: Any) -> tuple[Any, ...]:
    """Return the simple types that a hint allows, or none if it allows others too."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return kinds if all(kind in NAMES for kind in kinds) else ()


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
