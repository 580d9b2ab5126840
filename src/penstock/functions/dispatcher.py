"""Which worker serves which order. All of it happens in one event loop; what touches files is done beside it.

A pool is a function's version as it is now: code and configuration. An order goes to the worker of its pool that was freed last; where none
is free another is started (`crew`), and whichever is free first takes the order that has waited longest. Workers that nobody needed for a
while are ended, so are those of a pool that another has replaced.

After a crash: an order with a key is written down when a worker gets it. The worker outlives this process, asks again, and brings
its answer to whoever answers there. So `adopt` looks for what is written down; all other workers that are left are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from penstock.functions import tails, workers
from penstock.functions.base import FAILED, PREFIX, THROTTLED, Forget, Gone, Make, Order, Outcome
from penstock.functions.concurrency import Concurrency
from penstock.functions.crew import INTERNAL, Crew
from penstock.functions.ledger import Ledger, Written
from penstock.functions.pools import Pool, Pools
from penstock.functions.tasks import Tasks
from penstock.functions.workers import Flight, Worker
from penstock.runs.base import Executor

REAP_S = 1.0


class Dispatcher:
    """Gives orders to workers.

    Takes: `folder`, for what is written down; `idle_s`, how long a worker is kept that nobody needs; `most`, how many invocations of
    an account's functions in a region may run at once; `ended`, called with the key of an order that has ended.
    """

    def __init__(
        self, runs: Executor, make: Make, forget: Forget, folder: Path, idle_s: float, most: int,
        ended: Callable[[str], None],
    ):  # fmt: skip
        self._runs, self._idle_s = runs, idle_s
        self._ledger, self._concurrency = Ledger(folder, ended), Concurrency(most)
        self._pools, self._tasks = Pools(), Tasks()
        self._crew = Crew(runs, make, forget, self._tasks, self._freed, self._set_down)

    # --- from other threads
    def look(self, key: str) -> Outcome | bool:
        return self._ledger.look(key)

    def forget(self, key: str) -> None:
        self._ledger.forget(key)

    def begin(self, order: Order) -> None:
        if self._tasks.started and self._ledger.begin(order.key):
            self._tasks.call(lambda: self._tasks.do(self._carry_out(order)))

    def heard(self, run: str) -> None:
        """A run's phase changed."""
        if run.startswith(PREFIX) and self._tasks.started:
            self._tasks.call(self._crew.notice, run, self._runs.look(run))

    # --- living
    def adopt(self) -> None:
        """Before the engine's steps: what workers have is known again."""
        self._ledger.adopt()

    def start(self) -> None:
        """In the event loop."""
        self._tasks.start()
        for run in self._runs.names():
            if run.startswith(PREFIX):
                self._find(run)
        for run in self._ledger.runs():
            if run not in self._crew:
                self._land_lost(run)
        self._tasks.do(self._reap())

    def _find(self, run: str) -> None:
        """A worker that an earlier process started: one that has an order is let go on, another is ended."""
        worker, written = self._crew.found(run), self._ledger.read(run)
        if written is None:
            self._crew.stop(worker)
            return
        worker.log, worker.memory_mb = written.log, written.memory_mb
        worker.flight = flight = Flight(written.order, self._tasks.loop.create_future(), written.until)
        flight.timer = self._tasks.loop.call_later(max(0.0, written.until - time.time()), self._time_out, worker, flight)
        self._concurrency.enter(written.order)
        self._tasks.do(self._await_adopted(worker, flight))

    async def _await_adopted(self, worker: Worker, flight: Flight) -> None:
        outcome = await flight.done
        self._concurrency.leave(flight.order)
        self._set_down(worker, flight)
        self._ledger.keep(flight.order, outcome)

    def _land_lost(self, run: str) -> None:
        if (written := self._ledger.read(run)) is not None:
            self._ledger.keep(written.order, workers.ended(written.order, None))
        self._ledger.erase(run)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_S)
            self._crew.stop_idle(self._idle_s)
            self._ledger.prune()
            self._pools.prune()

    def leave(self) -> None:
        """This process ends in good order."""
        self._crew.leave()

    def worker_of(self, run: str) -> Worker | None:
        return self._crew.worker_of(run)

    # --- orders
    async def invoke(self, order: Order) -> Outcome:
        """Waits for the outcome of an order."""
        if not self._concurrency.admits(order):
            return Outcome(refused=THROTTLED, message="Rate Exceeded.")
        self._concurrency.enter(order)
        try:
            flight = Flight(order, self._tasks.loop.create_future())
            self._place(flight)
            outcome = await flight.done
            if order.tail and flight.log:
                await tails.add_tail(flight, outcome)
            return outcome
        finally:
            self._concurrency.leave(order)

    def _place(self, flight: Flight) -> None:
        pool, replaced = self._pools.of(flight.order)
        for worker in replaced:
            self._crew.stop(worker)
        if (idle := pool.idle) is not None:
            self._hand(idle, flight)
        else:
            pool.waiting.append(flight)
            self._crew.fill(pool)

    async def _carry_out(self, order: Order) -> None:
        outcome: Outcome | None = Outcome(refused=FAILED, message=INTERNAL)
        try:
            outcome = await self.invoke(order)
        except asyncio.CancelledError:  # this process ends
            outcome = None
            raise
        finally:  # whatever goes wrong, the order is answered
            if outcome is not None:
                self._ledger.keep(order, outcome)

    def drop(self, gone: Gone) -> None:
        """Ends the workers of a function that was deleted: those that are idle now, the others when they are."""
        for pool in self._pools.drop(gone):
            for worker in pool.replace():
                self._crew.stop(worker)

    def _hand(self, worker: Worker, flight: Flight) -> bool:
        """Gives an idle worker an order; ends one that cannot be written down."""
        order = flight.order
        if order.tail:
            flight.log = worker.log
            with contextlib.suppress(OSError):
                flight.log_place = Path(worker.log).stat().st_size
        flight.until = time.time() + order.timeout_s
        try:
            if order.key:
                self._ledger.write(worker.run, Written(order, flight.until, worker.log, worker.memory_mb))
        except OSError as why:
            flight.end(Outcome(refused=FAILED, message=f"The order cannot be written down: {why.strerror}"))
            return False
        flight.timer = self._tasks.loop.call_later(order.timeout_s, self._time_out, worker, flight)
        flight.done.add_done_callback(lambda _: self._set_down(worker, flight))
        worker.hand(flight)
        return True

    def _set_down(self, worker: Worker, flight: Flight) -> None:
        """An invocation is over, whatever came of it; its worker may have the next one already."""
        if flight.timer is not None:
            flight.timer.cancel()
        if worker.flight is flight:
            if flight.order.key:
                self._ledger.erase(worker.run)
            worker.flight = None
            worker.idle_since = time.monotonic()

    # --- what workers do
    def _freed(self, worker: Worker) -> None:
        """A worker asks for its next invocation."""
        pool = self._crew.pool_of(worker)
        worker.loaded()
        if (flight := worker.flight) is not None:
            flight.end(workers.ended(flight.order, None))  # where it has not answered, it never had it
            self._set_down(worker, flight)
        if pool is None or worker.ending:
            self._crew.stop_soon(worker)
            return
        self._crew.ready(worker, pool)
        if not self._serve_next(worker, pool):
            self._crew.rest()

    def _serve_next(self, worker: Worker, pool: Pool) -> bool:
        """Hands a worker that was freed its pool's next order, or ends it; False where it is left idle."""
        if pool.waiting and self._crew.must_give_way(worker):
            self._crew.stop_soon(worker)
            return True
        while (flight := pool.next()) is not None:
            if self._hand(worker, flight):
                return True
        if pool.replaced:
            self._crew.stop_soon(worker)
        return pool.replaced

    def _time_out(self, worker: Worker, flight: Flight) -> None:
        if not flight.done.done():
            sentence = f"Task timed out after {flight.order.timeout_s:.2f} seconds"
            tails.add_lines(worker.log, workers.last_lines(flight, f"{sentence}\n", worker.memory_mb, "timeout"))
            flight.end(workers.timed_out(flight.order))
            self._crew.stop(worker)
