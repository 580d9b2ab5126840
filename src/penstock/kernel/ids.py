"""Identifiers as AWS's look."""

from __future__ import annotations

import secrets
import string
import uuid

LOWER = string.ascii_lowercase + string.digits
MIXED = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + "234567"


def word(length: int, alphabet: str = LOWER) -> str:
    """A random word: execution ids, job name suffixes, unique ids of IAM."""
    most = 256 - 256 % len(alphabet)
    found = ""
    while len(found) < length:  # a byte beyond the last whole alphabet would favour its beginning
        found += "".join(alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(2 * length) if byte < most)
    return found[:length]


def request_id() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
