"""The workers' lives: they are started for orders that wait, and ended when nobody needs them or somebody else needs the room.

A pool that has orders and no worker at all, because the memory is used up, does not wait for ever: after a turn the next worker of
another pool that is freed ends, instead of taking its own pool's next order.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

from penstock.functions import room, tails, workers
from penstock.functions.base import FAILED, PREFIX, Forget, Make, Order, Outcome, Refusal
from penstock.functions.pools import Pool
from penstock.functions.tasks import Tasks
from penstock.functions.workers import Flight, Worker
from penstock.runs.base import ENDED, LOST, RUNNING, WAITING, Executor, RunSpec, RunState

INIT_S = 10.0
"""What loading a function may take before its time-out counts, too."""
ENVIRONMENT_S, ENVIRONMENT_LOOK_S = 600.0, 0.05
TURN_S = 1.0
"""How long an order may wait for its pool's first worker while workers of other pools serve one order after another."""
INTERNAL = "We encountered an internal error. Please try again."


class Crew:
    """Starts and ends workers.

    Takes: `freed`, called with a worker that asks for its next invocation; `set_down`, with one and its invocation, which is over.
    """

    def __init__(
        self, runs: Executor, make: Make, forget: Forget, tasks: Tasks, freed: Callable[[Worker], None],
        set_down: Callable[[Worker, Flight], None],
    ):  # fmt: skip
        self._runs, self._make, self._forget, self._tasks = runs, make, forget, tasks
        self._freed, self._set_down = freed, set_down
        self._workers: dict[str, Worker] = {}
        self._pool_of: dict[str, Pool] = {}
        self._lacking: set[Worker] = set()
        """Those whose runs wait for capacity."""

    def __contains__(self, run: str) -> bool:
        return run in self._workers

    def worker_of(self, run: str) -> Worker | None:
        return self._workers.get(run)

    def pool_of(self, worker: Worker) -> Pool | None:
        return self._pool_of.get(worker.run)

    def found(self, run: str) -> Worker:
        """A worker that an earlier process started."""
        worker = self._workers[run] = Worker(run, self._freed, self._broken, ready=True)
        self._tasks.do(self._look_again(run))
        return worker

    async def _look_again(self, run: str) -> None:
        self.notice(run, await asyncio.to_thread(self._runs.look, run))

    # --- starting
    def fill(self, pool: Pool) -> None:
        """Starts a worker for each order that waits and has none on its way."""
        for flight in list(pool.waiting)[pool.starting :]:
            pool.starting += 1
            self._tasks.do(self._start(pool, flight.order))

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
        self._tasks.do(asyncio.to_thread(self._forget, run))

    def ready(self, worker: Worker, pool: Pool) -> None:
        """A worker of the pool asks for its next order: it is one of the idle, freed last."""
        if worker in pool.workers:
            pool.workers.remove(worker)
        else:
            pool.starting -= 1
        pool.workers.append(worker)
        worker.idle_since = time.monotonic()

    def _broken(self, worker: Worker, outcome: Outcome) -> None:
        """A worker says that it has no handler."""
        self._tell_unbegun(worker, lambda _: outcome, tails.INIT_END)

    def _tell_unbegun(self, worker: Worker, outcome_of: Callable[[Order], Outcome], last: bytes = b"") -> None:
        """A worker never came to ask: the order that has waited longest is told why. Nothing is done of one that did.

        Takes: `last`, with which the worker's own lines end, where they are still on their way to the log.
        """
        pool = self._pool_of.get(worker.run)
        if pool is None or worker in pool.workers:
            return
        del self._pool_of[worker.run]
        pool.starting -= 1
        if pool.waiting:
            flight = pool.waiting.popleft()
            self._tasks.do(self._end_unbegun(worker, flight, outcome_of(flight.order), last))

    async def _end_unbegun(self, worker: Worker, flight: Flight, outcome: Outcome, last: bytes) -> None:
        if not outcome.refused:
            spent_ms = (time.monotonic() - worker.began) * 1000
            await tails.read_until(worker.log, 0, "", last)
            tails.add_lines(worker.log, workers.unbegun_lines(flight.order, outcome, spent_ms, worker.memory_mb))
            if flight.order.tail:
                outcome.log = tails.end_of(worker.log, 0, "")
        flight.end(outcome)

    # --- making room
    def rest(self) -> None:
        """A worker has become idle: somebody else may need its room."""
        if self._lacking:
            self._tasks.do(self._make_room())

    def must_give_way(self, worker: Worker) -> bool:
        """Whether a worker that was freed ends, although its pool has orders: it has had its turn, and another pool has no worker."""
        before = time.monotonic() - TURN_S
        lacking: dict[Pool, list[Worker]] = {}
        for each in self._lacking if 0 < worker.served_since <= before else ():
            if (pool := self._pool_of.get(each.run)) is not None and pool is not self.pool_of(worker):
                lacking.setdefault(pool, []).append(each)
        owed = [
            those[0] for pool, those in lacking.items()
            if not pool.workers and pool.starting == len(those) and (pool.waits_since or before) < before
        ]  # fmt: skip
        return room.lack_bytes(self._workers.values(), owed) > 0

    async def _make_room(self) -> None:
        """Ends idle workers for those whose runs wait for capacity, as long as an order waits for these."""
        looked = list(self._lacking)
        states = await asyncio.to_thread(lambda: [self._runs.look(worker.run) for worker in looked])
        for worker, state in zip(looked, states, strict=True):
            if state is None or state.phase != WAITING:
                self._lacks_nothing(worker)
        wanted = [each for each in self._lacking if (pool := self._pool_of.get(each.run)) is not None and pool.waiting]
        for worker in room.to_end(self._workers.values(), wanted):
            self.stop(worker)

    def _lacks_nothing(self, worker: Worker) -> None:
        worker.waiting = False
        self._lacking.discard(worker)

    # --- ending
    def stop_soon(self, worker: Worker) -> None:
        """From within its own request, which is answered first."""
        worker.ending = True
        self._tasks.loop.call_soon(self.stop, worker)

    def stop_idle(self, idle_s: float) -> None:
        """Ends the workers that nobody needed for so long."""
        before = time.monotonic() - idle_s
        for worker in [each for each in self._workers.values() if each.idle and each.idle_since < before]:
            self.stop(worker)

    def stop(self, worker: Worker) -> None:
        worker.let_go()
        pool = self._pool_of.get(worker.run)
        if pool is not None and worker in pool.workers:
            pool.workers.remove(worker)
            del self._pool_of[worker.run]
            self.fill(pool)
        self._tasks.do(self._end_run(worker.run))

    def leave(self) -> None:
        """This process ends, and with it the workers; those go on that have an order which the next process finds written down."""
        for worker in list(self._workers.values()):
            if worker.flight is None or not worker.flight.order.key:
                worker.let_go()
                self._runs.stop(worker.run)

    async def _end_run(self, run: str) -> None:
        await asyncio.to_thread(self._runs.stop, run)

    # --- what becomes of runs
    def notice(self, run: str, state: RunState | None) -> None:
        """A run's phase changed."""
        worker = self._workers.get(run)
        if worker is not None and state is not None and state.phase == RUNNING:
            self._lacks_nothing(worker)
            self._expect(worker)
        if state is not None and state.phase not in (ENDED, LOST):
            return
        self._workers.pop(run, None)
        pool = self._pool_of.get(run)
        if worker is not None:
            self._lacks_nothing(worker)
            self._bury(worker, pool, state)
        self._pool_of.pop(run, None)
        self._tasks.do(self._clean(run, state))
        if pool is not None:
            self.fill(pool)
        self.rest()

    def _expect(self, worker: Worker) -> None:
        """A worker's program begins: it must be ready before its time is over."""
        if not worker.ready and worker.timer is None:
            worker.began = time.monotonic()
            pool = self._pool_of.get(worker.run)
            longest = max((flight.order.timeout_s for flight in pool.waiting), default=0.0) if pool else 0.0
            worker.timer = self._tasks.loop.call_later(INIT_S + longest, self._not_ready, worker)

    def _bury(self, worker: Worker, pool: Pool | None, state: RunState | None) -> None:
        """A worker is gone: whoever waited for it is told."""
        worker.let_go()
        worker.loaded()
        if (flight := worker.flight) is not None:
            if not flight.done.done() and state is not None and state.phase == ENDED:
                tails.add_lines(worker.log, workers.last_lines(flight, workers.exit_sentence(state), worker.memory_mb))
            flight.end(workers.ended(flight.order, state))
            self._set_down(worker, flight)
        if pool is not None and worker in pool.workers:
            pool.workers.remove(worker)
        else:
            self._tell_unbegun(worker, lambda order: workers.ended(order, state))

    def _not_ready(self, worker: Worker) -> None:
        """Loading it takes too long, or it lives on without a handler."""
        if worker.ready:
            return
        self._tell_unbegun(worker, workers.timed_out)
        self.stop(worker)

    async def _clean(self, run: str, state: RunState | None) -> None:
        if state is not None:
            with contextlib.suppress(ValueError):
                await asyncio.to_thread(self._runs.forget, run)
        await asyncio.to_thread(self._forget, run)

