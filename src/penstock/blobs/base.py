"""What a blob store promises. `BlobsContract` in tests/contract holds every driver to it.

A blob is a file named by the SHA-256 of its bytes, never changed once there: `<root>/<first two hex digits>/<sha256>`,
mode 0644. A supervisor that hashes a job's outputs puts them there by the same rule, so that the engine commits rows
and moves no bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

INLINE_BYTES = 64 * 1024
"""Up to this size an object's bytes live in its row."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that are there, durably."""

    sha256: str
    size_bytes: int


@dataclass(slots=True)
class Received:
    """What became of a streamed body: `inline` bytes when small, else a blob that is durable; and its digests."""

    size_bytes: int
    sha256: str
    md5: str
    """Hex."""
    inline: bytes | None = None
    checksums: dict[str, str] = field(default_factory=dict)
    """Base64, by algorithm (`checksums.ALGORITHMS`): those asked for."""


class Receiver(Protocol):
    """Takes a body piece by piece, hashing as it comes; not thread-safe, and each write may take disk time."""

    def write(self, piece: bytes | memoryview) -> None: ...
    def finish(self) -> Received:
        """Makes the bytes durable: file and folder synced."""
        ...

    def abandon(self) -> None:
        """Throws away what came; always safe, also after finish."""
        ...


class Blobs(Protocol):
    def receive(self, algorithms: tuple[str, ...] = ()) -> Receiver: ...
    def put(self, data: bytes) -> Blob:
        """A blob of bytes in memory, however few: a part of an upload has no row to lie in."""
        ...

    def read(self, sha256: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Chunks of at most 1 MiB. Raises FileNotFoundError when called, not at the first chunk."""
        ...

    def path(self, sha256: str) -> str | None:
        """A local file that holds the blob, for links; None where the driver has no files, or no such blob."""
        ...

    def touch(self, sha256: str) -> None:
        """Keeps the collector away for a while: called before a row (or a job) comes to point at a blob that was there.
        Raises FileNotFoundError."""
        ...

    def join(self, parts: list[tuple[str, int]]) -> Blob:
        """One blob of several, one after another (a multipart object when first staged)."""
        ...

    def collect(self, older_than: float, used: Used, prefix: str = "") -> int:
        """Deletes blobs last touched before `older_than` that `used` says nobody points at; gives the bytes freed.

        `prefix`: only those whose hash begins so, to do the work in slices."""
        ...


class Used(Protocol):
    def __call__(self, sha256: str) -> bool: ...
