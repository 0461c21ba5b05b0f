"""Reading one entry of plain data, with errors that name its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedalt.errors import ScheduleError, nearest


def single(data: Any, where: str, what: str, known: Sequence[str]) -> tuple[str, Any]:
    """Read ``{kind: body}`` with one of the known kinds."""
    if not isinstance(data, Mapping) or len(data) != 1:
        shown = f"{list(data)}" if isinstance(data, Mapping) else repr(data)
        raise ScheduleError(
            f"{where}: {what} is one entry such as '{known[0]}: …', but here is {shown}"
        )
    kind, body = next(iter(data.items()))
    if kind not in known:
        raise ScheduleError(f"{where}: unknown {what} '{kind}'{nearest(str(kind), known)}")
    return str(kind), body


def keys(
    body: Any, where: str, needed: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Read a mapping that has the needed keys, and no others than the optional ones."""
    if not isinstance(body, Mapping):
        raise ScheduleError(f"{where}: {', '.join(needed)} expected, but here is {body!r}")
    for key in body:
        if key not in (*needed, *optional):
            known = (*needed, *optional)
            raise ScheduleError(f"{where}: unknown key '{key}'{nearest(str(key), known)}")
    for key in needed:
        if key not in body:
            raise ScheduleError(f"{where}: '{key}' is missing")
    return body


def items(body: Any, where: str) -> list[tuple[Any, str]]:
    """Read a list that is not empty, as pairs of an item and its place."""
    if not isinstance(body, list | tuple) or not body:
        raise ScheduleError(
            f"{where}: a list with at least one item expected, but here is {body!r}"
        )
    return [(item, f"{where}[{place}]") for place, item in enumerate(body)]


def mapping(body: Any, where: str) -> dict[str, Any]:
    """Read a mapping that is not empty."""
    if not isinstance(body, Mapping) or not body:
        raise ScheduleError(f"{where}: entries 'name: …' expected, but here is {body!r}")
    return {str(key): value for key, value in body.items()}


def number(value: Any, where: str) -> float:
    """Read a number; text such as ``1e-3``, which YAML 1.1 takes for text, counts."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"{where}: a number expected, but here is {value!r}") from error


def whole(value: Any, where: str) -> int:
    """Read a whole number."""
    found = number(value, where)
    if not found.is_integer():
        raise ScheduleError(f"{where}: a whole number expected, but here is {value!r}")
    return int(found)


def text(value: Any, where: str) -> str:
    """Read a text."""
    if not isinstance(value, str) or not value:
        raise ScheduleError(f"{where}: a text expected, but here is {value!r}")
    return value


def scalar(value: Any, where: str) -> bool | int | float | str:
    """Read a number, a text or true/false."""
    if not isinstance(value, bool | int | float | str):
        raise ScheduleError(f"{where}: a number, a text or true/false expected, not {value!r}")
    return value
