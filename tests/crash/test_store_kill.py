"""kill -9 of the process that writes, at random moments: nothing acknowledged is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.kernel.call import Call
from penstock.kernel.clock import SystemClock
from penstock.kernel.engine import Engine
from penstock.store.records import Change, Document, Event, Query, Stale, Wake
from penstock.store.remote import RemoteWriter, WriterServer
from penstock.store.sqlite import SqliteReads, SqliteStore, SqliteWork
from penstock.store.writer import Writer

DOCUMENTS, STEPS, KILLS = 300, 5, 6


def doc(name: str, **members: Any) -> Document:
    return Document(kind="k", account="1", region="r", name=name, **members)


# --- the child: an engine process


@dataclass
class SmallCall:
    now: float
    change: Change = field(default_factory=Change)
    afterwards: list[Any] = field(default_factory=list)


def step(call: Call, document: Document) -> float | None:
    """One effect a step, in the transaction that counts it; the work in between gives a kill room to strike."""
    time.sleep(random.random() * 0.002)
    n = document.body["n"] = document.body.get("n", 0) + 1
    call.change.puts.append(document)
    call.change.events.append(
        Event(id=f"{document.name}:{n}", source="s", detail_type="d", account="1", region="r", time=call.now)
    )
    return 0.0 if n < STEPS else None


def live(folder: Path) -> None:
    """An engine that serves fronts and runs steps until it is killed."""
    writer = Writer(folder / "state.db")
    store = SqliteStore(folder / "state.db", writer)
    WriterServer(writer, folder / "writer.sock").start()
    work = SqliteWork(store, writer)
    engine = Engine({"k": step}, store, work, SystemClock(), lambda d, now: cast(Call, SmallCall(now)))
    engine.start()
    print("up", flush=True)
    threading.Event().wait()


# --- the parent


class Child:
    """An engine process that is started, killed, and started again."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path)
    yield child
    child.kill()


def test_steps_of_a_killed_engine_go_on_and_take_effect_once(tmp_path: Path, child: Child) -> None:
    front = SqliteStore(tmp_path / "state.db", RemoteWriter(tmp_path / "writer.sock"))
    names = [f"n{i}" for i in range(DOCUMENTS)]
    wakes = [Wake(kind="k", account="1", region="r", name=name) for name in names]
    front.commit(Change(puts=[doc(name) for name in names], wakes=wakes))
    struck = 0
    for _ in range(KILLS):
        time.sleep(random.uniform(0.01, 0.12))
        child.kill()
        struck += front.next_due() is not None
        child.start()
    deadline = time.monotonic() + 120
    while front.next_due() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert struck > 0  # else nothing was tested
    assert {document.body["n"] for document in front.page(Query(kind="k", limit=1000))} == {STEPS}
    effects = Counter(event.id for event in front.events(0, limit=100_000))
    assert effects == Counter(f"{name}:{n}" for name in names for n in range(1, STEPS + 1))
    front.close()


def test_commits_acknowledged_by_a_killed_engine_are_there_and_none_is_doubled(tmp_path: Path, child: Child) -> None:
    """Sixteen writers of a front: each makes documents and counts them; an increment applied twice would show."""

    async def write(front: SqliteStore, writer: int, acknowledged: list[str], over: asyncio.Event) -> None:
        counter = doc(f"counter{writer}", body={"n": 0})
        await front.commit_async(Change(puts=[counter]))
        while not over.is_set():
            made = doc(f"{writer}:{counter.body['n']}")
            counter.body["n"] += 1
            await front.commit_async(Change(puts=[counter, made]))  # Stale or Taken, if it was applied twice
            acknowledged.append(made.name)

    async def main() -> list[str]:
        front = SqliteStore(tmp_path / "state.db", RemoteWriter(tmp_path / "writer.sock"))
        acknowledged: list[str] = []
        over = asyncio.Event()
        writers = [asyncio.create_task(write(front, n, acknowledged, over)) for n in range(16)]
        for _ in range(KILLS):
            before = len(acknowledged)
            async with asyncio.timeout(60):  # on a slow machine nothing is acknowledged within a moment
                while len(acknowledged) < before + 25:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0.02, 0.15))
            await asyncio.to_thread(child.kill)
            await asyncio.to_thread(child.start)
            assert len(acknowledged) >= before
        over.set()
        await asyncio.gather(*writers)
        front.close()
        return acknowledged

    acknowledged = asyncio.run(main())
    reads = SqliteReads(tmp_path / "state.db")
    there = {document.name: document for document in reads.page(Query(kind="k", limit=10_000_000))}
    counted = sum(document.body["n"] for name, document in there.items() if name.startswith("counter"))
    reads.close()
    assert len(acknowledged) > 100
    assert set(acknowledged) == {name for name in there if ":" in name}
    assert counted == len(acknowledged)


def test_a_front_of_threads_survives_the_same(tmp_path: Path, child: Child) -> None:
    front = SqliteStore(tmp_path / "state.db", RemoteWriter(tmp_path / "writer.sock"))
    front.commit(Change(puts=[doc("counter", body={"n": 0})]))
    done: list[int] = []

    def add(times: int) -> None:
        for _ in range(times):
            while True:
                found = front.get(doc("counter").ref)
                assert found is not None
                found.body["n"] += 1
                with contextlib.suppress(Stale):
                    front.commit(Change(puts=[found]))
                    break
            done.append(1)

    threads = [threading.Thread(target=add, args=(100,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(random.uniform(0.01, 0.05))
        child.kill()
        child.start()
    for thread in threads:
        thread.join(30)
    found = front.get(doc("counter").ref)
    front.close()
    assert found is not None
    assert (found.body["n"], len(done)) == (300, 300)


if __name__ == "__main__":
    live(Path(sys.argv[1]))
