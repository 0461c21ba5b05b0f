"""Masks that cancel: what a site adds to its numbers, so that only their sum can be read.

    y_i = x_i + G(b_i) + Σ_{j>i} G(s_ij) − Σ_{j<i} G(s_ij)        modulo 2ᵏ

G expands a key into a stream of ChaCha20, s_ij is the key that i and j agree on and b_i is
i's own seed. Summed over all sites the pairs cancel (Bonawitz et al. 2017, "Practical secure
aggregation for privacy-preserving machine learning", section 4). Unsigned integers of numpy
wrap around, which is the reduction modulo 2ᵏ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

_CHUNK = 2**20
"""Bytes of a stream at a time: what stays in the processor's cache."""
_ZEROS = bytes(_CHUNK)


def add_stream(vector: np.ndarray, key: bytes, sign: int) -> None:
    """Add G(key), or subtract it, in place; ``vector`` (d,) is of unsigned integers.

    A key serves one vector, so that the nonce is 0.
    """
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    step = _CHUNK // vector.itemsize
    kept = bytearray(_CHUNK)
    for first in range(0, len(vector), step):
        part = vector[first : first + step]
        stream.update_into(memoryview(_ZEROS)[: part.nbytes], kept)
        mask = np.frombuffer(kept, vector.dtype, len(part))
        if sign > 0:
            part += mask
        else:
            part -= mask


def sign_of(site: int, other: int) -> int:
    """Return the sign with which a site adds the mask that it shares with another."""
    return 1 if site < other else -1


def mask(vector: np.ndarray, site: int, seed: bytes, pairs: Mapping[int, bytes]) -> np.ndarray:
    """Return a site's masked numbers; ``pairs`` are the keys that it shares, by site."""
    masked = vector.copy()
    add_stream(masked, seed, 1)
    for other, key in pairs.items():
        add_stream(masked, key, sign_of(site, other))
    return masked


def unmask(
    total: np.ndarray,
    seeds: Mapping[int, bytes],
    pairs: Mapping[tuple[int, int], bytes],
) -> np.ndarray:
    """Take masks off a sum: own masks of ``seeds``, and what is left of pairs.

    ``pairs`` are keys by (site in the sum, site that is not), whose masks did not cancel.
    """
    plain = total.copy()
    for seed in seeds.values():
        add_stream(plain, seed, -1)
    for (site, lost), key in pairs.items():
        add_stream(plain, key, -sign_of(site, lost))
    return plain
