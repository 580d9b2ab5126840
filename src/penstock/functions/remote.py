"""The way from a front to the dispatcher: a connection an invocation, kept for the next one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from penstock.functions.base import FAILED, Gone, Order, Outcome
from penstock.functions.desk import message, read_message
from penstock.runs import handout

KEPT = 32
"""Connections that are kept while nobody needs them."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RemoteFunctions:
    """Implements `base.Functions` for a front."""

    def __init__(self, path: Path):
        self._path = path
        self._kept: list[Connection] = []

    async def invoke(self, order: Order) -> Outcome:
        return await self._ask(order)

    async def drop(self, gone: Gone) -> None:
        await self._ask(gone)

    async def _ask(self, what: Order | Gone) -> Outcome:
        try:
            reader, writer = await self._connect()
            writer.write(message(what))
            outcome = msgspec.msgpack.decode(await read_message(reader), type=Outcome)
        except (OSError, asyncio.IncompleteReadError):
            return Outcome(refused=FAILED, message="The functions' dispatcher is not there; try again.")
        if len(self._kept) < KEPT:
            self._kept.append((reader, writer))
        else:
            writer.close()
        return outcome

    def begin(self, order: Order) -> None:
        raise NotImplementedError("an order with a key is the engine's")

    def look(self, key: str) -> Outcome | bool:
        raise NotImplementedError("an order with a key is the engine's")

    def forget(self, key: str) -> None:
        raise NotImplementedError("an order with a key is the engine's")

    async def _connect(self) -> Connection:
        while self._kept:
            reader, writer = self._kept.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_unix_connection(sock=handout.connect(self._path))
