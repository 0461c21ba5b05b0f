"""Overrides as a user types them, checked against the keys that a scenario names.

Hydra's grammar reads them: ``key=value`` changes, ``+key=value`` adds, ``~key`` takes away.
A mapping is merged into the one that is there, except beneath ``schedule``: a schedule is one
tree, and half of another in it means nothing, so there it takes the place of what was.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedalt.errors import ConfigError, nearest

QUOTING = (
    "lists are [a, b], mappings {key: value}, and a text that holds one of = , [ ] { } : "
    "needs quotes of its own, inside those of the shell: key=\"'a=b'\""
)
_FORM = re.compile(r"^([+~]{0,2})([A-Za-z_][\w.\[\]/@:-]*)(=.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """One override: its sign (``+``, ``++``, ``~`` or none), key and value as typed."""

    text: str
    sign: str
    key: str
    value: str | None

    @classmethod
    def read(cls, text: str) -> Override:
        """Split a text; raises :class:`ConfigError` if it has not the form of an override."""
        found = _FORM.match(text)
        if found is None or (found[3] is None and found[1] != "~"):
            raise ConfigError(f"'{text}' is no override; write key=value, such as seed=1")
        return cls(text, found[1], found[2], None if found[3] is None else found[3][1:])


def check_overrides(
    texts: Sequence[str], named: Iterable[str], settings: Collection[str]
) -> list[str]:
    """Return overrides as Hydra wants them.

    ``named`` are the dotted keys that the scenario's YAML holds, ``settings`` those that every
    scenario has. Raises :class:`ConfigError` naming the override, the nearest key, and what
    to write.
    """
    present, top = set(named), {key for key in settings if "." not in key}
    checked = list[str]()
    for text in texts:
        override = Override.read(text)
        value = _parse(override)
        _check_key(override, present | set(settings), top)
        checked += _for_hydra(override, value, present)
        # What one override adds, a later one may change.
        present |= {override.key, *flat_keys(value, f"{override.key}.")}
    return checked


def flat_keys(data: Any, prefix: str = "") -> Iterable[str]:
    """Return all dotted keys of nested mappings and lists (``chain.0.until``)."""
    if isinstance(data, Mapping):
        pairs: Iterable[tuple[Any, Any]] = data.items()
    elif isinstance(data, list | tuple):
        pairs = enumerate(data)
    else:
        return
    for key, value in pairs:
        yield f"{prefix}{key}"
        yield from flat_keys(value, f"{prefix}{key}.")


def _parse(override: Override) -> Any:
    """Return the value that Hydra reads; its own messages speak of its grammar, not of ours."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override.text)
    except HydraException as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"override '{override.text}' cannot be read ({reason}); {QUOTING}"
        ) from error
    if parsed.is_sweep_override():
        raise ConfigError(
            f"override '{override.text}' holds several values, and a run takes one; "
            f"for a list write {override.key}=[…], for a text {override.key}=\"'…'\""
        )
    return parsed.value()


def _check_key(override: Override, known: set[str], top: set[str]) -> None:
    first = re.split(r"[.\[]", override.key)[0]
    if first not in top:
        raise ConfigError(f"unknown override '{override.key}'{nearest(first, top)}")
    if override.key in known or override.sign.startswith("+"):
        return
    if override.sign == "~":
        raise ConfigError(
            f"override '{override.text}': there is no '{override.key}' to take away"
            f"{_beside(override.key, known)}"
        )
    raise ConfigError(
        f"unknown override '{override.key}'{_beside(override.key, known)}; "
        "to add a key that the scenario does not name, write "
        f"+{override.text if len(override.text) < 60 else override.key + '=…'}"
    )


def _beside(key: str, known: set[str]) -> str:
    """Hint at keys beside the wrong one, or at any if nothing stands there."""
    parent, _, last = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    if not siblings:
        return nearest(key, known) if len(known) < 12 else _only_close(key, known)
    return nearest(last, siblings)


def _only_close(key: str, known: set[str]) -> str:
    hint = nearest(key, known)
    return hint if "did you mean" in hint else ""


def _for_hydra(override: Override, value: Any, present: set[str]) -> list[str]:
    if override.sign == "~":
        # A setting that only has its default has nothing to take away.
        return [override.text] if override.key in present else []
    if isinstance(value, Mapping):
        tree = override.key == "schedule" or override.key.startswith("schedule.")
        if tree and override.key in present:
            return [f"~{override.key}", f"+{override.key}={override.value}"]
        return [f"++{override.key}={override.value}"]
    return [override.text if override.sign else f"++{override.text}"]
