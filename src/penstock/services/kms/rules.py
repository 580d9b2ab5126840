"""The ciphers: pure functions over a key's material."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MATERIAL_BYTES = 32
NONCE_BYTES = 12
MARK = b"\x01\x02\x02\x00"
"""What a ciphertext begins with; the key's id follows, then the nonce."""


class Sealed(NamedTuple):
    """A ciphertext, taken apart."""

    key_id: str
    nonce: bytes
    secret: bytes


def make_material() -> bytes:
    return os.urandom(MATERIAL_BYTES)


def seal(material: bytes, key_id: str, plain: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext under a key, with what must be said again to have it back."""
    nonce, head = os.urandom(NONCE_BYTES), MARK + uuid.UUID(key_id).bytes
    return head + nonce + AESGCM(material).encrypt(nonce, plain, head + _authenticated(context))


def read(blob: bytes) -> Sealed | None:
    """What a ciphertext says of itself; None for what is none of ours."""
    start, end = len(MARK), len(MARK) + 16
    if not blob.startswith(MARK) or len(blob) < end + NONCE_BYTES + 16:
        return None
    return Sealed(str(uuid.UUID(bytes=blob[start:end])), blob[end : end + NONCE_BYTES], blob[end + NONCE_BYTES :])


def open_sealed(material: bytes, sealed: Sealed, context: Mapping[str, str]) -> bytes | None:
    """The plaintext; None where a bit of it, the key or the context is another."""
    head = MARK + uuid.UUID(sealed.key_id).bytes
    try:
        return AESGCM(material).decrypt(sealed.nonce, sealed.secret, head + _authenticated(context))
    except InvalidTag:
        return None


def _authenticated(context: Mapping[str, str]) -> bytes:
    return msgspec.json.encode(sorted(context.items()))
