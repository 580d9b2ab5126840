"""Requests that wait for something to come: a message in a queue. Nobody looks again before there is a reason to.

A change names its topics (`Change.tells`); once it is durable, the writer tells every front of them. An operation that finds
nothing raises `Waiting`: its front puts it down here, without a pause between its look and that, so that nothing is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.kernel.call import Waiting
from penstock.kernel.clock import Clock

EVERY = ""
"""The topic of somebody who cannot know what was told of meanwhile."""


class Waits:
    """Those who wait in one event loop."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self.waiting: dict[str, set[asyncio.Future[None]]] = {}
        """Who waits, by topic."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.over = False
        """Whether the server ends: nobody waits any more."""

    def tell(self, topics: Sequence[str]) -> None:
        """Has those look again who wait for one of the topics. From any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell, tuple(topics))

    def end(self) -> None:
        """Has everybody look for the last time, in the event loop."""
        self.over = True
        self._tell((EVERY,))

    def attend(self) -> None:
        """Lives in the running event loop from now on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    async def wait(self, waiting: Waiting, gone: asyncio.Future[None] | None) -> bool:
        """Waits until there is a reason to look again, or until whoever waits has `gone`: then False."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(waiting.topic, set()).add(told)
        pause_s = max(0.0, waiting.due - self._clock.now()) if not self.over else 0.0
        try:
            await asyncio.wait({told, *([gone] if gone else [])}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = self.waiting.get(waiting.topic, set())
            left.discard(told)
            if not left:
                self.waiting.pop(waiting.topic, None)
        return gone is None or not gone.done()

    def _tell(self, topics: Sequence[str]) -> None:
        named = list(self.waiting) if EVERY in topics else topics
        for topic in named:
            for told in self.waiting.pop(topic, ()):
                if not told.done():
                    told.set_result(None)
