"""The engine's end of the socket: takes the changes of fronts to the writer, and the outcomes back.

A front says its name first, then sends changes, each with a number; an answer carries the number of its change. What a
front sends again after a lost answer, the writer knows by name and number.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from penstock.store.frames import HEAD, NUMBER_BYTES, TOLD, Frames, address, fault, frame
from penstock.store.records import Change, StoreFailed

_change = msgspec.msgpack.Decoder(Change)


class Commits(Protocol):
    """What the server asks of the writer."""

    def submit_once(
        self, change: Change, change_id: str, settle: Callable[[Any, Exception | None], None], flush: Callable[[], None]
    ) -> None: ...
    def hear(self, heard: Callable[[Sequence[str]], None]) -> None: ...


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
        self._writer.hear(self._tell)

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

    def _tell(self, topics: Sequence[str]) -> None:
        """Tells every front of topics; who waits for one may be at any of them."""
        told = frame(TOLD, list(topics))
        with self._lock:
            links = list(self._links)
        for link in links:
            link.tell(told)

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

    def tell(self, told: bytearray) -> None:
        with self._lock:
            self._answers += told
        self.flush()

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
