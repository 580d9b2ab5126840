"""The sockets of runs, as a process with an event loop takes them in.

A supervisor connects and hands over the listening socket that was opened inside its sandbox; while its connection lasts, what is
accepted there is served. The doorway hands single connections on to the front in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from uvicorn import Config
from uvicorn.server import ServerState

from penstock.connections import Connection
from penstock.runs import handout

CONNECTIONS = 512
"""A run may hold so many at once, to the front and to the doorway each: what it opens beyond is closed at once."""

log = logging.getLogger("penstock.guests")


class Served(Protocol):
    def close(self) -> None: ...


Take = Callable[[dict[str, Any], socket.socket], Awaitable[Served | None]]


class Guest(Connection):
    """A connection of a run. One that opens connections without end takes away none of the others'."""

    def __init__(
        self,
        held: set[asyncio.Protocol],
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
    ):
        super().__init__(config, state, loop, patience_s)
        self._held = held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._held) >= CONNECTIONS:
            transport.abort()  # type: ignore[attr-defined]
            return
        self._held.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._held:
            self._held.discard(self)
            super().connection_lost(exc)


def raise_open_files() -> None:
    """Lets this process hold as many connections as it ever may: the usual soft limit is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def serve(path: Path, take: Take) -> None:
    """Listens at `path` until cancelled; `take` serves each socket that is handed over, and gives what closes it."""
    loop = asyncio.get_running_loop()
    listening = handout.listen(path)
    listening.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            connection, _ = await loop.sock_accept(listening)
            task = loop.create_task(_attend(connection, take))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        listening.close()
        for task in tasks:
            task.cancel()


async def _attend(connection: socket.socket, take: Take) -> None:
    connection.setblocking(False)
    served: list[Served] = []
    try:
        while True:
            await _readable(connection)
            try:
                message = handout.receive(connection)
            except BlockingIOError:
                continue
            if message is None:
                return
            info, descriptors = message
            for descriptor in descriptors:
                guest = socket.socket(fileno=descriptor)
                guest.setblocking(False)
                if (closing := await take(info, guest)) is not None:
                    served.append(closing)
    except (OSError, ValueError) as fault:
        log.warning("a run's socket was not taken in: %r", fault)
    finally:
        for each in served:
            each.close()
        connection.close()


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(connection.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())


def give(path: Path, info: dict[str, Any], guest: socket.socket) -> None:
    """Hands one socket over to whoever listens at `path`. Raises: OSError."""
    with handout.connect(path) as connection:
        handout.send(connection, info, [guest.fileno()])
