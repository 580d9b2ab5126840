"""The porter: a process that carries the large bodies of uploads from their sockets into the blobs. No front's event loop sees their bytes.

A front lends it the client's socket until the body is there. Each body has a connection to `<data>/sockets/porter.sock` of its own:

    {"length": n, "before": m, "algorithms": [...], "patience_s": s}   and one descriptor; then the m bytes that had come already
    {"size_bytes": n, "sha256": ..., "md5": ..., "checksums": {...}}   or {"fault": "gone" | "slow" | "failed", "errno": e}

Its end from the front's side gives the body up. The porter holds nothing that lasts: while it is away, fronts take bodies in themselves.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.blobs.base import Blobs, Received, Receiver
from penstock.intake import CHUNK_BYTES, Body, Disconnected, Patience, too_slow
from penstock.runs import handout
from penstock.store.records import Unavailable

log = logging.getLogger("penstock.porter")

CARRIED_BYTES = 1 << 20
"""From this length on a body is carried: below, handing it over costs more than it saves."""
AT_ONCE = 32
"""Bodies that one front has carried at once: beyond, it takes them in itself. Slow senders cannot keep others out."""
CROWDED_BYTES = 128 * 1024
"""What is hashed and written at a time while other bodies are under way: it stays in a core's cache. A body alone goes by megabytes, so
that two cores share its digests."""
NICE = 10
"""Behind the fronts: a small call is answered before a large body goes on. Not behind everything: where jobs use every core, each
of them leaves it a sixth."""


class Gone(Exception):
    """The client, or the front, went away."""


class Slow(Exception):
    """The client sends too slowly."""


# --- the front's side
class Porter:
    """The porter as a front sees it."""

    def __init__(self, path: Path):
        self._path, self._carried = path, 0

    async def carry(self, body: Body, algorithms: tuple[str, ...]) -> Received | None:
        """Has the body carried into the blobs, where it is long and somebody is there to do it; None where not: nothing was touched.

        Raises: Disconnected; ServiceError RequestTimeout; OSError for a disk that is full; Unavailable when the porter fell.
        """
        length = body.length
        if body.incoming is None or length is None or length < CARRIED_BYTES or self._carried >= AT_ONCE:
            return None
        try:
            connection = handout.connect(self._path)
        except OSError:
            return None
        with connection:
            if (before := self._hand_over(body, length, algorithms, connection)) is None:
                return None
            self._carried += 1
            told: dict[str, Any] = {}
            try:
                told = await _converse(connection, before)
            finally:
                self._carried -= 1
                body.incoming.take_back(whole="sha256" in told)
        return _received(told)

    def _hand_over(
        self, body: Body, length: int, algorithms: tuple[str, ...], connection: socket.socket
    ) -> bytes | None:
        """Gives the client's socket away. Gives what came of the body before; None where that cannot be."""
        if body.incoming is None or (lent := body.incoming.lend()) is None:
            return None
        descriptor, before = lent
        order = {"length": length, "before": len(before), "algorithms": algorithms, "patience_s": body.patience_s}
        try:
            handout.send(connection, order, [descriptor])
        except OSError:  # it ended just now: what is here is still the front's
            return None
        finally:
            os.close(descriptor)
        return before


async def _converse(connection: socket.socket, before: bytes) -> dict[str, Any]:
    """Sends what came before, and waits for what is told."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    said = b""
    with suppress(OSError):
        await loop.sock_sendall(connection, before)
        while not said.endswith(b"\n") and (piece := await loop.sock_recv(connection, 65536)):
            said += piece
    return json.loads(said) if said.endswith(b"\n") else {}


def _received(told: dict[str, Any]) -> Received:
    match told.get("fault"):
        case "gone":
            raise Disconnected
        case "slow":
            raise too_slow()
        case "failed":
            raise OSError(told["errno"], os.strerror(told["errno"]))
    if "sha256" not in told:
        raise Unavailable("the porter ended")
    return Received(**told)


# --- the porter's side
class Carrier:
    """Carries bodies, each in a thread of its own."""

    def __init__(self, blobs: Blobs):
        self._blobs, self._under_way = blobs, 0

    def serve(self, listening: socket.socket) -> None:
        """Until the listening socket is shut down."""
        while True:
            try:
                connection, _ = listening.accept()
            except OSError as fault:
                if fault.errno == errno.EINVAL:
                    return
                raise
            threading.Thread(target=self._attend, args=(connection,), name="porter").start()

    def _attend(self, connection: socket.socket) -> None:
        """Carries one body, and tells what came of it."""
        with connection:
            message = handout.receive(connection)
            if message is None:
                return
            order, (descriptor,) = message
            self._under_way += 1
            try:
                with socket.socket(fileno=descriptor) as client:
                    told = self._carry(order, connection, client)
            finally:
                self._under_way -= 1
            with suppress(OSError):
                connection.sendall(json.dumps(told).encode() + b"\n")

    def _carry(self, order: dict[str, Any], front: socket.socket, client: socket.socket) -> dict[str, Any]:
        receiver = self._blobs.receive(tuple(order["algorithms"]))
        piece_bytes = CHUNK_BYTES if self._under_way == 1 else CROWDED_BYTES
        try:
            _take(receiver, order, front, client, piece_bytes)
            received = receiver.finish()
            return {
                "size_bytes": received.size_bytes, "sha256": received.sha256, "md5": received.md5, "checksums": received.checksums,
            }  # fmt: skip
        except Gone:
            return {"fault": "gone"}
        except Slow:
            return {"fault": "slow"}
        except OSError as fault:
            log.error("a body was not kept: %s", fault)
            return {"fault": "failed", "errno": fault.errno or errno.EIO}
        finally:
            receiver.abandon()


def _take(
    receiver: Receiver, order: dict[str, Any], front: socket.socket, client: socket.socket, piece_bytes: int
) -> None:
    """All bytes of the body into the receiver: what the front had of it, then what the client sends. Never a byte more."""
    left = order["length"]
    view = memoryview(bytearray(min(piece_bytes, left)))
    held = _before(receiver, order["before"], front, view)
    left -= order["before"]
    patience = Patience(order["patience_s"])
    waiting = select.poll()
    waiting.register(client, select.POLLIN)
    waiting.register(front, select.POLLIN)
    while left:
        try:
            came = client.recv_into(view[held:], min(len(view) - held, left))
        except BlockingIOError:
            _wait(waiting, patience, front)
            continue
        except OSError as fault:
            raise Gone from fault
        if not came:
            raise Gone
        patience.came(came, 0.0)
        held += came
        left -= came
        if held == len(view):
            receiver.write(view)
            held = 0
    if held:
        receiver.write(view[:held])


def _before(receiver: Receiver, before: int, front: socket.socket, view: memoryview) -> int:
    """What the front had of the body. Gives how many bytes of it are in the view."""
    held = 0
    while before:
        came = front.recv_into(view[held:], min(len(view) - held, before))
        if not came:
            raise Gone
        before -= came
        held += came
        if held == len(view):
            receiver.write(view)
            held = 0
    return held


def _wait(waiting: select.poll, patience: Patience, front: socket.socket) -> None:
    began = time.monotonic()
    ready = waiting.poll(max(0.0, patience.left_s()) * 1000)
    patience.came(0, time.monotonic() - began)
    if not ready:
        raise Slow
    if any(descriptor == front.fileno() for descriptor, _ in ready):
        raise Gone  # it has nothing more to say: it ended
