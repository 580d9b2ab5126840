"""The checksums that S3 knows, fed piece by piece, as base64 text; and how those of parts become that of the whole."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from awscrt import checksums as crt

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256", "SHA512", "MD5", "XXHASH64", "XXHASH3", "XXHASH128")
FULL_OBJECT = ("CRC32", "CRC32C", "CRC64NVME")
"""Those whose value for the whole follows from the values of the parts."""
DEFAULT = "CRC64NVME"
"""What S3 keeps where the client asks for none."""

_HEADER = "x-amz-checksum-"
_CRC: dict[str, tuple[Callable[[bytes, int], int], Callable[[int, int, int], int], int]] = {
    "CRC32": (crt.crc32, crt.combine_crc32, 4),
    "CRC32C": (crt.crc32c, crt.combine_crc32c, 4),
    "CRC64NVME": (crt.crc64nvme, crt.combine_crc64nvme, 8),
}
_XXHASH = {
    "XXHASH64": crt.XXHash.new_xxhash64,
    "XXHASH3": crt.XXHash.new_xxhash3_64,
    "XXHASH128": crt.XXHash.new_xxhash3_128,
}


class Digest(Protocol):
    """A checksum being computed."""

    def update(self, piece: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc:
    def __init__(self, algorithm: str):
        self._step, _, self._width_bytes = _CRC[algorithm]
        self._value = 0

    def update(self, piece: bytes | memoryview, /) -> None:
        self._value = self._step(piece, self._value)  # type: ignore[arg-type]  # any buffer will do

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width_bytes, "big")


class _XxHash:
    def __init__(self, algorithm: str):
        self._state = _XXHASH[algorithm]()

    def update(self, piece: bytes | memoryview, /) -> None:
        self._state.update(piece)

    def digest(self) -> bytes:
        value: bytes = self._state.finalize()
        return value


def start(algorithm: str) -> Digest:
    """Starts a checksum. Raises KeyError for an algorithm that S3 does not know."""
    if algorithm in _CRC:
        return _Crc(algorithm)
    if algorithm in _XXHASH:
        return _XxHash(algorithm)
    if algorithm not in ALGORITHMS:
        raise KeyError(algorithm)
    return hashlib.new(algorithm.lower(), usedforsecurity=False)


def encode(digest: bytes) -> str:
    """Gives a digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def encode_hex(digest: str) -> str:
    """Gives a hex digest as S3 writes it."""
    return encode(bytes.fromhex(digest))


def compute(algorithm: str, pieces: Iterable[bytes]) -> str:
    """Computes the checksum of bytes that are there already."""
    state = start(algorithm)
    for piece in pieces:
        state.update(piece)
    return encode(state.digest())


def valid(algorithm: str, text: str) -> bool:
    """Tells whether the text can be a checksum of that algorithm."""
    try:
        return len(base64.b64decode(text, validate=True)) == _size_bytes(algorithm)
    except (binascii.Error, ValueError):
        return False


def combine(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """Gives the checksum of the whole from (checksum, size in bytes) of its parts in order, without reading them."""
    _, join, width_bytes = _CRC[algorithm]
    value = 0
    for text, size_bytes in parts:
        value = join(value, int.from_bytes(base64.b64decode(text), "big"), size_bytes)
    return encode(value.to_bytes(width_bytes, "big"))


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """Gives the checksum of the parts' checksums, with their number behind a dash."""
    digests = [base64.b64decode(part) for part in parts]
    state = start(algorithm)
    state.update(b"".join(digests))
    return f"{encode(state.digest())}-{len(digests)}"


def asked(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names the algorithms that an upload's headers (lower-case names) speak of, and the default."""
    named = {name[len(_HEADER) :].upper() for name in headers if name.startswith(_HEADER)} | {DEFAULT}
    for trailer in headers.get("x-amz-trailer", "").split(","):
        if trailer.strip().lower().startswith(_HEADER):
            named.add(trailer.strip()[len(_HEADER) :].upper())
    named.add(headers.get("x-amz-sdk-checksum-algorithm", "").upper())
    return tuple(name for name in ALGORITHMS if name in named)


def _size_bytes(algorithm: str) -> int:
    return len(start(algorithm).digest())
