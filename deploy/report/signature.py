"""ed25519 signatures of a report's digest, with the keys that NATS uses (NKEYs). Loads `nkeys` where it is needed."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signature:
    """An ed25519 signature of the digest's hexadecimal text. ``public_key`` as `nk` prints it."""

    public_key: str
    base64: str


def signed(sha256: str, seed: bytes) -> Signature:
    """The digest signed with an NKEY's seed. Raises ValueError for what is no seed, ImportError without `nkeys`."""
    import nkeys

    try:
        pair = nkeys.from_seed(bytearray(seed.strip()))
        return Signature(pair.public_key.decode(), base64.b64encode(pair.sign(sha256.encode())).decode())
    except Exception as error:  # The package raises its own errors and those of its parts.
        raise ValueError("not the seed of an NKEY") from error


def verified(sha256: str, signature: Signature) -> bool:
    """Whether the signature is the key's own for this digest. Raises ImportError without `nkeys`."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    try:
        # Base32 of a prefix, the key's 32 bytes and a checksum of two.
        key = base64.b32decode(signature.public_key + "=" * (-len(signature.public_key) % 8))[1:-2]
        VerifyKey(key).verify(sha256.encode(), base64.b64decode(signature.base64, validate=True))
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True
