"""The wire contract's version, and what either side does about another's."""

from __future__ import annotations

from fedalt.errors import WireError

MAJOR = 2
"""Raised when an older reader could misunderstand a message."""

MINOR = 0
"""Raised when a field is added that an older reader may ignore."""


def check_version(major: int, minor: int, what: str) -> None:
    """Refuse another major version; any minor version of ours is read.

    Raises :class:`WireError` saying which side is behind.
    """
    if major == MAJOR:
        return
    behind = "this side" if major > MAJOR else "the sender"
    raise WireError(
        f"{what} speaks wire version {major}.{minor}, this side {MAJOR}.{MINOR}: "
        f"{behind} is behind; install the same major version of fedalt on both"
    )
