"""A secret from its shares, and the proof that it is the one that was shared.

Shares of a site may be garbage: of more than t shares any t that belong together will do, and
what they make is compared with what is public of the secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedalt.errors import WireError
from fedalt.secagg.keys import commitment, public_of
from fedalt.secagg.shamir import combine


def recover_seed(
    shares: Mapping[int, bytes], threshold: int, digest: bytes, label: bytes
) -> bytes | None:
    """Return the seed with a commitment's digest, or None; ``shares`` are by site."""
    return _recover(shares, threshold, lambda seed: commitment(seed, label) == digest)


def recover_key(shares: Mapping[int, bytes], threshold: int, public: bytes) -> bytes | None:
    """Return the private key of a public one, or None; ``shares`` are by site."""
    return _recover(shares, threshold, lambda private: public_of(private) == public)


def _recover(
    shares: Mapping[int, bytes], threshold: int, proven: Callable[[bytes], bool]
) -> bytes | None:
    """Try t neighbours at a time, in a ring: one window is without any few bad neighbours."""
    sites = sorted(site for site, share in shares.items() if share)
    if len(sites) < threshold:
        return None
    ring = sites + sites
    for first in range(len(sites) if len(sites) > threshold else 1):
        chosen = ring[first : first + threshold]
        try:
            found = combine({site + 1: shares[site] for site in chosen})
        except WireError:
            continue
        if proven(found):
            return found
    return None
