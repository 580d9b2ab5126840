"""A request's body as it comes: whole, piece by piece into the blobs, or carried there by the porter; and how long it may take."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

from penstock.blobs.base import INLINE_BYTES, Blobs
from penstock.connections import Incoming
from penstock.kernel.errors import ServiceError
from penstock.settings import Settings
from penstock.wire.message import Request

CHUNK_BYTES = 1 << 20
SLOWEST_BYTES_S = 1024.0
"""What a body must come with, on average, after the first minute (Settings.patience_s)."""
SLOW = (
    "Your socket connection to the server was not read from or written to within the timeout period. Idle connections "
    "will be closed."
)

Receive = Callable[[], Awaitable[dict[str, Any]]]


class Disconnected(Exception):
    """The client went away in the middle of its body."""


class Patience:
    """How long the next bytes of a body are waited for: what comes buys time, what is waited for costs it."""

    def __init__(self, patience_s: float):
        self._patience_s, self._credit_s = patience_s, 0.0

    def left_s(self) -> float:
        return self._patience_s + min(0.0, self._credit_s)

    def came(self, size_bytes: int, waited_s: float) -> None:
        self._credit_s += size_bytes / SLOWEST_BYTES_S - waited_s


class Body:
    """A request's body, received once."""

    def __init__(self, request: Request, receive: Receive, settings: Settings, incoming: Incoming | None):
        headers = request.headers
        self.receive, self._limit_bytes, self.patience_s = receive, settings.max_body_bytes, settings.patience_s
        length = headers.get("content-length")
        self.length = int(length) if length else None
        self.incoming = incoming
        bare = request.method in ("GET", "HEAD", "DELETE") and self.length is None
        nothing = self.length == 0 or (bare and "transfer-encoding" not in headers)
        self._whole = b"" if nothing else None

    def is_large(self) -> bool:
        """Whether it says that it is larger than bodies may be."""
        return self.length is not None and self.length > self._limit_bytes

    def is_here(self) -> bool:
        """Whether all of it has come, so that nothing need be waited for."""
        return self._whole is not None or (self.incoming is not None and self.incoming.is_here())

    async def whole(self) -> bytes:
        """All of it.

        Raises: ServiceError (413) beyond the limit; Disconnected.
        """
        if self._whole is None:
            if self.is_large():
                raise self._too_large()
            if self.is_here():
                self._whole = (await self._next())[0]
                return self._whole
            pieces, size = [], 0
            async for piece in self.pieces():
                size += len(piece)
                if size > self._limit_bytes:
                    raise self._too_large()
                pieces.append(piece)
            self._whole = b"".join(pieces)
        return self._whole

    async def pieces(self) -> AsyncIterator[bytes]:
        """The pieces as they come.

        Raises: Disconnected; ServiceError (RequestTimeout) for one that comes slower than SLOWEST_BYTES_S.
        """
        if self._whole is not None:
            yield self._whole
            return
        more, patience, clock = True, Patience(self.patience_s), asyncio.get_running_loop().time
        while more:
            if self.is_here():  # no timer for what has come already
                piece, more = await self._next()
            else:
                began = clock()
                try:
                    async with asyncio.timeout(patience.left_s()):
                        piece, more = await self._next()
                except TimeoutError:
                    raise too_slow() from None
                patience.came(len(piece), clock() - began)
            if piece:
                yield piece

    async def _next(self) -> tuple[bytes, bool]:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        return message.get("body", b""), message.get("more_body", False)

    def _too_large(self) -> ServiceError:
        return ServiceError("RequestEntityTooLarge", f"The body is larger than {self._limit_bytes} bytes.", 413)


def too_slow() -> ServiceError:
    """The answer to a client whose body does not come."""
    return ServiceError("RequestTimeout", SLOW, 400)


@asynccontextmanager
async def spooled(body: Body, folder: Path) -> AsyncIterator[tuple[BinaryIO, str]]:
    """A body in a file without a name, so that it takes no memory while it comes. Gives the file, and its SHA-256."""
    loop, digest = asyncio.get_running_loop(), hashlib.sha256()
    with tempfile.TemporaryFile(dir=folder) as file:

        def write(pieces: list[bytes]) -> None:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)

        waiting: list[bytes] = []
        async for piece in body.pieces():
            waiting.append(piece)
            if sum(map(len, waiting)) >= CHUNK_BYTES:
                await loop.run_in_executor(None, write, waiting)
                waiting = []
        await loop.run_in_executor(None, write, waiting)
        file.seek(0)
        yield file, digest.hexdigest()


async def keep_small(blobs: Blobs, body: Body, algorithms: tuple[str, ...]) -> Any:
    """Takes in a body that is here and goes into a row; None where it is another one."""
    if body.length is None or body.length > INLINE_BYTES or not body.is_here():
        return None
    receiver = blobs.receive(algorithms)
    receiver.write(await body.whole())
    return receiver.finish()


async def keep(blobs: Blobs, pieces: AsyncIterator[bytes], algorithms: tuple[str, ...]) -> Any:
    """Puts bytes into the blobs as they come, in constant memory: small ones inline, larger writes in the executor.

    One write is under way while the next megabyte arrives.
    """
    loop = asyncio.get_running_loop()
    receiver = blobs.receive(algorithms)
    waiting: list[bytes] = []
    writing: asyncio.Future[Any] | None = None
    held = total = 0
    try:
        async for piece in pieces:
            waiting.append(piece)
            held += len(piece)
            total += len(piece)
            if held >= CHUNK_BYTES:
                if writing:
                    await writing
                writing = loop.run_in_executor(None, receiver.write, b"".join(waiting))
                waiting, held = [], 0
        if writing:
            await writing
        large = total > CHUNK_BYTES // 16
        if waiting:
            rest = b"".join(waiting) if len(waiting) > 1 else waiting[0]
            if large:
                await (writing := loop.run_in_executor(None, receiver.write, rest))
            else:
                receiver.write(rest)
        if large:
            return await (writing := loop.run_in_executor(None, receiver.finish))
        return receiver.finish()
    except BaseException:
        if writing:
            await asyncio.wait([writing])  # its thread still has the file
        receiver.abandon()
        raise
