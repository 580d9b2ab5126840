"""Fronts send their changes to the writer of the engine process over a Unix socket, and survive its restarts.

A frame is a length, a number and a MessagePack body: the client's name first, then changes; an answer carries the
number of its change. A change whose answer was lost is sent again under the same name and number, by which the writer
knows if it is written already: nothing acknowledged is lost, and nothing is written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from penstock.store import changes
from penstock.store.records import Change, Stale, StoreFailed, Taken, Unavailable, Unmet

HEAD = struct.Struct(">IQ")
"""The bytes that follow, the number included; the number of the change."""
NUMBER_BYTES = 8
FRAME_BYTES = 64 * 1024 * 1024
"""A change may not be larger, encoded."""
PATIENCE_S = 30.0
"""How long a change waits for a writer that is away."""
AGAIN_S = (0.01, 0.02, 0.05, 0.1, 0.25)
"""Pauses between attempts to connect; the last one goes on."""
PATH_BYTES = 100
"""What a socket's address holds, with a little room."""

_change = msgspec.msgpack.Decoder(Change)
_fault = msgspec.msgpack.Decoder(tuple[str, list[str]])
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


# --- the engine's side


class Commits(Protocol):
    """What the server asks of the writer."""

    def submit_once(
        self, change: Change, change_id: str, settle: Callable[[Any, Exception | None], None], flush: Callable[[], None]
    ) -> None: ...


class WriterServer:
    """Takes changes from fronts over a Unix socket (mode 0600) and hands them to the writer; a thread a front."""

    def __init__(self, writer: Commits, path: str | Path):
        self._path, self._writer = Path(path), writer
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept, name="writer-socket", daemon=True)

    def start(self) -> None:
        """Listens; fronts that wait connect within a quarter of a second."""
        self._path.unlink(missing_ok=True)  # of an engine that was killed; the data folder's lock says it is gone
        with address(self._path) as bound:
            self._socket.bind(bound)
        self._path.chmod(0o600)
        self._socket.listen(128)
        self._thread.start()

    def close(self) -> None:
        """Drops the fronts; what they have in flight they send to the next engine."""
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._path.unlink(missing_ok=True)
        self._socket.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.drop()
            link.thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                return
            link = _Link(connected, self._writer, self._forget)
            with self._lock:
                self._links.add(link)
            link.thread.start()

    def _forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One front's connection: its thread reads changes, the writer's thread answers once a transaction."""

    def __init__(self, connected: socket.socket, writer: Commits, ended: Callable[[_Link], None]):
        self._socket, self._writer, self._ended = connected, writer, ended
        self._client = ""
        self._answers = bytearray()
        self._lock = threading.Lock()
        self._open = True
        self.thread = threading.Thread(target=self._read, name="writer-link", daemon=True)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        frames = Frames()
        try:
            while piece := self._socket.recv(262_144):
                for number, body in frames.feed(piece):
                    self._take(number, body)
        except (OSError, ValueError, msgspec.DecodeError, StoreFailed):
            pass  # the front is gone, speaks something else, or the writer is closing: the front sends again
        finally:
            with self._lock:
                self._open = False
                self._socket.close()
            self._ended(self)

    def _take(self, number: int, body: bytes) -> None:
        if not self._client:
            self._client = msgspec.msgpack.decode(body, type=str)
            return
        try:
            change = _change.decode(body)
        except msgspec.DecodeError as error:
            self._settle(number, None, StoreFailed(f"the change is malformed: {error}"))
            self.flush()
            return
        self._writer.submit_once(change, f"{self._client}:{number}", partial(self._settle, number), self.flush)

    def _settle(self, number: int, _: Any, error: Exception | None) -> None:
        answer = HEAD.pack(NUMBER_BYTES, number) if error is None else frame(number, fault(error))
        with self._lock:
            self._answers += answer

    def flush(self) -> None:
        """Sends the answers; a front that takes none is dropped, since the writer waits for nobody."""
        with self._lock:
            if not self._open or not self._answers:
                return
            try:
                sent = self._socket.send(self._answers, socket.MSG_DONTWAIT)
            except OSError:
                sent = 0
            if sent < len(self._answers):
                self.drop()
            self._answers.clear()


# --- the front's side


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
        self._transport.write(frame(0, self._client))
        for pending in self._pending.values():
            self._transport.write(pending.frame)

    def data_received(self, data: bytes) -> None:
        for number, body in self._frames.feed(data):
            if pending := self._pending.pop(number, None):
                pending.settle(outcome(body))

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
