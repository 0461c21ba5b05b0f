"""Blocks: named groups of a model's arrays, chosen by glob.

What is sent, trained, aggregated and charged is always a block. In a glob ``/`` and
``.`` are the same separator, so ``encoder/*`` matches torch's ``encoder.conv1.weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedalt.errors import ScheduleError, nearest

ALL = "all"
"""The block that every model has: all of its arrays."""


@dataclass(frozen=True)
class Block:
    """A name and the globs of the arrays that belong to it."""

    name: str
    globs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ScheduleError("a block needs a name")
        if "|" in self.name:
            raise ScheduleError(f"block '{self.name}': a name must not contain '|'")
        if not self.globs:
            raise ScheduleError(f"block '{self.name}' has no globs")

    def matches(self, array: str) -> bool:
        """Say whether the array of that name belongs to the block."""
        name = array.replace(".", "/")
        return any(fnmatchcase(name, glob.replace(".", "/")) for glob in self.globs)


@dataclass(frozen=True)
class BlockMap:
    """The blocks of one model: block name to the names of its arrays, in model order."""

    arrays: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, arrays: Iterable[str], blocks: Sequence[Block] = ()) -> BlockMap:
        """Match blocks against a model's array names.

        Raises :class:`ScheduleError` if a block matches no array or a name occurs twice.
        """
        names = tuple(arrays)
        members = {ALL: names}
        for block in blocks:
            if block.name in members:
                raise ScheduleError(f"block '{block.name}' is defined twice")
            found = tuple(name for name in names if block.matches(name))
            if not found:
                raise ScheduleError(
                    f"block '{block.name}' ({', '.join(block.globs)}) matches none of the "
                    f"model's arrays: {', '.join(names)}"
                )
            members[block.name] = found
        return cls(names, members)

    def select(self, blocks: Iterable[str], where: str = "schedule") -> tuple[str, ...]:
        """Return the arrays of the named blocks in model order; none named means all.

        Raises :class:`ScheduleError` naming the block the model has not.
        """
        chosen: set[str] = set()
        asked = tuple(blocks)
        for name in asked or (ALL,):
            if name not in self.members:
                raise ScheduleError(
                    f"{where}: the model has no block '{name}'{nearest(name, self.members)}"
                )
            chosen.update(self.members[name])
        return tuple(name for name in self.arrays if name in chosen)
