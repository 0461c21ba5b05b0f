"""Windows of a text, and who holds which stretch of it.

A role's text is cut into stretches without overlap: the server's test stretch at its end, and
before it one stretch for each client, each of which ends in what the client holds out. A window
and the character after it lie within one stretch, so that no character that is judged on was
trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.errors import ConfigError, DataError

ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The 65 characters of the text."""


@dataclass(frozen=True)
class Stretches:
    """First places (windows,) of a role's windows: each client's, held out, and the server's."""

    train: tuple[np.ndarray, ...]
    held: tuple[np.ndarray, ...]
    test: np.ndarray


def encode(text: str) -> np.ndarray:
    """Return characters as places in ``ALPHABET`` (characters,) uint8.

    Raises :class:`DataError` for any other character.
    """
    table = np.full(128, 255, np.uint8)
    table[[ord(character) for character in ALPHABET]] = np.arange(len(ALPHABET))
    codes = table[np.frombuffer(text.encode("ascii"), np.uint8)]
    if (codes == 255).any():
        strange = text[int(np.argmax(codes == 255))]
        raise DataError(f"the text holds {strange!r}, which is none of its {len(ALPHABET)}")
    return codes


def stretches(
    length: int, role: str, clients: int, window: int, stride: int, shares: tuple[float, float]
) -> Stretches:
    """Cut a text of ``length`` characters; ``shares`` are those held out and of the server.

    Raises :class:`ConfigError` where a stretch is too short for one window.
    """
    held_out, test = shares
    end = length - round(test * length)
    bounds = np.linspace(0, end, clients + 1).round().astype(int)
    train, held = [], []
    for first, last in itertools.pairwise(bounds.tolist()):
        middle = last - round(held_out * (last - first))
        train.append(_starts(first, middle, window, stride))
        held.append(_starts(middle, last, window, stride))
    found = Stretches(tuple(train), tuple(held), _starts(end, length, window, stride))
    wanted: Sequence[np.ndarray] = (*train, *(held if held_out else ()), found.test)
    if any(not len(starts) for starts in wanted):
        raise ConfigError(
            f"role '{role}' has {length} characters, too few for windows of {window} and one more "
            f"in every part of {clients} clients; lower task.clients, task.tasks or task.window, "
            "or raise task.held_out and task.test"
        )
    return found


def windows(codes: np.ndarray, starts: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return contexts (n, window) and the characters after them (n,), both int64."""
    places = starts[:, None] + np.arange(window + 1)
    found = codes[places].astype(np.int64)
    return found[:, :window], found[:, window]


def _starts(first: int, last: int, window: int, stride: int) -> np.ndarray:
    """Return where windows begin that lie in [first, last) with the character after them."""
    return np.arange(first, last - window, stride)
