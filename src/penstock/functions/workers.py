"""One worker: a run that serves one invocation at a time, and what is known of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from penstock.functions.base import FAILED, UNHANDLED, Order, Outcome
from penstock.functions.runtime import ANSWER_BYTES, Asked
from penstock.runs.base import LOST, RunState

MOST_BYTES = 6_291_556
TIMED_OUT, EXITED, UNKNOWN = "Sandbox.Timedout", "Runtime.ExitError", "Runtime.Unknown"
KIND_CHARS = 256


@dataclass(slots=True)
class Flight:
    """An order that a worker has."""

    order: Order
    done: asyncio.Future[Outcome]
    until: float = 0.0
    """The moment (since 1970) at which its time is over."""
    log: str = ""
    log_place: int = 0
    """The worker's log, and where it ended when the order was handed over; where the log is asked for."""
    asked: float = field(default_factory=time.monotonic)
    timer: asyncio.TimerHandle | None = None
    """Ends it when its time is over."""
    is_held: Callable[[], bool] = lambda: False
    """Whether the connection lasts over which it was given to the worker."""

    def end(self, outcome: Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)


@dataclass(slots=True, eq=False)
class Worker:
    """Implements `runtime.Answering` for one run.

    Takes: `freed`, called when it asks for its next invocation; `broken`, when it says that there is no handler.
    """

    run: str
    freed: Callable[[Worker], None]
    broken: Callable[[Worker, Outcome], None]
    log: str = ""
    memory_mb: str = "128"
    memory_bytes: int = 0
    waiting: bool = False
    """Whether its run waits for capacity."""
    ready: bool = False
    """Whether it asked for an invocation yet."""
    served_since: float = 0.0
    """When it got its first one."""
    ending: bool = False
    flight: Flight | None = None
    idle_since: float = 0.0
    began: float = field(default_factory=time.monotonic)
    """When its program began to load the function."""
    timer: asyncio.TimerHandle | None = None
    """Ends it when it takes too long to load the function."""
    _asking: asyncio.Future[Flight | None] | None = None
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    # --- what its program asks
    @property
    def may_ask(self) -> bool:
        return self.flight is None or self.flight.done.done() or not self.flight.is_held()

    async def next(self, lasts: Callable[[], bool]) -> tuple[Mapping[str, str], bytes] | None:
        loop = asyncio.get_running_loop()
        if self._asking is not None and not self._asking.done():  # it asks again over another connection
            self._asking.set_result(None)
        self._asking = asking = loop.create_future()
        self.ready = True
        self.freed(self)
        flight = await asking
        if flight is None:
            return None
        flight.is_held = lasts
        return _headers(flight), flight.order.payload

    def expects(self, request_id: str) -> bool:
        flight = self.flight
        return flight is not None and flight.order.request_id == request_id and not flight.done.done()

    def answered(self, request_id: str, asked: Asked) -> bool:
        if self.flight is None or not self.expects(request_id):
            return False
        if asked.size_bytes > MOST_BYTES or asked.size_bytes > ANSWER_BYTES:
            told = f"Response payload size ({asked.size_bytes} bytes) exceeded maximum allowed payload size ({MOST_BYTES} bytes)."
            outcome = error_of("Function.ResponseSizeTooLarge", told)
        else:
            outcome = Outcome(payload=asked.body)
        self.flight.end(outcome)
        return True

    def failed(self, request_id: str, asked: Asked) -> bool:
        if self.flight is None or not self.expects(request_id):
            return False
        self.flight.end(Outcome(payload=asked.body or b"{}", error=UNHANDLED))
        return True

    def failed_init(self, asked: Asked) -> None:
        self.ending = True
        self.broken(self, Outcome(payload=asked.body or b"{}", error=UNHANDLED))

    # --- what is done with it
    @property
    def idle(self) -> bool:
        return self.ready and not self.ending and self.flight is None and self._asking is not None and not self._asking.done()

    def hand(self, flight: Flight) -> None:
        """Gives an idle worker its next invocation."""
        assert self._asking is not None
        self.flight = flight
        self.served_since = self.served_since or time.monotonic()
        flight.until = time.time() + flight.order.timeout_s
        self._asking.set_result(flight)

    def loaded(self) -> None:
        """Loading the function is over, one way or another."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def let_go(self) -> None:
        """Its connections are closed: it gets nothing more."""
        self.ending = True
        if self._asking is not None and not self._asking.done():
            self._asking.set_result(None)
        for writer in list(self.connections):
            writer.close()


def _headers(flight: Flight) -> dict[str, str]:
    order = flight.order
    headers = {
        "Lambda-Runtime-Aws-Request-Id": order.request_id,
        "Lambda-Runtime-Deadline-Ms": str(int(flight.until * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": order.arn,
        "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{order.request_id.replace('-', '')[:24]};Sampled=0",
    }
    if order.client_context:
        headers["Lambda-Runtime-Client-Context"] = order.client_context
    return headers


# --- errors that the service tells for a function


def error_of(kind: str, message: str, request_id: str = "") -> Outcome:
    """An error in AWS's form."""
    told = f"RequestId: {request_id} Error: {message}" if request_id else message
    return Outcome(payload=json.dumps({"errorType": kind, "errorMessage": told}).encode(), error=UNHANDLED)


def timed_out(order: Order) -> Outcome:
    return error_of(TIMED_OUT, f"Task timed out after {order.timeout_s:.2f} seconds", order.request_id)


def ended(order: Order, state: RunState | None) -> Outcome:
    """The outcome of an order whose worker's run has ended."""
    if state is None or state.phase == LOST:
        return Outcome(refused=FAILED, message="The function's worker was lost.", lost=True)
    if state.reason == "sandbox":
        return Outcome(refused=FAILED, message=f"The function's sandbox could not be made: {state.message}")
    return error_of(EXITED, exit_sentence(state), order.request_id)


def exit_sentence(state: RunState) -> str:
    code = state.exit_code or 0
    if state.reason == "memory" or code == 137:
        return "Runtime exited with error: signal: killed"
    if code > 128:
        names = {6: "aborted", 11: "segmentation fault (core dumped)", 15: "terminated"}
        return f"Runtime exited with error: signal: {names.get(code - 128, code - 128)}"
    if code:
        return f"Runtime exited with error: exit status {code}"
    return "Runtime exited without providing a reason"


def last_lines(flight: Flight, sentence: str, memory_mb: str, status: str = "") -> list[str]:
    """What the log says of an invocation that its program could not end itself."""
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    order = flight.order
    spent_ms = min(order.timeout_s, order.timeout_s - (flight.until - time.time())) * 1000
    first = f"{stamp} {order.request_id} {sentence}" if status else f"RequestId: {order.request_id} Error: {sentence}"
    return [first, *_closing(order, spent_ms, memory_mb, f"Status: {status}" if status else "")]


def unbegun_lines(order: Order, outcome: Outcome, spent_ms: float, memory_mb: str) -> list[str]:
    """What the log says of an invocation that never began, since there was no handler for it."""
    told: Any = {}
    with contextlib.suppress(ValueError, RecursionError):  # the program may have said anything
        told = json.loads(outcome.payload)
    kind = str(told.get("errorType") or UNKNOWN)[:KIND_CHARS] if isinstance(told, dict) else UNKNOWN
    status = "Status: timeout" if kind == TIMED_OUT else f"Status: error\tError Type: {kind}"
    start = [f"START RequestId: {order.request_id} Version: {order.version}"]
    if kind in (TIMED_OUT, EXITED):  # the program did not come to say it
        init = f"INIT_REPORT Init Duration: {spent_ms:.2f} ms\tPhase: init\t{status}"
        start = [init, *start, str(told["errorMessage"]), *([kind] if kind == EXITED else [])]
    return [*start, *_closing(order, spent_ms, memory_mb, status)]


def _closing(order: Order, spent_ms: float, memory_mb: str, status: str) -> list[str]:
    report = (
        f"REPORT RequestId: {order.request_id}\tDuration: {spent_ms:.2f} ms\tBilled Duration: {math.ceil(spent_ms)} ms\t"
        f"Memory Size: {memory_mb} MB\tMax Memory Used: {memory_mb} MB\t"
    )
    return [f"END RequestId: {order.request_id}", report + status]
