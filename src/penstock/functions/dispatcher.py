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

import msgspec

from penstock.functions import workers
from penstock.functions.base import FAILED, THROTTLED, Forget, Make, Order, Outcome, Refusal
from penstock.functions.workers import Flight, Worker
from penstock.runs.base import ENDED, LOST, RUNNING, WAITING, Executor, RunSpec, RunState

log = logging.getLogger("penstock.functions")

PREFIX = "function."
INIT_S = 10.0
"""What loading a function may take before its time-out counts, too."""
ENVIRONMENT_S, ENVIRONMENT_LOOK_S = 600.0, 0.05
REAP_S = 1.0
TAIL_BYTES, TAIL_S, TAIL_LOOK_S = 4096, 1.0, 0.001
KEPT_S = 900.0
"""How long the outcome of an order with a key is there to be looked at."""
CONNECTIONS = 16
"""A worker may hold so many."""

Key = tuple[str, str, str, str]


class Written(msgspec.Struct):
    """An order with a key that a worker has, as it is written down."""

    order: Order
    until: float
    log: str
    memory_mb: str


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

    Takes: `folder`, for what is written down; `idle_s`, how long a worker is kept that nobody needs; `most`, how many invocations of all
    functions may run at once; `ended`, called with the key of an order that has ended.
    """

    def __init__(
        self, runs: Executor, make: Make, forget: Forget, folder: Path, idle_s: float, most: int,
        ended: Callable[[str], None],
    ):  # fmt: skip
        self._runs, self._make, self._forget, self._folder, self._tell = runs, make, forget, folder, ended
        self._idle_s, self._most = idle_s, most
        self._pools: dict[Key, Pool] = {}
        self._workers: dict[str, Worker] = {}
        self._pool_of: dict[str, Pool] = {}
        self._flying: dict[tuple[str, str, str], int] = {}
        self._keyed: dict[str, Outcome | bool] = {}
        self._landed: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- from other threads
    def look(self, key: str) -> Outcome | bool:
        return self._keyed.get(key, False)

    def begin(self, order: Order) -> None:
        if self._loop is not None and self._keyed.setdefault(order.key, True) is True and order.key not in self._landed:
            self._landed[order.key] = 0.0
            self._loop.call_soon_threadsafe(self._do, self._carry_out(order))

    def heard(self, run: str) -> None:
        """A run's phase changed."""
        if run.startswith(PREFIX) and self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it is closing
                self._loop.call_soon_threadsafe(self._notice, run, self._runs.look(run))

    # --- living
    def adopt(self) -> None:
        """Before the engine's steps: what workers have is known again."""
        for file in self._folder.glob("*.order"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                written = msgspec.msgpack.decode(file.read_bytes(), type=Written)
                self._keyed[written.order.key], self._landed[written.order.key] = True, 0.0

    def start(self) -> None:
        """In the event loop."""
        self._loop = asyncio.get_running_loop()
        for run in self._runs.names():
            if run.startswith(PREFIX):
                self._find(run)
        for file in self._folder.glob("*.order"):
            if file.stem not in self._workers:
                self._land_lost(file)
        self._do(self._reap())

    def _find(self, run: str) -> None:
        """A worker that an earlier process started: one that has an order is let go on, another is ended."""
        worker = self._workers[run] = Worker(run, self._freed, self._broken, ready=True)
        try:
            written = msgspec.msgpack.decode((self._folder / f"{run}.order").read_bytes(), type=Written)
        except (OSError, msgspec.DecodeError):
            self._stop(worker)
        else:
            worker.log, worker.memory_mb = written.log, written.memory_mb
            worker.flight = flight = Flight(written.order, self._here().create_future(), written.until)
            worker.timer = self._here().call_later(max(0.0, written.until - time.time()), self._time_out, worker, flight)
            self._do(self._await_adopted(worker, flight))
        self._do(self._look_again(run))

    async def _await_adopted(self, worker: Worker, flight: Flight) -> None:
        outcome = await flight.done
        self._set_down(worker)
        self._keep(flight.order.key, outcome)

    async def _look_again(self, run: str) -> None:
        self._notice(run, await asyncio.to_thread(self._runs.look, run))

    def _land_lost(self, file: Path) -> None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            written = msgspec.msgpack.decode(file.read_bytes(), type=Written)
            self._keep(written.order.key, workers.ended(written.order, None))
        file.unlink(missing_ok=True)

    # --- orders
    async def invoke(self, order: Order) -> Outcome:
        """Waits for the outcome of an order."""
        family = order.account, order.region, order.function
        flying = self._flying.get(family, 0)
        if (order.limit is not None and flying >= order.limit) or sum(self._flying.values()) >= self._most:
            return Outcome(refused=THROTTLED, message="Rate Exceeded.")
        self._flying[family] = flying + 1
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
                await _add_tail(flight, outcome)
            return outcome
        finally:
            self._flying[family] -= 1
            if not self._flying[family]:
                del self._flying[family]

    async def _carry_out(self, order: Order) -> None:
        self._keep(order.key, await self.invoke(order))

    def _keep(self, key: str, outcome: Outcome) -> None:
        self._keyed[key], self._landed[key] = outcome, time.monotonic()
        self._tell(key)

    def _pool(self, order: Order) -> Pool:
        """The pool of an order; another one of the same version is replaced."""
        key = order.account, order.region, order.function, order.version
        pool = self._pools.get(key)
        if pool is None or pool.stamp != order.stamp:
            if pool is not None:
                pool.replaced = True
                for worker in [each for each in pool.workers if each.idle]:
                    self._stop(worker)
            pool = self._pools[key] = Pool(order.stamp)
        return pool

    def _hand(self, worker: Worker, flight: Flight) -> None:
        order = flight.order
        if order.tail:
            flight.log = worker.log
            with contextlib.suppress(OSError):
                flight.log_place = Path(worker.log).stat().st_size
        flight.until = time.time() + order.timeout_s
        if order.key:
            self._write_down(worker, flight)
        worker.timer = self._here().call_later(order.timeout_s, self._time_out, worker, flight)
        flight.done.add_done_callback(lambda _: self._set_down(worker))
        worker.hand(flight)

    def _write_down(self, worker: Worker, flight: Flight) -> None:
        """Not synced: a power failure takes the worker, too."""
        written = Written(flight.order, flight.until, worker.log, worker.memory_mb)
        (self._folder / f"{worker.run}.order").write_bytes(msgspec.msgpack.encode(written))

    def _set_down(self, worker: Worker) -> None:
        """Its invocation is over, whatever came of it."""
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        if worker.flight is not None and worker.flight.done.done():
            if worker.flight.order.key:
                (self._folder / f"{worker.run}.order").unlink(missing_ok=True)
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
            if not flight.done.done():
                self._hand(worker, flight)
                return
        if pool.replaced:
            self._here().call_soon(self._stop, worker)

    def _broken(self, worker: Worker, outcome: Outcome) -> None:
        """A worker has no handler: the order that has waited longest is told why."""
        pool = self._pool_of.pop(worker.run, None)
        if pool is None or worker in pool.workers:
            return
        pool.starting -= 1
        if pool.waiting:
            flight = pool.waiting.popleft()
            with contextlib.suppress(msgspec.DecodeError, TypeError):
                said = msgspec.json.decode(outcome.payload)
                outcome.payload = msgspec.json.encode(said | {"requestId": flight.order.request_id})
            self._do(self._tell_broken(worker, flight, outcome))

    async def _tell_broken(self, worker: Worker, flight: Flight, outcome: Outcome) -> None:
        if flight.order.tail:
            await asyncio.sleep(0.05)  # its last lines are on their way to the log
            outcome.log = _end_of(worker.log, 0, "")
        flight.end(outcome)

    def _time_out(self, worker: Worker, flight: Flight) -> None:
        if not flight.done.done():
            sentence = f"Task timed out after {flight.order.timeout_s:.2f} seconds"
            _add_lines(worker.log, workers.last_lines(flight, f"{sentence}\n", worker.memory_mb, "timeout"))
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
        cannot: Outcome | None = Outcome(refused=FAILED, message="We encountered an internal error. Please try again.")
        try:
            spec = await self._specify(order, run)
            worker = Worker(run, self._freed, self._broken)
            worker.log, worker.memory_mb = spec.instances[0].log, spec.env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            self._workers[run], self._pool_of[run] = worker, pool
            state = await asyncio.to_thread(self._runs.start, spec)
            cannot = None
        except Refusal as why:
            cannot = Outcome(refused=why.code, message=why.message)
        except OSError as why:
            cannot = Outcome(refused=FAILED, message=f"The function cannot be started: {why.strerror}")
        finally:  # whatever goes wrong, nobody waits for a worker that does not come
            if cannot is not None:
                self._cannot(pool, run, cannot)
        if cannot is None and state.phase == WAITING:
            self._make_room()

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

    def _make_room(self) -> None:
        """Ends the worker that was idle for longest: another function's has none."""
        idle = [worker for worker in self._workers.values() if worker.idle]
        if idle:
            self._stop(min(idle, key=lambda worker: worker.idle_since))

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
            longest = max((flight.order.timeout_s for flight in pool.waiting), default=0.0) if pool else 0.0
            worker.timer = self._here().call_later(INIT_S + longest, self._not_ready, worker)
        if state is not None and state.phase not in (ENDED, LOST):
            return
        self._workers.pop(run, None)
        pool = self._pool_of.pop(run, None)
        if worker is not None:
            self._bury(worker, pool, state)
        self._do(self._clean(run, state))
        if pool is not None:
            self._fill(pool)

    def _bury(self, worker: Worker, pool: Pool | None, state: RunState | None) -> None:
        """A worker is gone: whoever waited for it is told."""
        worker.let_go()
        if worker.flight is not None and not worker.flight.done.done():
            flight = worker.flight
            if state is not None and state.phase == ENDED:
                _add_lines(worker.log, workers.last_lines(flight, workers.exit_sentence(state), worker.memory_mb))
            flight.end(workers.ended(flight.order, state))
        self._set_down(worker)
        if pool is None:
            return
        if worker in pool.workers:
            pool.workers.remove(worker)
        else:
            pool.starting -= 1
            if pool.waiting:
                flight = pool.waiting.popleft()
                flight.end(workers.ended(flight.order, state))

    def _not_ready(self, worker: Worker) -> None:
        """Loading it takes too long."""
        pool = self._pool_of.pop(worker.run, None)
        if worker.ready or pool is None:
            return
        pool.starting -= 1
        if pool.waiting:
            flight = pool.waiting.popleft()
            flight.end(workers.timed_out(flight.order))
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
            for key in [key for key, landed in self._landed.items() if landed and now - landed > KEPT_S]:
                del self._landed[key], self._keyed[key]
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


async def _add_tail(flight: Flight, outcome: Outcome) -> None:
    """Waits for the last line of an invocation's log, and puts the end of the log into the outcome."""
    until, last = time.monotonic() + TAIL_S, f"REPORT RequestId: {flight.order.request_id}".encode()
    while True:
        outcome.log = _end_of(flight.log, flight.log_place, flight.order.request_id)
        if last in outcome.log or time.monotonic() > until:
            return
        await asyncio.sleep(TAIL_LOOK_S)


def _add_lines(path: str, lines: list[str]) -> None:
    stamp = f"{int(time.time() * 1000)} "
    with contextlib.suppress(OSError), open(path, "ab") as file:
        file.write("".join(f"{stamp}{part}\n" for line in lines for part in line.split("\n")).encode())


def _end_of(path: str, place: int, request_id: str) -> bytes:
    """The last 4 KB of an invocation's lines, without their moments."""
    try:
        with open(path, "rb") as file:
            file.seek(place)
            lines = [line.partition(b" ")[2] for line in file.read().split(b"\n")]
    except OSError:
        return b""
    text = b"\n".join(lines)
    start = text.rfind(b"START RequestId: " + request_id.encode()) if request_id else 0
    return text[max(0, start) :][-TAIL_BYTES:]
