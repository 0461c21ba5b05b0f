"""Randomness by name: every generator is spawned from (run seed, labels…).

Nothing here is ambient. A caller that needs randomness is handed a :class:`Seeds`
and asks it for a generator under labels such as ``("round", 3, "client", 7)``; the
same labels give the same stream in any process, on any engine and in any order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Label = int | str


def _words(label: Label) -> list[int]:
    """Map a label to 32-bit words; strings by SHA-256, so that they do not depend on hash()."""
    # An index from numpy is a number too, not a text.
    number = isinstance(label, int | np.integer)
    kind, text = ("i", str(label)) if number else ("s", label)
    digest = hashlib.sha256(f"{kind}:{text}".encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]


@dataclass(frozen=True)
class Seeds:
    """A place in the tree of seeds: the run's seed and the labels walked so far."""

    root: int
    path: tuple[Label, ...] = ()

    def at(self, *labels: Label) -> Seeds:
        """Walk further down the tree."""
        return Seeds(self.root, self.path + labels)

    def sequence(self) -> np.random.SeedSequence:
        """Return the ``SeedSequence`` of this place."""
        key = [word for label in self.path for word in _words(label)]
        return np.random.SeedSequence(self.root, spawn_key=tuple(key))

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
