"""Turns at documents that several requests want to write at once.

A request whose change turned out stale waits for its turn at that document, reads again, and writes while the others wait: the one
that is slow would lose against quicker ones for ever. Those that come new see that there are turns before they write.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from penstock.store.records import Change, Ref

NARROW_S = 1.0
"""How long a lane stays narrow after somebody called who does not go through it."""


class Turns:
    """The turns of one event loop. A document without waiters has none, and costs a look into an empty dict."""

    def __init__(self) -> None:
        self._locks: dict[Ref, tuple[asyncio.Lock, int]] = {}

    def contended(self, change: Change) -> Ref | None:
        """A document at which there are turns, and that the change writes: who only reads it would make the queue endless."""
        if not self._locks:
            return None
        return next((each.ref for each in (*change.puts, *change.deletes) if each.ref in self._locks), None)

    async def take(self, ref: Ref) -> Turn:
        """Waits for a turn; first come, first served."""
        lock, count = self._locks.get(ref) or (asyncio.Lock(), 0)
        self._locks[ref] = lock, count + 1
        try:
            await lock.acquire()
        except asyncio.CancelledError:  # the client went away while it waited
            self._leave(ref)
            raise
        return Turn(self, ref, lock)

    def _leave(self, ref: Ref) -> None:
        lock, count = self._locks[ref]
        if count == 1:
            del self._locks[ref]
        else:
            self._locks[ref] = lock, count - 1


class Turn:
    """Somebody's turn at a document, until it is given back."""

    def __init__(self, turns: Turns, ref: Ref, lock: asyncio.Lock):
        self.ref, self._turns, self._lock = ref, turns, lock

    def give_back(self) -> None:
        self._lock.release()
        self._turns._leave(self.ref)


class Hand:
    """What somebody holds: one turn at the most, since nobody waits at one document with another held."""

    def __init__(self, turns: Turns):
        self._turns = turns
        self._turn: Turn | None = None

    def __bool__(self) -> bool:
        return self._turn is not None

    async def take(self, ref: Ref) -> None:
        """Waits for a turn at the document, unless that one is held."""
        if self._turn is None or self._turn.ref != ref:
            self.give_back()
            self._turn = await self._turns.take(ref)

    def give_back(self) -> None:
        if self._turn is not None:
            self._turn.give_back()
            self._turn = None


class Lane:
    """A way for requests that come in crowds. While others call, too, it is narrow: one of the crowd begins at each turn of the event loop.

    Between two of them the loop looks at its sockets, and whoever goes not through here is served: a small call beside a crowd waits
    for the request under way, not for all that came before it. A crowd among itself need not keep to it, and does not pay for it.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False
        self._narrow_until = 0.0

    def make_way(self) -> None:
        """Makes it narrow for a while: somebody calls who is none of the crowd."""
        self._narrow_until = time.monotonic() + NARROW_S

    async def turn(self) -> None:
        """Waits until it is one's turn; first come, first served."""
        if not self._waiting and time.monotonic() > self._narrow_until:
            return
        loop = asyncio.get_running_loop()
        if self._taken:
            self._waiting.append(future := loop.create_future())
            await future
        else:
            self._taken = True
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # its client may have gone away
                future.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._taken = False
