"""The dispatcher's thread in the engine process, and the two sockets it answers.

    <data>/sockets/functions.sock   supervisors hand over the sockets on which workers ask the Runtime API
    <data>/sockets/invoke.sock      fronts ask for invocations: a length, an Order (or Gone); a length, an Outcome
"""

from __future__ import annotations

import asyncio
import struct
import threading
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

import msgspec
import uvloop

from penstock import guests
from penstock.functions import runtime
from penstock.functions.base import Gone, Order, Outcome
from penstock.functions.dispatcher import Dispatcher
from penstock.runs import handout

LENGTH = struct.Struct("!I")
MOST_BYTES = 64 << 20
END_S = 1.0
CONNECTIONS = 2
"""A worker may hold so many: its program has one, and may make another before the first one's end is noticed."""


class Desk:
    """Implements `base.Functions` in the process that has the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, sockets: Path):
        self._dispatcher, self._sockets = dispatcher, sockets
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="functions", daemon=True)

    def start(self) -> None:
        """Returns when orders are taken."""
        self._dispatcher.adopt()
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Workers go on that have an order which whoever answers next finds; the others end."""
        self._loop.call_soon_threadsafe(self._dispatcher.leave)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def invoke(self, order: Order) -> Outcome:
        waiting = asyncio.run_coroutine_threadsafe(self._dispatcher.invoke(order), self._loop)
        return await asyncio.wrap_future(waiting)

    def begin(self, order: Order) -> None:
        self._dispatcher.begin(order)

    def look(self, key: str) -> Outcome | bool:
        return self._dispatcher.look(key)

    def forget(self, key: str) -> None:
        self._dispatcher.forget(key)

    async def drop(self, gone: Gone) -> None:
        self._loop.call_soon_threadsafe(self._dispatcher.drop, gone)

    # --- the thread
    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()
        self._asked.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=END_S))
        self._loop.close()

    async def _open(self) -> None:
        self._dispatcher.start()
        self._serving = self._loop.create_task(guests.serve(self._sockets / "functions.sock", self._take))
        self._asked = await asyncio.start_unix_server(self._answer, sock=handout.listen(self._sockets / "invoke.sock"))

    async def _take(self, info: dict[str, Any], guest: socket) -> guests.Served | None:
        run = str(info["run"])

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            worker = self._dispatcher.worker_of(run)
            if worker is None or len(worker.connections) >= CONNECTIONS:
                writer.close()
                return
            worker.connections.add(writer)
            with suppress(asyncio.CancelledError):  # asyncio takes it for a fault of the server's
                try:
                    await runtime.serve(worker, reader, writer)
                finally:
                    worker.connections.discard(writer)

        return await asyncio.start_server(connected, sock=guest, limit=runtime.HEAD_BYTES)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = msgspec.msgpack.decode(await read_message(reader), type=Order | Gone)
                if isinstance(asked, Order):
                    outcome = await self._dispatcher.invoke(asked)
                else:
                    self._dispatcher.drop(asked)
                    outcome = Outcome()
                writer.write(message(outcome))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:  # whatever fails here, the front does not wait for it
            writer.close()


def message(record: Order | Gone | Outcome) -> bytes:
    data = msgspec.msgpack.encode(record)
    return LENGTH.pack(len(data)) + data


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """Raises: asyncio.IncompleteReadError at the connection's end."""
    (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if size > MOST_BYTES:
        raise asyncio.IncompleteReadError(b"", size)
    return await reader.readexactly(size)
