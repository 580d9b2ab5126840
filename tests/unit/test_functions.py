"""Orders, workers and the Runtime API between them, without sandboxes: a worker is a client of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock.functions import runtime
from penstock.functions.base import Order, Outcome, Refusal
from penstock.functions.dispatcher import Dispatcher
from penstock.runs.base import ENDED, RUNNING, Instance, RunSpec, RunState

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Runs:
    """Stands for the executor: what was started runs until it is stopped."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.states: dict[str, RunState] = {}
        self.heard: Callable[[str], None] = lambda run: None

    def start(self, spec: RunSpec) -> RunState:
        self.started.append(spec.name)
        self.states[spec.name] = RunState(RUNNING)
        return self.states[spec.name]

    def look(self, name: str) -> RunState | None:
        return self.states.get(name)

    def stop(self, name: str, reason: str = "stopped") -> None:
        self.end(name, RunState(ENDED, 143, reason))

    def end(self, name: str, state: RunState) -> None:
        self.states[name] = state
        self.heard(name)

    def forget(self, name: str) -> None:
        self.states.pop(name, None)

    def names(self) -> list[str]:
        return list(self.states)


class Stage:
    """A dispatcher, and workers that speak to it."""

    def __init__(self, folder: Path, make: Callable[[Order, str], RunSpec | None] | None = None, runs: Runs | None = None):
        self.runs, self.folder, self.ended = runs or Runs(), folder, list[str]()
        made = make or (lambda order, run: RunSpec(run, instances=[Instance(log=str(folder / "log"))]))
        self.dispatcher = Dispatcher(
            self.runs, made, lambda run: None, folder / "functions", 600.0, 3, self.ended.append  # type: ignore[arg-type]
        )  # fmt: skip
        self.runs.heard = self.dispatcher.heard
        self.serving: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, number: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A worker's connection, as its sandbox has it."""
        run = await until(lambda: self.runs.started[number] if len(self.runs.started) > number else None)
        worker = await until(lambda: self.dispatcher.worker_of(run))
        mine, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=its)
        self.serving.append(asyncio.create_task(runtime.serve(worker, reader, writer)))
        connection = await asyncio.open_connection(sock=mine)
        self.writers.append(connection[1])
        return connection

    async def close(self) -> None:
        """The workers hang up."""
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def order(self, request_id: str = "r1", **members: Any) -> Order:
        return Order(**({"request_id": request_id, "account": "1", "region": "r", "function": "f"} | members))


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        while not (result := found()):
            await asyncio.sleep(0.001)
    return result


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode()
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return int(head.split(" ")[1]), await reader.readexactly(length)


def post(request_id: str, body: bytes, what: str = "response") -> bytes:
    head = f"POST /2018-06-01/runtime/invocation/{request_id}/{what} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def play(
    folder: Path, story: Callable[[Stage], Coroutine[Any, Any, None]], make: Callable[[Order, str], RunSpec | None] | None = None
) -> None:
    """Tells a story on a stage that is cleared afterwards."""

    async def told() -> None:
        stage = Stage(folder, make)
        stage.dispatcher.start()
        try:
            await story(stage)
        finally:
            await stage.close()

    asyncio.run(told())


def test_a_worker_serves_one_order_after_another(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        first = asyncio.create_task(stage.dispatcher.invoke(stage.order(payload=b"1")))
        reader, writer = await stage.connect()
        for number in (1, 2):
            writer.write(NEXT)
            if number == 2:
                first = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2", payload=b"2")))
            assert await answer(reader) == (200, b"%d" % number)
            writer.write(post(f"r{number}", b"done"))
            assert (await answer(reader))[0] == 202
            assert (await first).payload == b"done"
        assert len(stage.runs.started) == 1

    play(tmp_path, story)


def test_an_answer_counts_only_for_the_order_that_the_worker_has(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order()))
        reader, writer = await stage.connect()
        writer.write(post("r1", b"too early"))
        assert (await answer(reader))[0] == 400
        writer.write(NEXT)
        await answer(reader)
        writer.write(post("another", b"not mine"))
        assert (await answer(reader))[0] == 400
        writer.write(post("r1", b"mine"))
        await answer(reader)
        assert (await waiting).payload == b"mine"

    play(tmp_path, story)


@pytest.mark.parametrize("said", [
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"\r\n\r\n", b"x" * 70_000, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"\xff\xfe\x00\r\n\r\n",
])  # fmt: skip
def test_what_is_no_request_ends_the_connection_alone(tmp_path: Path, said: bytes) -> None:
    async def story(stage: Stage) -> None:
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order()))
        reader, writer = await stage.connect()
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        reader, writer = await stage.connect()
        writer.write(NEXT)
        assert (await answer(reader))[0] == 200
        writer.write(post("r1", b"ok"))
        assert (await waiting).payload == b"ok"

    play(tmp_path, story)


def test_an_order_whose_worker_ends_is_told_why(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order()))
        reader, writer = await stage.connect()
        writer.write(NEXT)
        await answer(reader)
        stage.runs.end(stage.runs.started[0], RunState(ENDED, 137, "memory"))
        outcome = await waiting
        assert b"Runtime exited with error: signal: killed" in outcome.payload
        assert outcome.error == "Unhandled"

    play(tmp_path, story)


@pytest.mark.parametrize("fault", [Refusal("ResourceNotFoundException", "gone"), RuntimeError("a bug"), OSError(28, "No space")])
def test_nobody_waits_for_a_worker_that_cannot_be_made(tmp_path: Path, fault: Exception) -> None:
    def make(order: Order, run: str) -> RunSpec:
        raise fault

    async def story(stage: Stage) -> None:
        outcome = await asyncio.wait_for(stage.dispatcher.invoke(stage.order()), 60)
        assert outcome.refused == (fault.code if isinstance(fault, Refusal) else "ServiceException")

    play(tmp_path, story, make)


def test_what_runs_beyond_the_limits_is_throttled(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        waiting = [asyncio.create_task(stage.dispatcher.invoke(stage.order(f"r{n}", limit=2))) for n in range(2)]
        await until(lambda: len(stage.runs.started) == 2)
        assert (await stage.dispatcher.invoke(stage.order("r3", limit=2))).refused == "TooManyRequestsException"
        waiting.append(asyncio.create_task(stage.dispatcher.invoke(stage.order("other", function="g"))))
        await until(lambda: len(stage.runs.started) == 3)
        assert (await stage.dispatcher.invoke(stage.order("r4", function="h"))).refused == "TooManyRequestsException"
        for task in waiting:
            task.cancel()

    play(tmp_path, story)


def test_new_code_gets_new_workers_and_the_idle_old_ones_end(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order(stamp="old")))
        reader, writer = await stage.connect()
        writer.write(NEXT)
        await answer(reader)
        writer.write(post("r1", b"old") + NEXT)
        await waiting
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2", stamp="new")))
        reader, writer = await stage.connect(1)
        writer.write(NEXT)
        await answer(reader)
        writer.write(post("r2", b"new"))
        assert (await waiting).payload == b"new"
        await until(lambda: stage.runs.started[0] not in stage.runs.states)

    play(tmp_path, story)


def test_an_order_with_a_key_is_found_again_by_the_next_dispatcher(tmp_path: Path) -> None:
    async def story(before: Stage) -> None:
        before.dispatcher.begin(before.order(key="k"))
        reader, writer = await before.connect()
        writer.write(NEXT)
        await answer(reader)
        # another process takes its place; the run goes on
        after = Stage(tmp_path, runs=before.runs)
        after.dispatcher.adopt()
        assert after.dispatcher.look("k") is True
        after.dispatcher.start()
        after.serving, after.writers = before.serving, before.writers
        reader, writer = await after.connect()
        writer.write(post("r1", b"late"))
        assert (await answer(reader))[0] == 202
        await until(lambda: after.ended == ["k"])
        found = after.dispatcher.look("k")
        assert isinstance(found, Outcome)
        assert found.payload == b"late"

    play(tmp_path, story)
