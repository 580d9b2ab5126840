"""aws-chunked bodies, decoded as they come: signed chunks, unsigned chunks, trailing headers and their signature."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from penstock.wire import values

_LONGEST_LINE_BYTES = 16_384
_OTHER_LENGTH = "You did not provide the number of bytes specified by the Content-Length HTTP header"
_HEX = re.compile(rb"[0-9a-fA-F]{1,16}\Z")


class Malformed(values.Malformed):
    """A body that is not aws-chunked as it says; `code` and `status` are S3's."""

    status = 400

    def __init__(self, message: str, code: str = "InvalidRequest"):
        self.code, self.message = code, message
        super().__init__(message)


class Verifier(Protocol):
    """Checks the chain of chunk signatures; each call raises where one is wrong."""

    signed_trailer: bool
    """Whether the trailing headers end with a signature of their own."""

    def chunk(self, sha256: str, signature: str) -> None: ...
    def trailer(self, sha256: str, signature: str) -> None: ...


class Unchunker:
    """Decodes one aws-chunked body in constant memory.

    Takes: `verifier` for signed chunks (None takes them unsigned), `length` the x-amz-decoded-content-length if known,
    `signed_trailer` whether the trailing headers must be signed (None: as the verifier says).
    A chunk's bytes are handed on before its signature is known: nothing that came may be published before `finish`.
    """

    def __init__(self, verifier: Verifier | None = None, length: int | None = None, signed_trailer: bool | None = None):
        self._verifier = verifier
        self._length = length
        if signed_trailer is None:
            signed_trailer = verifier is not None and verifier.signed_trailer
        self._signed_trailer = signed_trailer
        self._buffer = b""
        self._state = self._size
        self._left = 0
        self._signature = ""
        self._hash = hashlib.sha256()
        self._decoded_bytes = 0
        self._trailers: dict[str, str] = {}
        self._signed = b""
        self._done = False

    def feed(self, data: bytes) -> list[bytes]:
        """Gives the decoded pieces of what came. Raises: Malformed, and what the verifier raises."""
        self._buffer += data
        pieces: list[bytes] = []
        while self._buffer and self._state(pieces):
            pass
        if self._state != self._data and len(self._buffer) > _LONGEST_LINE_BYTES:
            raise Malformed("A chunk header is too long")
        return pieces

    def finish(self) -> dict[str, str]:
        """Gives the trailing headers, in lower case.

        Raises: Malformed where the body ended too early or has another length.
        """
        if self._state == self._trailer and not self._buffer and not self._signed_trailer:
            self._done = True  # some clients leave out the last empty line
        if not self._done:
            raise Malformed("The request body terminated unexpectedly", "IncompleteBody")
        if self._length is not None and self._length != self._decoded_bytes:
            raise Malformed(_OTHER_LENGTH, "IncompleteBody")
        return self._trailers

    def _line(self) -> bytes | None:
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            return None
        self._buffer = rest
        return line[:-1] if line.endswith(b"\r") else line

    def _size(self, pieces: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        size, _, extension = line.partition(b";")
        size = size.strip()
        if not _HEX.match(size):
            raise Malformed("A chunk size is no hexadecimal number")
        self._left = int(size, 16)
        name, _, signature = extension.partition(b"=")
        self._signature = signature.strip().decode("ascii", "replace") if name.strip() == b"chunk-signature" else ""
        if self._verifier is not None and not self._signature:
            raise Malformed("A chunk has no signature")
        self._hash = hashlib.sha256()
        if self._left:
            self._state = self._data
        else:
            self._check()
            self._state = self._trailer
        return True

    def _data(self, pieces: list[bytes]) -> bool:
        piece = self._buffer[: self._left]
        self._buffer = self._buffer[len(piece) :]
        self._left -= len(piece)
        self._decoded_bytes += len(piece)
        if self._length is not None and self._decoded_bytes > self._length:
            raise Malformed(_OTHER_LENGTH, "IncompleteBody")
        if self._verifier is not None:
            self._hash.update(piece)
        pieces.append(piece)
        if not self._left:
            self._check()
            self._state = self._gap
        return True

    def _gap(self, pieces: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        if line:
            raise Malformed("A chunk is longer than it says")
        self._state = self._size
        return True

    def _check(self) -> None:
        if self._verifier is not None:
            self._verifier.chunk(self._hash.hexdigest(), self._signature)

    def _trailer(self, pieces: list[bytes]) -> bool:
        line = self._line()
        if line is None:
            return False
        if not line:
            if not self._signed_trailer:  # before the signature some clients leave an empty line
                self._done, self._state = True, self._after
            return True
        name, found, value = line.partition(b":")
        if not found:
            raise Malformed("A trailing header is malformed")
        key = name.strip().lower().decode("latin-1")
        text = value.strip().decode("latin-1")
        if key == "x-amz-trailer-signature":
            self._check_trailer(text)
        else:
            self._trailers[key] = text
            self._signed += name.strip().lower() + b":" + value.strip() + b"\n"
        return True

    def _check_trailer(self, signature: str) -> None:
        if self._verifier is not None and self._signed_trailer:
            self._verifier.trailer(hashlib.sha256(self._signed).hexdigest(), signature)
            self._signed_trailer = False

    def _after(self, pieces: list[bytes]) -> bool:
        if self._buffer.strip(b"\r\n"):
            raise Malformed("The request body goes on after its last chunk")
        self._buffer = b""
        return False


def decode(body: bytes, verifier: Verifier | None = None, length: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Decodes a whole aws-chunked body. Gives its bytes and trailing headers. Raises: as Unchunker."""
    unchunker = Unchunker(verifier, length)
    pieces = unchunker.feed(body)
    return b"".join(pieces), unchunker.finish()
