"""AWS's Runtime API, as the program in a worker's sandbox asks it: one small HTTP/1.1 exchange after another.

    GET  /2018-06-01/runtime/invocation/next              waits for the next invocation
    POST /2018-06-01/runtime/invocation/<id>/response     what the handler returned
    POST /2018-06-01/runtime/invocation/<id>/error        its error
    POST /2018-06-01/runtime/init/error                   there is no handler

Whatever it sends is a stranger's: heads and bodies have limits, and an answer counts only for the invocation that the worker has:
the body of any other is not kept.

Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

HEAD_BYTES = 16 * 1024
ANSWER_BYTES = 6 * 1024 * 1024 + 100
"""AWS's limit of a response; more than its size is read of none."""
BODY_BYTES, BODY_S = 64 << 20, 30.0
"""No body is larger, or takes longer."""
PREFIX = "/2018-06-01/runtime/"
NOT_ALLOWED = b'{"errorMessage":"State transition is not allowed","errorType":"InvalidStateTransition"}'


@dataclass(slots=True)
class Asked:
    """One request: its head; its body, once that was read."""

    method: str
    path: str
    headers: dict[str, str]
    size_bytes: int
    """Of the body, of which a larger one than ANSWER_BYTES is not kept."""
    body: bytes = b""


class Answering(Protocol):
    """What answers one worker's requests."""

    @property
    def may_ask(self) -> bool:
        """Whether it may ask for its next invocation: not while it has one that it has not answered.

        But for one whose connection broke: it cannot be told whether that came to it.
        """
        ...

    async def next(self, lasts: Callable[[], bool]) -> tuple[Mapping[str, str], bytes] | None:
        """The next invocation; None when the worker is to end.

        Takes: `lasts`, which tells from then on whether the worker still has the connection over which it asked.
        """
        ...

    ready: bool
    """Whether it asked for an invocation yet."""

    def expects(self, request_id: str) -> bool:
        """Whether the worker has this invocation, and has not answered it yet."""
        ...

    def answered(self, request_id: str, asked: Asked) -> bool: ...
    def failed(self, request_id: str, asked: Asked) -> bool: ...
    def failed_init(self, asked: Asked) -> None: ...


class Malformed(Exception):
    """No request of this API."""


async def serve(worker: Answering, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one connection until it ends."""
    try:
        while (asked := await read(reader)) is not None:
            await _answer(worker, asked, reader, writer)
    except (Malformed, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read(reader: asyncio.StreamReader) -> Asked | None:
    """The head of the next request; None at the connection's end.

    Raises: Malformed.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as ended:
        if ended.partial:
            raise
        return None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or len(head) > HEAD_BYTES:
        raise Malformed
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    text = headers.get("content-length", "0")
    if not text.isdecimal() or int(text) > BODY_BYTES or "transfer-encoding" in headers:
        raise Malformed
    return Asked(words[0], words[1], headers, int(text))


async def take(reader: asyncio.StreamReader, asked: Asked, keep: bool) -> None:
    """Reads a request's body; where it is not to be kept, or too large, it goes by.

    Raises: TimeoutError, asyncio.IncompleteReadError.
    """
    async with asyncio.timeout(BODY_S):
        if keep and asked.size_bytes <= ANSWER_BYTES:
            asked.body = await reader.readexactly(asked.size_bytes)
            return
        left = asked.size_bytes
        while left:
            piece = await reader.read(min(left, 1 << 20))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)


async def _answer(worker: Answering, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = asked.path.removeprefix(PREFIX) if asked.path.startswith(PREFIX) else ""
    kind, _, rest = path.partition("/")
    request_id, _, what = rest.partition("/")
    if asked.method == "POST" and path == "init/error":
        await _take_init_error(worker, asked, reader, writer)
        return
    answers = asked.method == "POST" and kind == "invocation" and what in ("response", "error")
    await take(reader, asked, answers and worker.expects(request_id))
    if answers:
        known = worker.answered(request_id, asked) if what == "response" else worker.failed(request_id, asked)
        told = b'{"status":"OK"}' if known else b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}'
        await _reply(writer, 202 if known else 400, {}, told)
    elif (asked.method, path) == ("GET", "invocation/next"):
        await _give_next(worker, reader, writer)
    else:
        await _reply(writer, 404, {}, b"{}")


async def _give_next(worker: Answering, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Raises: Malformed when the worker is to end."""
    if not worker.may_ask:
        await _reply(writer, 403, {}, NOT_ALLOWED)
        return
    found = await worker.next(lambda: not (writer.is_closing() or reader.at_eof()))
    if found is None:
        raise Malformed
    await _reply(writer, 200, found[0], found[1])


async def _take_init_error(
    worker: Answering, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A worker that asked for an invocation has a handler, whatever it says later."""
    await take(reader, asked, keep=not worker.ready)
    if worker.ready:
        await _reply(writer, 403, {}, NOT_ALLOWED)
        return
    worker.failed_init(asked)
    await _reply(writer, 202, {}, b'{"status":"OK"}')


async def _reply(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: bytes) -> None:
    lines = [f"HTTP/1.1 {status} .", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
    await writer.drain()
