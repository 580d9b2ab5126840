"""A load of requests made beforehand, over some connections, by one lean client: what it costs, every server pays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop

CONNECTIONS = 8


@dataclass
class Told:
    """What came of a load."""

    rate: float
    seconds: list[float] = field(default_factory=list)
    """Of each request, in order."""

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


class Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, requests: Sequence[bytes], until: float, seconds: list[float], over: asyncio.Future[None]):
        self._requests, self._until, self._seconds, self._over = requests, until, seconds, over
        self._at = 0
        self._buffer = bytearray()
        self._wanted = -1
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._at % len(self._requests)])
        self._at += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            if not head.startswith((b"http/1.1 20", b"http/1.0 20")):
                self._end(AssertionError(bytes(self._buffer[:500])))
                return
            self._close = b"connection: close" in head or head.startswith(b"http/1.0")
            at = head.find(b"content-length:")
            self._chunked = at < 0 and b"transfer-encoding: chunked" in head
            length = 0 if at < 0 else int(head[at + 15 :].partition(b"\r")[0])
            self._wanted = end + 4 + length
        if self._chunked:
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
        elif len(self._buffer) < self._wanted:
            return
        self._seconds.append(time.perf_counter() - self._began)
        self._buffer.clear()
        self._wanted = -1
        if time.perf_counter() >= self._until or self._close:
            self._end(None)
        else:
            self._send()

    def connection_lost(self, fault: Exception | None) -> None:
        self._end(fault or (None if self.ended else ConnectionError("closed")))

    def _end(self, fault: BaseException | None) -> None:
        self.ended = True
        self._transport.close()
        if not self._over.done():
            self._over.set_exception(fault) if fault else self._over.set_result(None)


def drive(url: str, requests: Sequence[bytes], for_s: float, connections: int = CONNECTIONS) -> Told:
    """Sends the requests again and again for some seconds; each connection has its own share of them."""
    host, _, port = url.partition("//")[2].partition(":")
    seconds: list[float] = []

    async def one(which: int, until: float) -> None:
        mine = list(requests[which::connections])
        while time.perf_counter() < until:  # a server that closes after each answer is connected to again
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await asyncio.get_running_loop().create_connection(
                lambda over=over, mine=mine: Client(mine, until, seconds, over), host, int(port)
            )
            await over
            mine = mine[1:] + mine[:1]

    async def all_of_them() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one(n, began + for_s) for n in range(connections)))
        return len(seconds) / (time.perf_counter() - began)

    return Told(uvloop.run(all_of_them()), seconds)
