"""The content digest of this package: BLAKE2b with 128 bits."""

import hashlib


def hasher() -> hashlib.blake2b:
    """A new, empty state."""
    return hashlib.blake2b(digest_size=16)


def bytes_digest(data: bytes) -> str:
    """32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
