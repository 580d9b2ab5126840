"""The sockets of runs, as a process with an event loop takes them in.

A supervisor connects and hands over the listening socket that was opened inside its sandbox; while its connection lasts, what is
accepted there is served. The doorway hands single connections on to the front in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from penstock.runs import handout

log = logging.getLogger("penstock.guests")


class Served(Protocol):
    def close(self) -> None: ...


Take = Callable[[dict[str, Any], socket.socket], Awaitable[Served | None]]


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
