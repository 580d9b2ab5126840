"""A client's connection, ended when it makes others wait: one that sends its request's head, or takes its answer, too slowly.

How long a body may take is the front's to say; what comes after an answer that did not wait for it is dropped, for a while.
No connection has a timer of its own: each says until when it may stand still, and one `Watch` looks at all of them now and then.

A body that is large may be taken off the connection's socket by somebody else (`Incoming.lend`): the event loop never sees its bytes.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from math import inf

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

URL_BYTES = 65_535
"""Of an address; the parser takes no longer one."""
LAST_S = 1.0
"""What was taken in, and asked nothing yet when the server ends, may ask for so long: its request may be on the way."""
LOOK_S = 1.0
"""How often the watch looks; oftener where patience is short."""
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Watch:
    """Ends the connections that stood still too long. One timer for all: a request costs none."""

    def __init__(self, state: ServerState, loop: asyncio.AbstractEventLoop, patience_s: float):
        self._state, self._loop, self.patience_s = state, loop, patience_s
        self._every_s = min(LOOK_S, patience_s / 8)
        self._timer = loop.call_later(self._every_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.end_if_late(now)
        self._timer = self._loop.call_later(self._every_s, self._look)

    def close(self) -> None:
        self._timer.cancel()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with an end to patience: a moment by which something must come, and one by which it must be taken."""

    def __init__(self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop, patience_s: float):
        super().__init__(config, state, {}, loop)
        self._patience_s = patience_s
        self._in_head = False
        self._come_by = inf
        self._idle = False
        self._take_by = inf
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._come_by = self.loop.time() + self._patience_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._come_by = self._take_by = inf
        self.resume_writing()
        super().connection_lost(exc)

    def end_if_late(self, now: float) -> None:
        """Ends a connection whose moment is over."""
        if now >= self._take_by:
            self._take_by = inf
            self.transport.abort()
        elif now >= self._come_by:
            self._come_by = inf
            if self._in_head and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(LATE)
            self._end()

    # --- what must come
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answered = self.cycle is None or self.cycle.response_complete
        if (self._in_head or answered) and (self._idle or self._come_by == inf) and not self.transport.is_closing():
            self._idle, self._come_by = False, self.loop.time() + self._patience_s

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Cuts an address that is too long: its signature cannot hold, and the service that it names refuses it in its own form."""
        super().on_url(url[: max(0, URL_BYTES - len(self.url))])

    def on_headers_complete(self) -> None:
        self._in_head = self._idle = False
        self._come_by = inf
        super().on_headers_complete()
        self.scope["incoming"] = Incoming(self, self.cycle)  # type: ignore[typeddict-unknown-key]
        if self._last:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._idle, self._come_by = True, self.loop.time() + self.timeout_keep_alive

    # --- the server's end
    def shutdown(self) -> None:
        if self.cycle is None:
            self._last = True
            self.loop.call_later(LAST_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if self.cycle is None:
            self._end()

    # --- what must be taken
    def pause_writing(self) -> None:
        super().pause_writing()
        if self._take_by == inf:
            self._take_by = self.loop.time() + self._patience_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_by = inf

    def _end(self) -> None:
        """Closes the connection; without waiting for a client that does not take what was written."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


class Incoming:
    """What an application may know, and do, about one request beyond ASGI: its body, and an answer that is there as a whole."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle):
        self._connection, self._cycle = connection, cycle

    def is_here(self) -> bool:
        """Whether all of it has come."""
        return not self._cycle.more_body

    def lend(self) -> tuple[int, bytes] | None:
        """A descriptor of the socket, from which somebody else may read the rest, and what came of it before.

        Gives: None where all is here, or nobody sends any more. Until `take_back` nothing is read here.
        """
        cycle, transport = self._cycle, self._connection.transport
        told = transport.get_extra_info("socket")
        if told is None or not cycle.more_body or cycle.disconnected or transport.is_closing():
            return None
        cycle.flow.pause_reading()
        if cycle.waiting_for_100_continue:
            transport.write(CONTINUE)
            cycle.waiting_for_100_continue = False
        return os.dup(told.fileno()), bytes(cycle.body)

    def take_back(self, whole: bool) -> None:
        """Goes on with what comes after a body that was taken as a whole; otherwise the answer is the connection's last."""
        cycle, connection = self._cycle, self._connection
        cycle.body = bytearray()
        cycle.more_body = False
        if whole and connection.parser is not None:
            connection.parser = httptools.HttpRequestParser(connection)  # the one before still waits for the body
            with suppress(AttributeError):
                connection.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        else:
            cycle.keep_alive = False

    # --- an answer that is there
    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Writes a whole answer at once: head and body are one system call, and one packet where they are small.

        Gives: False where the client takes too slowly, or something was sent: then it goes by ASGI's messages.
        """
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.response_started:
            return False
        if cycle.disconnected:
            return True
        names, values = zip(*headers, strict=True) if headers else ((), ())
        if HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(b"".join(values)):
            raise ValueError("an answer's header holds what no header may")
        if b"connection" in names:  # it says only that the answer is the last
            cycle.keep_alive = False
        told = [STATUS_LINE[status]]
        for name, value in headers:
            told += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive and b"connection" not in names:
            told.append(b"connection: close\r\n")
        told += (b"\r\n", body)
        cycle.waiting_for_100_continue = False
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join(told))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True
