"""Identifiers as AWS's look."""

from __future__ import annotations

import secrets
import string
import uuid
from functools import lru_cache

LOWER = string.ascii_lowercase + string.digits
MIXED = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + "234567"


def word(length: int, alphabet: str = LOWER) -> str:
    """A random word: execution ids, job name suffixes, unique ids of IAM."""
    letters, beyond = _letters(alphabet)
    found = b""
    while len(found) < length:
        found += secrets.token_bytes(2 * length).translate(letters, beyond)
    return found[:length].decode()


@lru_cache
def _letters(alphabet: str) -> tuple[bytes, bytes]:
    """The letter of each byte, and the bytes that have none: one beyond the last whole alphabet would favour its beginning."""
    most = 256 - 256 % len(alphabet)
    return bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256)), bytes(range(most, 256))


def request_id() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
