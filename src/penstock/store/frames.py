"""What goes over the socket between fronts and the writer: frames of a length, a number and a MessagePack body."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from penstock.store.records import Stale, StoreFailed, Taken, Unmet

HEAD = struct.Struct(">IQ")
"""The bytes that follow, the number included; the number of the change."""
NUMBER_BYTES = 8
FRAME_BYTES = 64 * 1024 * 1024
"""A change may not be larger, encoded."""
TOLD = 0
"""The number of a frame that answers no change: it holds topics (`Change.tells`), or, at first, a front's name."""
PATH_BYTES = 100
"""What a socket's address holds, with a little room."""

_fault = msgspec.msgpack.Decoder(tuple[str, list[str]])
_topics = msgspec.msgpack.Decoder(list[str])
_encoder = msgspec.msgpack.Encoder()


@contextlib.contextmanager
def address(path: str | Path) -> Iterator[str]:
    """The socket's path, through a descriptor of its folder where it is too long for an address."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield str(path)
        return
    folder, name = os.path.split(os.path.abspath(path))
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def frame(number: int, body: Any) -> bytearray:
    """One message, as it goes over the socket.

    Raises: ValueError, when it is too large; what msgspec raises for what MessagePack cannot hold.
    """
    buffer = bytearray(HEAD.size)
    _encoder.encode_into(body, buffer, HEAD.size)
    if len(buffer) > FRAME_BYTES:
        raise ValueError(f"the change is too large: {len(buffer)} bytes of at most {FRAME_BYTES}")
    HEAD.pack_into(buffer, 0, len(buffer) - HEAD.size + NUMBER_BYTES, number)
    return buffer


class Frames:
    """Cuts a stream of bytes into (number, body)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages that are complete now.

        Raises: ValueError, for what is no frame.
        """
        buffer, at = self._buffer, 0
        buffer += piece
        while len(buffer) - at >= HEAD.size:
            size, number = HEAD.unpack_from(buffer, at)
            if not NUMBER_BYTES <= size <= FRAME_BYTES:
                raise ValueError(f"no frame: {size} bytes")
            end = at + HEAD.size - NUMBER_BYTES + size
            if len(buffer) < end:
                break
            yield number, bytes(buffer[at + HEAD.size : end])
            at = end
        del buffer[:at]


def fault(error: Exception) -> tuple[str, list[str]]:
    """What an outcome is called on the socket."""
    if isinstance(error, (Stale, Taken)):
        return type(error).__name__, list(error.ref)
    if isinstance(error, Unmet):
        return "Unmet", [error.bucket, error.key]
    text = str(error) if isinstance(error, StoreFailed) else f"{type(error).__name__}: {error}"
    return "StoreFailed", [text.encode(errors="replace").decode()]


def topics(body: bytes) -> list[str]:
    """The topics that a TOLD frame holds."""
    return _topics.decode(body)


def outcome(body: bytes) -> Exception | None:
    """The outcome that an answer tells."""
    if not body:
        return None
    name, words = _fault.decode(body)
    match name:
        case "Stale":
            return Stale(words)
        case "Taken":
            return Taken(words)
        case "Unmet":
            return Unmet(*words)
    return StoreFailed(*words)
