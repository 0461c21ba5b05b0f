"""Randomness by name: every generator is spawned from (run seed, labels…).

Nothing here is ambient. A caller that needs randomness is handed a :class:`Seeds`
and asks it for a generator under labels such as ``("round", 3, "client", 7)``; the
same labels give the same stream in any process, on any engine and in any order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Label = int | str


_KEY = 16
"""Bytes that a label adds to a place's key: four 32-bit words."""
_POOL = 4
"""Words to which numpy fills up a seed before a spawn key follows."""


# Typed, since True and 1 are equal keys but different labels. A round asks for few labels.
@lru_cache(maxsize=4096, typed=True)
def _key(label: Label) -> bytes:
    """Map a label to 16 bytes; texts by SHA-256, so that they do not depend on hash()."""
    # An index from numpy is a number too, not a text.
    number = isinstance(label, int | np.integer)
    kind, text = ("i", str(label)) if number else ("s", label)
    return hashlib.sha256(f"{kind}:{text}".encode()).digest()[:_KEY]


@lru_cache(maxsize=64)
def _root(seed: int) -> bytes:
    """Return a run's seed as numpy reads it where a spawn key follows."""
    if seed < 0:
        raise ValueError(f"a seed must not be negative, but is {seed}")
    words = max(_POOL, -(-seed.bit_length() // 32))
    return seed.to_bytes(4 * words, "little")


@dataclass(frozen=True)
class Seeds:
    """A place in the tree of seeds: the run's seed and the labels walked so far."""

    root: int
    path: tuple[Label, ...] = ()
    _walked: bytes = field(default=b"", compare=False, repr=False)
    """The labels' keys, kept from parent to child; made from ``path`` where it is missing."""

    def __post_init__(self) -> None:
        if len(self._walked) != _KEY * len(self.path):
            object.__setattr__(self, "_walked", b"".join(map(_key, self.path)))

    def at(self, *labels: Label) -> Seeds:
        """Walk further down the tree."""
        return Seeds(self.root, self.path + labels, self._walked + b"".join(map(_key, labels)))

    def sequence(self) -> np.random.SeedSequence:
        """Return the ``SeedSequence`` of this place.

        It draws, and spawns, what ``SeedSequence(root, spawn_key=...)`` with the labels' words
        does, but is given the words as numpy would assemble them: a key as a tuple costs 1 µs
        a word.
        """
        if not self.path:
            return np.random.SeedSequence(self.root)
        words = np.frombuffer(_root(int(self.root)) + self._walked, "<u4")
        return np.random.SeedSequence(words.astype(np.uint32, copy=False))

    def numpy(self) -> np.random.Generator:
        """Return a fresh numpy generator (PCG64) for this place."""
        return np.random.Generator(np.random.PCG64(self.sequence()))

    def torch(self, device: str = "cpu") -> torch.Generator:
        """Return a fresh torch generator for this place."""
        import torch

        generator = torch.Generator(device)
        generator.manual_seed(self.integer())
        return generator

    def integer(self) -> int:
        """Return a non-negative 63-bit integer for this place."""
        low, high = self.sequence().generate_state(2, np.uint32)
        return (int(high) << 32 | int(low)) & (2**63 - 1)
