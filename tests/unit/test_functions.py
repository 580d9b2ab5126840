"""Orders, workers and the Runtime API between them, without sandboxes: a worker is a client of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock.functions import crew, runtime, tails
from penstock.functions.base import Gone, Order, Outcome, Refusal
from penstock.functions.desk import Desk, message
from penstock.functions.dispatcher import Dispatcher
from penstock.runs import handout
from penstock.runs.base import ENDED, RUNNING, WAITING, Instance, RunSpec, RunState

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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


class Tight(Runs):
    """An executor with little memory: what does not fit waits until something has ended."""

    room, sizes = 1024, dict[str, int]()

    def start(self, spec: RunSpec) -> RunState:
        self.sizes = {**self.sizes, spec.name: spec.memory_bytes}
        super().start(spec)
        if not self._fits():
            self.states[spec.name] = RunState(WAITING)
        return self.states[spec.name]

    def end(self, name: str, state: RunState) -> None:
        self.states[name] = state
        for waiting in [run for run, each in self.states.items() if each.phase == WAITING]:
            self.states[waiting] = RunState(RUNNING)
            if not self._fits():
                self.states[waiting] = RunState(WAITING)
        self.heard(name)

    def _fits(self) -> bool:
        return sum(self.sizes[run] for run, state in self.states.items() if state.phase == RUNNING) <= self.room


class Stage:
    """A dispatcher, and workers that speak to it."""

    def __init__(self, folder: Path, make: Callable[[Order, str], RunSpec | None] | None = None, runs: Runs | None = None):
        self.runs, self.folder, self.ended, self.forgotten = runs or Runs(), folder, list[str](), list[str]()
        made = make or (lambda order, run: RunSpec(run, instances=[Instance(log=str(folder / "log"))]))
        self.dispatcher = Dispatcher(
            self.runs, made, self.forgotten.append, folder / "functions", 600.0, 3, self.ended.append  # type: ignore[arg-type]
        )  # fmt: skip
        self.runs.heard = self.dispatcher.heard
        self.serving: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, number: int = 0) -> Connection:
        """A worker's connection, as its sandbox has it."""
        run = await until(lambda: self.runs.started[number] if len(self.runs.started) > number else None)
        worker = await until(lambda: self.dispatcher.worker_of(run))
        mine, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=its)
        self.serving.append(asyncio.create_task(runtime.serve(worker, reader, writer)))
        connection = await asyncio.open_connection(sock=mine)
        self.writers.append(connection[1])
        return connection

    async def warm(self, number: int = 0, **members: Any) -> Connection:
        """A worker that served an order and is idle."""
        waiting = asyncio.create_task(self.dispatcher.invoke(self.order(**members)))
        reader, writer = await self.connect(number)
        writer.write(NEXT)
        await answer(reader)
        writer.write(post("r1", b"ok"))
        await answer(reader)
        await waiting
        writer.write(NEXT)
        worker = self.dispatcher.worker_of(self.runs.started[number])
        await until(lambda: worker is not None and worker.idle)
        return reader, writer

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
    folder: Path, story: Callable[[Stage], Coroutine[Any, Any, None]], make: Callable[[Order, str], RunSpec | None] | None = None,
    runs: Runs | None = None,
) -> None:  # fmt: skip
    """Tells a story on a stage that is cleared afterwards."""

    async def told() -> None:
        stage = Stage(folder, make, runs)
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
                worker = stage.dispatcher.worker_of(stage.runs.started[0])
                await until(lambda worker=worker: worker is not None and worker.idle)
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


def test_an_order_that_cannot_be_written_down_is_answered_and_the_worker_serves_on(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        reader, writer = await stage.warm()
        (tmp_path / "functions").rmdir()
        stage.dispatcher.begin(stage.order("r2", key="k", limit=1))
        await until(lambda: stage.ended == ["k"])
        found = stage.dispatcher.look("k")
        assert isinstance(found, Outcome)
        assert found.refused == "ServiceException"
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r3", limit=1)))
        assert (await answer(reader))[0] == 200
        writer.write(post("r3", b"3"))
        assert (await waiting).payload == b"3"

    play(tmp_path, story)


def test_an_order_with_a_key_is_answered_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        monkeypatch.setattr(stage.dispatcher, "_place", lambda flight: 1 / 0)
        stage.dispatcher.begin(stage.order(key="k"))
        await until(lambda: stage.ended == ["k"])

    play(tmp_path, story)


def test_as_many_idle_workers_end_as_a_large_one_needs(tmp_path: Path) -> None:
    def make(order: Order, run: str) -> RunSpec:
        return RunSpec(run, instances=[Instance(log="")], memory_bytes=int(order.stamp))

    async def story(stage: Stage) -> None:
        for number in range(8):
            await stage.warm(number, function=f"f{number}", stamp="128")
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r9", function="large", stamp="512")))
        reader, writer = await stage.connect(8)
        await until(lambda: (state := stage.runs.look(stage.runs.started[8])) is not None and state.phase == RUNNING)
        writer.write(NEXT)
        await answer(reader)
        writer.write(post("r9", b"9"))
        assert (await waiting).payload == b"9"
        assert [run for run in stage.runs.started if stage.dispatcher.worker_of(run)] == stage.runs.started[4:]

    play(tmp_path, story, make, Tight())


def test_a_worker_that_becomes_idle_makes_room_for_one_that_waits(tmp_path: Path) -> None:
    def make(order: Order, run: str) -> RunSpec:
        return RunSpec(run, instances=[Instance(log="")], memory_bytes=int(order.stamp))

    async def story(stage: Stage) -> None:
        busy = asyncio.create_task(stage.dispatcher.invoke(stage.order(stamp="1000")))
        reader, writer = await stage.connect()
        writer.write(NEXT)
        await answer(reader)
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2", function="g", stamp="1000")))
        await until(lambda: len(stage.runs.started) == 2)
        writer.write(post("r1", b"1") + NEXT)
        await busy
        await until(lambda: (state := stage.runs.look(stage.runs.started[1])) is not None and state.phase == RUNNING)
        waiting.cancel()

    play(tmp_path, story, make, Tight())


@pytest.mark.parametrize(("turn_s", "first"), [(0.0, "other"), (600.0, "own")])
def test_a_busy_worker_has_its_turn_and_then_gives_way_to_a_pool_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn_s: float, first: str
) -> None:
    monkeypatch.setattr(crew, "TURN_S", turn_s)

    def make(order: Order, run: str) -> RunSpec:
        return RunSpec(run, instances=[Instance(log="")], memory_bytes=int(order.stamp))

    async def serve(stage: Stage, number: int, name: str) -> None:
        reader, writer = await stage.connect(number)
        writer.write(NEXT)
        await answer(reader)
        writer.write(post(name, b"") + NEXT)

    async def story(stage: Stage) -> None:
        ended: list[str] = []

        def ask(name: str, function: str) -> asyncio.Task[Outcome]:
            task = asyncio.create_task(stage.dispatcher.invoke(stage.order(name, function=function, stamp="1000")))
            task.add_done_callback(lambda _: ended.append(name))
            return task

        asked = [ask("first", "f")]
        reader, writer = await stage.connect()
        writer.write(NEXT)
        await answer(reader)
        for number, (name, function) in enumerate((("other", "g"), ("own", "f")), 2):
            asked.append(ask(name, function))
            await until(lambda number=number: len(stage.runs.started) == number)
        writer.write(post("first", b"") + NEXT)
        if first == "own":
            assert [(await answer(reader))[0], (await answer(reader))[0]] == [202, 200]
            writer.write(post("own", b"") + NEXT)
        await serve(stage, 1, "other")
        if first == "other":
            await serve(stage, 2, "own")
        await asyncio.gather(*asked)
        assert ended[1] == first

    play(tmp_path, story, make, Tight())


def test_an_outcome_that_was_heard_is_forgotten_and_one_that_nobody_reads_has_no_payload(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        reader, writer = await stage.warm()
        stage.dispatcher.begin(stage.order("r2", key="k", quiet=True))
        stage.dispatcher.forget("k")  # it is carried out yet
        assert stage.dispatcher.look("k") is True
        await answer(reader)
        writer.write(post("r2", b"long"))
        await until(lambda: stage.ended == ["k"])
        found = stage.dispatcher.look("k")
        assert isinstance(found, Outcome)
        assert (found.payload, found.error) == (b"", "")
        stage.dispatcher.forget("k")
        assert stage.dispatcher.look("k") is False

    play(tmp_path, story)


def test_of_a_long_log_the_end_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.write(b"1 START RequestId: r1 Version: 1\n")
        file.truncate(1 << 40)  # more than could be read
        file.seek(0, 2)
        file.write(b"\n" + b"1 a line\n" * 1000 + b"1 REPORT RequestId: r1\n")
    text = tails.end_of(str(log), 0, "r1")
    assert len(text) == tails.TAIL_BYTES
    assert text.endswith(b"a line\na line\nREPORT RequestId: r1\n")


def test_a_worker_that_was_ready_cannot_say_that_it_has_no_handler(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        reader, writer = await stage.warm()
        other_reader, other_writer = await stage.connect()
        other_writer.write(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        assert (await answer(other_reader))[0] == 403
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2")))
        assert (await answer(reader))[0] == 200
        writer.write(post("r2", b"2"))
        assert (await waiting).payload == b"2"

    play(tmp_path, story)


def test_a_body_is_read_for_an_invocation_that_the_worker_has_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.StreamReader, "readexactly", None)  # what keeps a whole body

    async def story(stage: Stage) -> None:
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order()))
        reader, writer = await stage.connect()
        writer.write(post("another", b"x" * 5_000_000) + NEXT)
        assert b" 400 " in await reader.readline()
        waiting.cancel()

    play(tmp_path, story)


def test_a_body_that_does_not_come_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BODY_S", 0.0)

    async def story(stage: Stage) -> None:
        reader, writer = await stage.warm()
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2")))
        await answer(reader)
        writer.write(post("r2", b"late")[:-1])
        assert await asyncio.wait_for(reader.read(), 60) == b""
        waiting.cancel()

    play(tmp_path, story)


def test_credentials_of_a_worker_that_cannot_be_started_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        def start(spec: RunSpec) -> RunState:
            stage.runs.started.append(spec.name)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(stage.runs, "start", start)
        assert (await stage.dispatcher.invoke(stage.order())).refused == "ServiceException"
        await until(lambda: stage.forgotten == stage.runs.started)

    play(tmp_path, story)


def test_workers_of_a_function_that_is_gone_end(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.warm()
        await stage.warm(1, function="other")
        stage.dispatcher.drop(Gone("1", "r", "f"))
        await until(lambda: stage.runs.started[0] not in stage.runs.states)
        assert stage.runs.started[1] in stage.runs.states

    play(tmp_path, story)


def test_accounts_and_regions_are_counted_apart(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        orders = [*(stage.order(f"r{n}") for n in range(3)), stage.order("a", account="2"), stage.order("b", region="s")]
        waiting = [asyncio.create_task(stage.dispatcher.invoke(order)) for order in orders]
        await until(lambda: len(stage.runs.started) == 5)
        assert (await stage.dispatcher.invoke(stage.order("r4"))).refused == "TooManyRequestsException"
        for task in waiting:
            task.cancel()

    play(tmp_path, story)


def test_an_order_that_a_worker_brought_over_counts_until_it_ends(tmp_path: Path) -> None:
    async def story(before: Stage) -> None:
        before.dispatcher.begin(before.order(key="k", limit=1))
        reader, writer = await before.connect()
        writer.write(NEXT)
        await answer(reader)
        after = Stage(tmp_path, runs=before.runs)
        after.dispatcher.adopt()
        after.dispatcher.start()
        assert (await after.dispatcher.invoke(after.order("r2", limit=1))).refused == "TooManyRequestsException"

    play(tmp_path, story)


def test_an_order_that_comes_with_the_answer_to_another_keeps_its_time_out(tmp_path: Path) -> None:
    def make(order: Order, run: str) -> RunSpec | None:
        return RunSpec(run, instances=[Instance(log=str(tmp_path / "log"))]) if order.request_id == "r1" else None

    async def story(stage: Stage) -> None:
        first = asyncio.create_task(stage.dispatcher.invoke(stage.order()))
        reader, writer = await stage.connect()
        writer.write(NEXT)
        await answer(reader)
        second = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2", timeout_s=0.01)))
        await asyncio.sleep(0)
        writer.write(post("r1", b"1") + NEXT)
        assert (await first).payload == b"1"
        outcome = await asyncio.wait_for(second, 60)
        assert b"Sandbox.Timedout" in outcome.payload
        await until(lambda: stage.runs.started[0] not in stage.runs.states)

    play(tmp_path, story, make)


def test_a_worker_that_has_not_answered_gets_nothing_more_and_its_time_runs_on(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        reader, writer = await stage.warm()
        waiting = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2", timeout_s=600.0)))
        await answer(reader)
        for asking_reader, asking_writer in ((reader, writer), await stage.connect()):
            asking_writer.write(NEXT)
            assert await answer(asking_reader) == (403, runtime.NOT_ALLOWED)
        worker = stage.dispatcher.worker_of(stage.runs.started[0])
        assert worker is not None
        assert worker.flight is not None
        assert worker.flight.timer is not None
        assert not worker.flight.timer.cancelled()
        writer.write(post("r2", b"2"))
        assert (await waiting).payload == b"2"

    play(tmp_path, story)


def test_an_order_whose_connection_broke_is_lost_and_the_next_keeps_its_time_out(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        _, writer = await stage.warm()
        lost = asyncio.create_task(stage.dispatcher.invoke(stage.order("r2")))
        worker = stage.dispatcher.worker_of(stage.runs.started[0])
        await until(lambda: worker is not None and worker.flight is not None)
        writer.close()
        await until(lambda: worker is not None and worker.may_ask)
        reader, writer = await stage.connect()
        writer.write(NEXT)
        assert (await lost).lost
        await until(lambda: worker is not None and worker.idle)
        late = asyncio.create_task(stage.dispatcher.invoke(stage.order("r3", timeout_s=0.01)))
        assert (await answer(reader))[0] == 200
        assert b"Sandbox.Timedout" in (await asyncio.wait_for(late, 60)).payload

    play(tmp_path, story)


def test_workers_end_with_the_server_but_for_those_whose_order_is_written_down(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.warm()
        stage.dispatcher.begin(stage.order("r2", key="k", function="kept"))
        reader, writer = await stage.connect(1)
        writer.write(NEXT)
        await answer(reader)
        heard = asyncio.create_task(stage.dispatcher.invoke(stage.order("r3", function="g")))
        reader, writer = await stage.connect(2)
        writer.write(NEXT)
        await answer(reader)
        stage.dispatcher.leave()
        ended, kept, asked = stage.runs.started
        await until(lambda: not {ended, asked} & stage.runs.states.keys())
        assert stage.runs.states[kept].phase == RUNNING
        await heard

    play(tmp_path, story)


def test_a_desk_closes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(tmp_path)
    desk = Desk(stage.dispatcher, tmp_path)
    desk.start()
    front = handout.connect(tmp_path / "invoke.sock")
    front.sendall(message(stage.order()))
    worker = handout.connect(tmp_path / "functions.sock")
    with front, worker, socket.create_server(("127.0.0.1", 0)) as listening:
        deadline = time.monotonic() + 60
        while not stage.runs.started and time.monotonic() < deadline:
            time.sleep(0.001)
        handout.send(worker, {"run": stage.runs.started[0], "kind": "listen"}, [listening.fileno()])
        with socket.create_connection(listening.getsockname()) as calling, handout.connect(tmp_path / "invoke.sock") as idle:
            calling.settimeout(60)
            calling.sendall(NEXT)
            assert calling.recv(100).startswith(b"HTTP/1.1 200")
            idle.sendall(b"\0")
            desk.close()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
