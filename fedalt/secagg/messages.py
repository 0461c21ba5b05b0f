"""What server and sites tell each other in a secure aggregation, as plain records.

    1  Call    → Keys      who takes part, and under which public keys
    2  Roster  → Sealed    shares of each site's secrets, sealed for each other site
    3  Routed  → Masked    the instruction and the boxes for a site; its masked vector
    4  Claim   → Shares    who is in the sum and who was lost; what unmasks it

Every record is a dataclass of numbers, texts, bytes and tuples of those; what is read is checked
entry by entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from flwr.app import ConfigRecord, RecordDict

from fedalt.errors import WireError

SECAGG = "secagg"
"""The record of a message that holds one of these."""
VECTOR = "masked"
"""The only array of the third step's reply."""

CALL, SHARE, MASK, UNMASK = "secagg_keys", "secagg_shares", "secagg_masked", "secagg_unmask"
"""The steps, as Flower names actions of a message of type ``train``."""

_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "str": lambda v: type(v) is str,
    "int": lambda v: type(v) is int and v >= 0,
    "bytes": lambda v: type(v) is bytes,
    "tuple[int, ...]": lambda v: all(type(item) is int and item >= 0 for item in v),
    "tuple[bytes, ...]": lambda v: all(type(item) is bytes for item in v),
}


@dataclass(frozen=True)
class Session:
    """Which sum it is about: a run's round and phase."""

    run_id: str
    round: int
    phase: str

    def names(self) -> tuple[str, int, str]:
        """Return run, round and phase."""
        return self.run_id, self.round, self.phase

    def label(self, *more: str | int) -> bytes:
        """Return bytes that bind a key or a box to this sum, its purpose and its sites."""
        return json.dumps(["fedalt.secagg", self.run_id, self.round, self.phase, *more]).encode()

    def __str__(self) -> str:
        return f"round {self.round}, phase '{self.phase}' of run {self.run_id}"


@dataclass(frozen=True)
class Call(Session):
    """Step 1: so many ``sites`` are asked, and so many survivors unmask the sum."""

    sites: int
    threshold: int


@dataclass(frozen=True)
class Keys(Session):
    """A site's public keys: one seals boxes for it, the other makes its masks."""

    site: int
    sealing: bytes
    masking: bytes


@dataclass(frozen=True)
class Roster(Session):
    """Step 2: the sites that are in, ascending, and their public keys."""

    sites: tuple[int, ...]
    sealing: tuple[bytes, ...]
    masking: tuple[bytes, ...]


@dataclass(frozen=True)
class Sealed(Session):
    """One box for each other site of the roster, in its order, and the seed's commitment."""

    site: int
    boxes: tuple[bytes, ...]
    commitment: bytes


@dataclass(frozen=True)
class Routed:
    """Step 3, beside the ordinary instruction: the other sites that shared, and their boxes."""

    senders: tuple[int, ...]
    boxes: tuple[bytes, ...]


@dataclass(frozen=True)
class Masked(Session):
    """Who sends a masked vector."""

    site: int


@dataclass(frozen=True)
class Claim(Session):
    """Step 4: the sites in the sum, and those that shared and were lost; both ascending."""

    survivors: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True)
class Shares(Session):
    """A site's shares: of the survivors' seeds and of the lost sites' masking keys.

    They stand in the claim's order; a share that the site never got is empty.
    """

    site: int
    seeds: tuple[bytes, ...]
    keys: tuple[bytes, ...]


Some = TypeVar("Some")


def to_record(message: Any) -> ConfigRecord:
    """Return the record of a message."""
    found = {item.name: getattr(message, item.name) for item in fields(message)}
    return ConfigRecord({k: list(v) if isinstance(v, tuple) else v for k, v in found.items()})


def content_of(message: Any) -> RecordDict:
    """Return a content that holds just this message."""
    return RecordDict({SECAGG: to_record(message)})


def from_record(kind: type[Some], record: object) -> Some:
    """Read a message; raises :class:`WireError` naming the entry that is missing or wrong."""
    if not isinstance(record, ConfigRecord):
        raise WireError(f"the message holds no record '{SECAGG}' with {kind.__name__}")
    values: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        value: Any = record.get(item.name)
        text = str(item.type)
        if text.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        if isinstance(value, tuple) != text.startswith("tuple") or not _CHECKS[text](value):
            raise WireError(f"{kind.__name__}.{item.name} is missing, or is not {text}")
        values[item.name] = value
    return kind(**values)


def read(kind: type[Some], content: RecordDict) -> Some:
    """Read a content's message; raises :class:`WireError` likewise."""
    return from_record(kind, content.get(SECAGG))
