"""Connections when the server ends: what was taken in is answered, what waits for nothing is let go."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from penstock.connections import Connection

ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def converse(story: Any) -> Any:
    """Runs a story with a client's two ends and the state of a server that it may end."""

    async def tell() -> Any:
        loop, state = asyncio.get_running_loop(), ServerState()
        config = Config(answer, http="httptools", lifespan="off", log_config=None)
        config.load()
        server = await loop.create_server(lambda: Connection(config, state, loop, 60), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not state.connections:
            await asyncio.sleep(0)

        def end() -> None:
            server.close()
            for connection in list(state.connections):
                connection.shutdown()

        try:
            return await asyncio.wait_for(story(reader, writer, end), 60)
        finally:
            writer.close()

    return asyncio.run(tell())


def test_a_request_on_its_way_when_the_server_ends_is_answered_and_the_connection_closed() -> None:
    async def story(reader: Any, writer: Any, end: Any) -> bytes:
        end()
        writer.write(ASK)
        return bytes(await reader.read())

    answered = converse(story)
    assert b" 200 " in answered
    assert b"connection: close" in answered.lower()


def test_a_connection_that_asks_nothing_is_closed_when_the_server_ends() -> None:
    async def story(reader: Any, writer: Any, end: Any) -> bytes:
        end()
        return bytes(await reader.read())

    assert converse(story) == b""


def test_a_connection_between_two_requests_is_closed_at_once_when_the_server_ends() -> None:
    async def story(reader: Any, writer: Any, end: Any) -> bytes:
        writer.write(ASK)
        first = await reader.readuntil(b"ok")
        end()
        return first + await reader.read()

    assert converse(story).endswith(b"ok")
