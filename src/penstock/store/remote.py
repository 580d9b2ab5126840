"""The writer as fronts have it: changes go over a Unix socket to the engine process, and survive its restarts.

A change whose answer was lost is sent again under the same name and number, by which the writer knows if it is written
already: nothing acknowledged is lost, and nothing is written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import cast

from penstock.store import changes
from penstock.store.frames import TOLD, Frames, address, frame, outcome, topics
from penstock.store.listener import WriterServer
from penstock.store.records import Change, Unavailable

__all__ = ["RemoteWriter", "WriterServer"]
"""Both ends of the socket."""

PATIENCE_S = 30.0
"""How long a change waits for a writer that is away."""
AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.25)
"""Pauses between attempts to connect; the last one goes on."""


class _Pending:
    """A change on its way: its frame, to be sent again, and whom to tell."""

    __slots__ = ("deadline", "frame", "settle")

    def __init__(self, sent: bytearray, settle: Callable[[Exception | None], None], deadline: float):
        self.frame, self.settle, self.deadline = sent, settle, deadline


class RemoteWriter(asyncio.Protocol):
    """The writer as a front sees it. It lives in the event loop that first calls `attach` or `commit_async`; a program
    without one gets a thread for it at its first `submit`.

    Safe to call from any thread. While the engine is away, changes wait for up to `patience_s`.
    """

    def __init__(self, path: str | Path, patience_s: float = PATIENCE_S):
        self._path, self._patience_s = path, patience_s
        self._client = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._transport: asyncio.WriteTransport | None = None
        self._frames = Frames()
        self._closed = False
        self._connecting: asyncio.Task[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._hearers: list[Callable[[Sequence[str]], None]] = []

    # --- living
    def attach(self) -> None:
        """Connects, in the running event loop from now on (unless it lives somewhere already)."""
        self._home(asyncio.get_running_loop())

    def _home(self, offered: asyncio.AbstractEventLoop | None = None) -> asyncio.AbstractEventLoop:
        """The loop it lives in: the one it has, else the one offered, else one in a thread of its own."""
        with self._lock:
            if self._closed:
                raise Unavailable("the store is closed")
            if self._loop is None:
                self._loop = offered or asyncio.new_event_loop()
                if offered is None:
                    self._thread = threading.Thread(target=self._live, name="remote-writer", daemon=True)
                    self._thread.start()
                self._loop.call_soon_threadsafe(self._connect)
            return self._loop

    # --- asking
    def submit(self, change: Change) -> Future[None]:
        """Commits the change durably; see Store.submit."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        number, pending = self._prepared(change, future)
        self._home().call_soon_threadsafe(self._send, number, pending)
        return future

    def commit(self, change: Change) -> None:
        """`submit(change).result()`; never from the writer's own event loop, which it would stop."""
        self.submit(change).result()

    def commit_async(self, change: Change) -> Awaitable[None]:
        """The same, awaited; from the writer's own event loop it goes straight to the socket."""
        running = asyncio.get_running_loop()
        if self._home(running) is not running:
            return asyncio.wrap_future(self.submit(change))
        future: asyncio.Future[None] = running.create_future()
        self._send(*self._prepared(change, future))
        return future

    def hear(self, heard: Callable[[Sequence[str]], None]) -> None:
        """`heard` is called in the writer's event loop with the topics that the engine tells of; "" for any of them, after a
        break in which it may have told of some."""
        self._hearers.append(heard)

    def close(self) -> None:
        """Lets go of the connection; what waits fails as Unavailable."""
        with self._lock:
            self._closed = True
            loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._end)
            if self._thread:
                self._thread.join()

    def _prepared(self, change: Change, future: Future[None] | asyncio.Future[None]) -> tuple[int, _Pending]:
        number = next(self._numbers)

        def settle(error: Exception | None) -> None:
            if error is None:
                changes.count_up(change)
            if future.done():  # an awaiting task was cancelled
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        return number, _Pending(frame(number, change), settle, time.monotonic() + self._patience_s)

    # --- in the event loop
    def _live(self) -> None:
        loop = self._here
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    @property
    def _here(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def _send(self, number: int, pending: _Pending) -> None:
        if self._closed:
            pending.settle(Unavailable("the store is closed"))
            return
        self._pending[number] = pending
        if self._transport and not self._transport.is_closing():  # else it is sent once connected again
            self._transport.write(pending.frame)
        if not self._sweeping:
            self._sweeping = self._here.call_later(min(1.0, self._patience_s / 4), self._sweep)

    def _connect(self) -> None:
        if not self._closed:
            self._connecting = self._here.create_task(self._attempts())

    async def _attempts(self) -> None:
        for pause_s in itertools.chain(AGAIN_S, itertools.repeat(AGAIN_S[-1])):
            with contextlib.suppress(OSError), address(self._path) as known:
                await self._here.create_unix_connection(lambda: self, known)
                return
            await asyncio.sleep(pause_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._frames, self._transport = Frames(), cast(asyncio.WriteTransport, transport)
        self._transport.write(frame(TOLD, self._client))
        for pending in self._pending.values():
            self._transport.write(pending.frame)
        self._tell(("",))

    def data_received(self, data: bytes) -> None:
        for number, body in self._frames.feed(data):
            if number == TOLD:
                self._tell(topics(body))
            elif pending := self._pending.pop(number, None):
                pending.settle(outcome(body))

    def _tell(self, told: Sequence[str]) -> None:
        for heard in self._hearers:
            heard(told)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connect()

    def _sweep(self) -> None:
        """Gives up on changes that waited too long."""
        now = time.monotonic()
        for number in [number for number, pending in self._pending.items() if pending.deadline <= now]:
            self._pending.pop(number).settle(Unavailable(f"the engine did not answer within {self._patience_s:g} s"))
        self._sweeping = None
        if self._pending:
            self._sweeping = self._here.call_later(min(1.0, self._patience_s / 4), self._sweep)

    def _end(self) -> None:
        if self._connecting:
            self._connecting.cancel()
        if self._sweeping:
            self._sweeping.cancel()
        if self._transport:
            self._transport.abort()
        for pending in self._pending.values():
            pending.settle(Unavailable("the store is closed"))
        self._pending.clear()
        if self._thread:
            self._here.call_soon(self._here.call_soon, self._here.stop)  # after the cancelled task has ended
