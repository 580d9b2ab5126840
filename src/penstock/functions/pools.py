"""Pools: the workers of each function's version as it is now, and the orders that wait for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.functions.base import Gone, Order
from penstock.functions.workers import Flight, Worker

Key = tuple[str, str, str, str]


@dataclass(slots=True, eq=False)
class Pool:
    """The workers of a function's version as it is now, and the orders that wait for one."""

    stamp: str
    workers: list[Worker] = field(default_factory=list)
    """Those that asked for work last stand at the end."""
    waiting: deque[Flight] = field(default_factory=deque)
    starting: int = 0
    replaced: bool = False

    @property
    def idle(self) -> Worker | None:
        """The worker that was freed last, of those that have nothing to do."""
        return next((worker for worker in reversed(self.workers) if worker.idle), None)

    @property
    def waits_since(self) -> float | None:
        """When the order came that has waited longest, of those that somebody still waits for."""
        return next((flight.asked for flight in self.waiting if not flight.done.done()), None)

    def next(self) -> Flight | None:
        """The order that has waited longest, of those that somebody still waits for; it is taken out."""
        while self.waiting:
            flight = self.waiting.popleft()
            if not flight.done.done():
                return flight
        return None

    def replace(self) -> list[Worker]:
        """Gives the workers that end with it now; the others do when they are idle."""
        self.replaced = True
        return [worker for worker in self.workers if worker.idle]


class Pools:
    """The pools by account, region, function and version."""

    def __init__(self) -> None:
        self._pools: dict[Key, Pool] = {}

    def of(self, order: Order) -> tuple[Pool, list[Worker]]:
        """The pool of an order, and the idle workers of one that it takes the place of: one of other code or configuration."""
        key = order.account, order.region, order.function, order.version
        pool, ending = self._pools.get(key), list[Worker]()
        if pool is None or pool.stamp != order.stamp:
            ending = pool.replace() if pool is not None else []
            pool = self._pools[key] = Pool(order.stamp)
        return pool, ending

    def drop(self, gone: Gone) -> Iterator[Pool]:
        """Takes out, and gives, the pools of a function that was deleted, or of its version."""
        for key in list(self._pools):
            if key[:3] == (gone.account, gone.region, gone.function) and gone.version in ("", key[3]):
                yield self._pools.pop(key)

    def prune(self) -> None:
        """Forgets those that have nothing."""
        for key in [key for key, pool in self._pools.items() if not (pool.workers or pool.waiting or pool.starting)]:
            del self._pools[key]
