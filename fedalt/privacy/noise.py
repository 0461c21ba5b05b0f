"""Where noise for privacy comes from: generators that nobody can run again.

The experiment's seed is public (it stands in the configuration), so noise drawn from it could
be subtracted again. Here every use gets a fresh ChaCha20 stream keyed by 256 bits from the
operating system. ``seeded`` draws from the experiment's seed instead, so that tests and parity
checks can repeat a run; the ledger says so, and that it protects nobody.
"""

from __future__ import annotations

import secrets

import numpy as np

from fedalt.seeds import Seeds

_WORDS = 8
"""32-bit words of a key: all 256 bits reach ChaCha."""

NAMES = {"os": "os:chacha20", "seeded": "seeded:pcg64 (protects nobody)"}
"""What the ledger calls each kind."""


def noise_generator(rng: str, seeds: Seeds) -> np.random.Generator:
    """Return a generator for noise and secret samples: ``rng`` is a spec's ``os`` or ``seeded``.

    ``seeds`` is the place (round, phase, client) that only ``seeded`` draws from.
    """
    if rng == "seeded":
        return seeds.at("privacy").numpy()
    from randomgen import ChaCha

    key = int.from_bytes(secrets.token_bytes(4 * _WORDS), "little")
    return np.random.Generator(ChaCha(np.random.SeedSequence(key, pool_size=_WORDS), rounds=20))


def secret_integer() -> int:
    """Return 63 bits from the operating system: a seed that no configuration tells."""
    return secrets.randbits(63)
