"""Tiny Shakespeare: speeches by role, as domains of a language task.

40 000 lines of Shakespeare's plays as Karpathy put them together for char-rnn ("The
Unreasonable Effectiveness of Recurrent Neural Networks", 2015); the text is in the public
domain. Speeches are set apart by blank lines, each a line ``ROLE:`` and then its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedalt.data.folder import data_folder, find_file, read_bytes
from fedalt.errors import ConfigError, DataError, nearest

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
PUBLISHED_BYTES = 1_115_394
FILES = ("text/tinyshakespeare.txt", "tinyshakespeare.txt")


@dataclass(frozen=True)
class RoleSet:
    """Role to its speeches, in the order of the text; every role has at least one.

    ``silent`` are roles that are named but of whom no word is left. ``source`` says where the
    text came from.
    """

    speeches: Mapping[str, tuple[str, ...]]
    silent: tuple[str, ...]
    source: str

    def text(self, role: str) -> str:
        """Return all that a role says, speeches set apart by a blank line.

        Raises :class:`ConfigError` for a role that says nothing.
        """
        if role not in self.speeches:
            raise ConfigError(f"no role '{role}' speaks in it{nearest(role, self.speeches)}")
        return "\n\n".join(self.speeches[role])

    @property
    def counts(self) -> dict[str, int]:
        """The characters of each role's text, the longest first; equal ones by name."""
        sizes = {role: len(self.text(role)) for role in self.speeches}
        return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))

    def largest(self, count: int) -> list[str]:
        """Return the roles of the most characters; raises :class:`ConfigError` for too many."""
        if not 1 <= count <= len(self.speeches):
            raise ConfigError(f"{count} roles were asked for, but {len(self.speeches)} speak")
        return list(self.counts)[:count]


def load_shakespeare(root: str | Path | None = None, *, check_size: bool = True) -> RoleSet:
    """Load ``text/tinyshakespeare.txt`` of the data folder, or of the cache.

    ``check_size`` holds the file to the published 1 115 394 bytes. Raises :class:`DataError`.
    """
    obtain = f"The file can be had from {URL}."
    file = find_file(data_folder(root), FILES, what="Tiny Shakespeare", obtain=obtain)
    content = read_bytes(file)
    if check_size and len(content) != PUBLISHED_BYTES:
        raise DataError(
            f"'{file}' holds {len(content)} bytes, published are {PUBLISHED_BYTES}; {obtain}"
        )
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"'{file}', byte {error.start}: not ASCII; {obtain}") from error
    return _read(text.replace("\r\n", "\n"), file)


def _read(text: str, file: Path) -> RoleSet:
    found: dict[str, list[str]] = {}
    line = 1
    for block in text.split("\n\n"):
        header, _, words = block.strip("\n").partition("\n")
        # Some blank lines are doubled, and so leave an empty block or one that begins with one.
        if header:
            first = line + len(block) - len(block.lstrip("\n"))
            found.setdefault(_role(header, file, first), []).extend(_spoken(words))
        line += block.count("\n") + 2
    if not any(found.values()):
        raise DataError(f"'{file}' holds no speeches; expected 'ROLE:' and lines of text")
    return RoleSet(
        {role: tuple(said) for role, said in found.items() if said},
        tuple(role for role, said in found.items() if not said),
        f"Tiny Shakespeare, {file}",
    )


def _role(header: str, file: Path, line: int) -> str:
    """Return a role's name; 'LADY  CAPULET' is one with 'LADY CAPULET'."""
    name = " ".join(header.removesuffix(":").split())
    if not header.endswith(":") or not name:
        raise DataError(
            f"'{file}', line {line}: a speech begins with '{header[:40]}', expected 'ROLE:'"
        )
    return name


def _spoken(words: str) -> Sequence[str]:
    return [words] if words.strip() else []
