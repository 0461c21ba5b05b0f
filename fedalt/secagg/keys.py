"""Keys of a secure aggregation: agreement, derivation, and sealed letters between sites.

    key_ij = HKDF-SHA256(X25519(private_i, public_j), label)

Both ends derive the same key, whoever begins (RFC 7748, RFC 5869); what one site has to tell
another travels through the server under ChaCha20-Poly1305 (RFC 8439). All keys come from the
operating system.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedalt.errors import WireError

KEY = 32
"""Bytes of every key and seed."""
_NONCE, _TAG = 12, 16
SEAL = _NONCE + _TAG
"""Bytes that sealing adds."""


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair of 32 bytes each; the private half is not shown."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"


def new_pair() -> KeyPair:
    """Make a key pair from the operating system's randomness."""
    private = X25519PrivateKey.generate()
    return KeyPair(private.private_bytes_raw(), private.public_key().public_bytes_raw())


def new_seed() -> bytes:
    """Return 32 bytes from the operating system."""
    return os.urandom(KEY)


def public_of(private: bytes) -> bytes:
    """Return the public half of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, label: bytes) -> bytes:
    """Return the key that both ends derive; raises :class:`WireError` for a bad public key."""
    try:
        own = X25519PrivateKey.from_private_bytes(private)
        shared = own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise WireError(f"a public key is none of X25519: {error}") from error
    return HKDF(SHA256(), KEY, salt=None, info=label).derive(shared)


def commitment(seed: bytes, label: bytes) -> bytes:
    """Return a digest by which a recovered seed is known for the right one.

    Of 256 random bits it gives nothing away.
    """
    digest = Hash(SHA256())
    digest.update(label)
    digest.update(seed)
    return digest.finalize()


def seal(key: bytes, text: bytes, about: bytes) -> bytes:
    """Encrypt and authenticate a text; ``about`` is authenticated along and not sent."""
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, about)


def unseal(key: bytes, box: bytes, about: bytes) -> bytes:
    """Return the text of :func:`seal`; raises :class:`WireError` for a box changed on its way."""
    try:
        return ChaCha20Poly1305(key).decrypt(box[:_NONCE], box[_NONCE:], about)
    except (InvalidTag, ValueError) as error:
        raise WireError("a sealed share was not made by its sender, or was changed") from error
