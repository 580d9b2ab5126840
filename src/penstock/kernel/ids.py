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
    return "".join(secrets.choice(alphabet) for _ in range(length))


def request_id() -> str:
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
