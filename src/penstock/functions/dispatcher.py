"""Which worker serves which order. All of it happens in one event loop; what touches files is done beside it.

A pool is a function's version as it is now: code and configuration. An order goes to the worker of its pool that was freed last; where none
is free another is started, and whichever is free first takes the order that has waited longest. Workers that nobody needed for a
while are ended, so are those of a pool that another has replaced.

After a crash: an order with a key is written down when a worker gets it. The worker outlives this process, asks again, and brings
its answer to whoever answers there. So `adopt` looks for what is written down; all other workers that are left are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.functions import room, tails, workers
from penstock.functions.base import FAILED, PREFIX, THROTTLED, Forget, Gone, Make, Order, Outcome, Refusal
from penstock.functions.concurrency import Concurrency
from penstock.functions.ledger import Ledger, Written
from penstock.functions.workers import Flight, Worker
from penstock.runs.base import ENDED, LOST, RUNNING, WAITING, Executor, RunSpec, RunState

log = logging.getLogger("penstock.functions")

INIT_S = 10.0
"""What loading a function may take before its time-out counts, too."""
ENVIRONMENT_S, ENVIRONMENT_LOOK_S = 600.0, 0.05
REAP_S = 1.0
INTERNAL = "We encountered an internal error. Please try again."

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


class Dispatcher:
    """Gives orders to workers.

    Takes: `folder`, for what is written down; `idle_s`, how long a worker is kept that nobody needs; `most`, how many invocations of
    an account's functions in a region may run at once; `ended`, called with the key of an order that has ended.
    """

    def __init__(
        self, runs: Executor, make: Make, forget: Forget, folder: Path, idle_s: float, most: int,
        ended: Callable[[str], None],
    ):  # fmt: skip
        self._runs, self._make, self._forget, self._idle_s = runs, make, forget, idle_s
        self._ledger, self._concurrency = Ledger(folder, ended), Concurrency(most)
        self._pools: dict[Key, Pool] = {}
        self._workers: dict[str, Worker] = {}
        self._pool_of: dict[str, Pool] = {}
        self._lacking: set[Worker] = set()
        """Those whose runs wait for capacity."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- from other threads
    def look(self, key: str) -> Outcome | bool:
        return self._ledger.look(key)

    def forget(self, key: str) -> None:
        self._ledger.forget(key)

    def begin(self, order: Order) -> None:
        if self._loop is not None and self._ledger.begin(order.key):
            self._loop.call_soon_threadsafe(self._do, self._carry_out(order))

    def heard(self, run: str) -> None:
        """A run's phase changed."""
        if run.startswith(PREFIX) and self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it is closing
                self._loop.call_soon_threadsafe(self._notice, run, self._runs.look(run))

    # --- living
    def adopt(self) -> None:
        """Before the engine's steps: what workers have is known again."""
        self._ledger.adopt()

    def start(self) -> None:
        """In the event loop."""
        self._loop = asyncio.get_running_loop()
        for run in self._runs.names():
            if run.startswith(PREFIX):
                self._find(run)
        for run in self._ledger.runs():
            if run not in self._workers:
                self._land_lost(run)
        self._do(self._reap())

    def _find(self, run: str) -> None:
        """A worker that an earlier process started: one that has an order is let go on, another is ended."""
        worker = self._workers[run] = Worker(run, self._freed, self._broken, ready=True)
        written = self._ledger.read(run)
        if written is None:
            self._stop(worker)
        else:
            worker.log, worker.memory_mb = written.log, written.memory_mb
            worker.flight = flight = Flight(written.order, self._here().create_future(), written.until)
            worker.timer = self._here().call_later(max(0.0, written.until - time.time()), self._time_out, worker, flight)
            self._concurrency.enter(written.order)
            self._do(self._await_adopted(worker, flight))
        self._do(self._look_again(run))

    async def _await_adopted(self, worker: Worker, flight: Flight) -> None:
        outcome = await flight.done
        self._concurrency.leave(flight.order)
        self._set_down(worker)
        self._ledger.keep(flight.order, outcome)

    async def _look_again(self, run: str) -> None:
        self._notice(run, await asyncio.to_thread(self._runs.look, run))

    def _land_lost(self, run: str) -> None:
        if (written := self._ledger.read(run)) is not None:
            self._ledger.keep(written.order, workers.ended(written.order, None))
        self._ledger.erase(run)

    # --- orders
    async def invoke(self, order: Order) -> Outcome:
        """Waits for the outcome of an order."""
        if not self._concurrency.admits(order):
            return Outcome(refused=THROTTLED, message="Rate Exceeded.")
        self._concurrency.enter(order)
        try:
            pool = self._pool(order)
            flight = Flight(order, self._here().create_future())
            idle = next((worker for worker in reversed(pool.workers) if worker.idle), None)
            if idle is not None:
                self._hand(idle, flight)
            else:
                pool.waiting.append(flight)
                self._fill(pool)
            outcome = await flight.done
            if order.tail and flight.log:
                await tails.add_tail(flight, outcome)
            return outcome
        finally:
            self._concurrency.leave(order)

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

    def _pool(self, order: Order) -> Pool:
        """The pool of an order; another one of the same version is replaced."""
        key = order.account, order.region, order.function, order.version
        pool = self._pools.get(key)
        if pool is None or pool.stamp != order.stamp:
            if pool is not None:
                self._replace(pool)
            pool = self._pools[key] = Pool(order.stamp)
        return pool

    def _replace(self, pool: Pool) -> None:
        pool.replaced = True
        for worker in [each for each in pool.workers if each.idle]:
            self._stop(worker)

    def drop(self, gone: Gone) -> None:
        """Ends the workers of a function that was deleted: those that are idle now, the others when they are."""
        for key in list(self._pools):
            if key[:3] == (gone.account, gone.region, gone.function) and gone.version in ("", key[3]):
                self._replace(self._pools.pop(key))

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
        worker.timer = self._here().call_later(order.timeout_s, self._time_out, worker, flight)
        flight.done.add_done_callback(lambda _: self._set_down(worker))
        worker.hand(flight)
        return True

    def _set_down(self, worker: Worker) -> None:
        """Its invocation is over, whatever came of it."""
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        if worker.flight is not None and worker.flight.done.done():
            if worker.flight.order.key:
                self._ledger.erase(worker.run)
            worker.flight = None
            worker.idle_since = time.monotonic()

    # --- what workers do
    def _freed(self, worker: Worker) -> None:
        """A worker asks for its next invocation."""
        pool = self._pool_of.get(worker.run)
        if worker.flight is not None and not worker.flight.done.done():  # it never had it, or has nothing to say of it
            worker.flight.end(workers.ended(worker.flight.order, None))
        self._set_down(worker)
        if pool is None or worker.ending:
            self._here().call_soon(self._stop, worker)
            return
        if worker not in pool.workers:
            pool.starting -= 1
        else:
            pool.workers.remove(worker)
        pool.workers.append(worker)
        worker.idle_since = time.monotonic()
        while pool.waiting:
            flight = pool.waiting.popleft()
            if not flight.done.done() and self._hand(worker, flight):
                return
        if pool.replaced:
            self._here().call_soon(self._stop, worker)
        elif self._lacking:
            self._do(self._make_room())

    def _broken(self, worker: Worker, outcome: Outcome) -> None:
        """A worker has no handler: the order that has waited longest is told why."""
        pool = self._pool_of.pop(worker.run, None)
        if pool is None or worker in pool.workers:
            return
        self._tell_unbegun(worker, pool, lambda _: outcome, tails.INIT_END)

    def _tell_unbegun(self, worker: Worker, pool: Pool, outcome_of: Callable[[Order], Outcome], last: bytes = b"") -> None:
        """A worker never came to ask: the order that has waited longest is told why.

        Takes: `last`, with which the worker's own lines end, where they are still on their way to the log.
        """
        pool.starting -= 1
        if pool.waiting:
            flight = pool.waiting.popleft()
            self._do(self._end_unbegun(worker, flight, outcome_of(flight.order), last))

    async def _end_unbegun(self, worker: Worker, flight: Flight, outcome: Outcome, last: bytes) -> None:
        if not outcome.refused:
            spent_ms = (time.monotonic() - worker.began) * 1000
            await tails.read_until(worker.log, 0, "", last)
            tails.add_lines(worker.log, workers.unbegun_lines(flight.order, outcome, spent_ms, worker.memory_mb))
            if flight.order.tail:
                outcome.log = tails.end_of(worker.log, 0, "")
        flight.end(outcome)

    def _time_out(self, worker: Worker, flight: Flight) -> None:
        if not flight.done.done():
            sentence = f"Task timed out after {flight.order.timeout_s:.2f} seconds"
            tails.add_lines(worker.log, workers.last_lines(flight, f"{sentence}\n", worker.memory_mb, "timeout"))
            flight.end(workers.timed_out(flight.order))
            self._stop(worker)

    # --- starting and ending
    def _fill(self, pool: Pool) -> None:
        for flight in list(pool.waiting)[pool.starting :]:
            pool.starting += 1
            self._do(self._start(pool, flight.order))

    async def _start(self, pool: Pool, order: Order) -> None:
        """Starts a worker for an order (which may be served by another that is freed meanwhile)."""
        version = order.version.lstrip("$")
        run = f"{PREFIX}{order.account}.{order.region}.{order.function}.{version}.{secrets.token_hex(6)}"
        cannot: Outcome | None = Outcome(refused=FAILED, message=INTERNAL)
        try:
            spec = await self._specify(order, run)
            worker = Worker(run, self._freed, self._broken)
            worker.log, worker.memory_mb = spec.instances[0].log, spec.env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            worker.memory_bytes = spec.memory_bytes
            self._workers[run], self._pool_of[run] = worker, pool
            state = await asyncio.to_thread(self._runs.start, spec)
            cannot = None
        except Refusal as why:
            cannot = Outcome(refused=why.code, message=why.message)
        except OSError as why:
            cannot = Outcome(refused=FAILED, message=f"The function cannot be started: {why.strerror}")
        except asyncio.CancelledError:  # this process ends
            cannot = None
            raise
        finally:  # whatever goes wrong, nobody waits for a worker that does not come
            if cannot is not None:
                self._cannot(pool, run, cannot)
        if cannot is None and state.phase == WAITING:
            worker.waiting = True
            self._lacking.add(worker)
            await self._make_room()

    async def _specify(self, order: Order, run: str) -> RunSpec:
        """Raises: Refusal."""
        until = time.monotonic() + ENVIRONMENT_S
        while (spec := await asyncio.to_thread(self._make, order, run)) is None:
            if time.monotonic() > until:
                raise Refusal(FAILED, "The environment of the function's runtime is not ready.")
            await asyncio.sleep(ENVIRONMENT_LOOK_S)
        return spec

    def _cannot(self, pool: Pool, run: str, outcome: Outcome) -> None:
        self._workers.pop(run, None)
        self._pool_of.pop(run, None)
        pool.starting -= 1
        if pool.waiting:
            pool.waiting.popleft().end(outcome)
        self._do(asyncio.to_thread(self._forget, run))

    async def _make_room(self) -> None:
        """Ends idle workers for those whose runs wait for capacity, as long as an order waits for these."""
        looked = list(self._lacking)
        states = await asyncio.to_thread(lambda: [self._runs.look(worker.run) for worker in looked])
        for worker, state in zip(looked, states, strict=True):
            if state is None or state.phase != WAITING:
                worker.waiting = False
                self._lacking.discard(worker)
        wanted = [each for each in self._lacking if (pool := self._pool_of.get(each.run)) is not None and pool.waiting]
        for worker in room.to_end(self._workers.values(), wanted):
            self._stop(worker)

    def _stop(self, worker: Worker) -> None:
        worker.let_go()
        pool = self._pool_of.get(worker.run)
        if pool is not None and worker in pool.workers:
            pool.workers.remove(worker)
            del self._pool_of[worker.run]
            self._fill(pool)
        self._do(self._end_run(worker.run))

    async def _end_run(self, run: str) -> None:
        await asyncio.to_thread(self._runs.stop, run)

    def _notice(self, run: str, state: RunState | None) -> None:
        worker = self._workers.get(run)
        if worker is not None and state is not None and state.phase == RUNNING and not worker.ready and worker.timer is None:
            pool = self._pool_of.get(run)
            worker.began = time.monotonic()
            longest = max((flight.order.timeout_s for flight in pool.waiting), default=0.0) if pool else 0.0
            worker.timer = self._here().call_later(INIT_S + longest, self._not_ready, worker)
        if state is not None and state.phase not in (ENDED, LOST):
            return
        self._workers.pop(run, None)
        pool = self._pool_of.pop(run, None)
        if worker is not None:
            self._lacking.discard(worker)
            self._bury(worker, pool, state)
        self._do(self._clean(run, state))
        if pool is not None:
            self._fill(pool)
        if self._lacking:
            self._do(self._make_room())

    def _bury(self, worker: Worker, pool: Pool | None, state: RunState | None) -> None:
        """A worker is gone: whoever waited for it is told."""
        worker.let_go()
        if worker.flight is not None and not worker.flight.done.done():
            flight = worker.flight
            if state is not None and state.phase == ENDED:
                tails.add_lines(worker.log, workers.last_lines(flight, workers.exit_sentence(state), worker.memory_mb))
            flight.end(workers.ended(flight.order, state))
        self._set_down(worker)
        if pool is None:
            return
        if worker in pool.workers:
            pool.workers.remove(worker)
        else:
            self._tell_unbegun(worker, pool, lambda order: workers.ended(order, state))

    def _not_ready(self, worker: Worker) -> None:
        """Loading it takes too long, or it lives on without a handler."""
        if worker.ready:
            return
        pool = self._pool_of.pop(worker.run, None)
        if pool is not None:
            self._tell_unbegun(worker, pool, workers.timed_out)
        self._stop(worker)

    async def _clean(self, run: str, state: RunState | None) -> None:
        if state is not None:
            with contextlib.suppress(ValueError):
                await asyncio.to_thread(self._runs.forget, run)
        await asyncio.to_thread(self._forget, run)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_S)
            now = time.monotonic()
            for worker in [each for each in self._workers.values() if each.idle and now - each.idle_since > self._idle_s]:
                self._stop(worker)
            self._ledger.prune()
            for known in [known for known, pool in self._pools.items() if not (pool.workers or pool.waiting or pool.starting)]:
                del self._pools[known]

    def worker_of(self, run: str) -> Worker | None:
        return self._workers.get(run)

    def _here(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = self._here().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A function's worker could not be seen to.", exc_info=error)
