"""A client's connection, ended when it makes others wait: one that sends its request's head, or takes its answer, too slowly.

How long a body may take is the front's to say; what comes after an answer that did not wait for it is dropped, for a while.
"""

from __future__ import annotations

import asyncio

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

LAST_S = 1.0
"""What was taken in, and asked nothing yet when the server ends, may ask for so long: its request may be on the way."""
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with an end to patience: a timer for what must come, and one for what must be taken."""

    def __init__(self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop, patience_s: float):
        super().__init__(config, state, {}, loop)
        self._patience_s = patience_s
        self._in_head = False
        self._coming: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._coming = self.loop.call_later(self._patience_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    # --- what must come
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answered = self.cycle is None or self.cycle.response_complete
        if (self._in_head or answered) and self._coming is None and not self.transport.is_closing():
            self._coming = self.loop.call_later(self._patience_s, self._late)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        super().on_headers_complete()
        if self._last:
            self.cycle.keep_alive = False

    def _disarm(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None

    def _late(self) -> None:
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(LATE)
        self._end()

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
        if self._taking is None:
            self._taking = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def timeout_keep_alive_handler(self) -> None:
        self._end()

    def _end(self) -> None:
        """Closes the connection; without waiting for a client that does not take what was written."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
