"""The one writer and the way of fronts to it: what fails alone, what survives a restart, what an operator is told."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from penstock import Refused
from penstock.store import changes, documents, frames, schema
from penstock.store.objects import Listing
from penstock.store.records import (
    Change,
    Document,
    ObjectPut,
    ObjectQuery,
    ObjectRow,
    Query,
    Stale,
    StoreFailed,
    Taken,
    Unavailable,
)
from penstock.store.remote import RemoteWriter, WriterServer
from penstock.store.sqlite import SqliteReads, SqliteStore
from penstock.store.writer import Writer


def doc(name: str = "a", **members: Any) -> Document:
    return Document(kind="k", account="1", region="r", name=name, **members)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer(path)
    yield writer
    writer.close()


@pytest.fixture
def store(path: Path, writer: Writer) -> Iterator[SqliteStore]:
    store = SqliteStore(path, writer)
    yield store
    store.close()


class Engine:
    """The engine's end of the socket, which a test may take away and bring back."""

    def __init__(self, folder: Path):
        self.database, self.socket = folder / "state.db", folder / "writer.sock"
        self.up()

    def up(self) -> None:
        self.writer = Writer(self.database)
        self.server = WriterServer(self.writer, self.socket)
        self.server.start()

    def down(self) -> None:
        self.server.close()
        self.writer.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.down()


@pytest.fixture
def front(engine: Engine) -> Iterator[SqliteStore]:
    front = SqliteStore(engine.database, RemoteWriter(engine.socket))
    yield front
    front.close()


def held(writer: Writer) -> tuple[threading.Event, threading.Event]:
    """Holds the writer inside a transaction: (it is inside, let it go)."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(run: Any) -> None:
        inside.set()
        assert go_on.wait(10)

    writer.run(wait, durable=False)
    assert inside.wait(10)
    return inside, go_on


# --- group commit


def test_changes_that_wait_together_are_one_transaction(store: SqliteStore, writer: Writer, path: Path) -> None:
    _, go_on = held(writer)
    futures = [store.submit(Change(puts=[doc(f"n{i}")])) for i in range(50)]
    seen: list[int] = []
    writer.run(lambda run: seen.append(SqliteReads(path).count(Query(kind="k"))), durable=False)
    go_on.set()
    for future in futures:
        future.result(10)
    assert seen == [0]  # none was visible before all were
    assert store.count(Query(kind="k")) == 50


def test_in_one_transaction_the_stale_and_the_taken_fail_alone(store: SqliteStore, writer: Writer) -> None:
    store.commit(Change(puts=[doc("taken")]))
    _, go_on = held(writer)
    given = [
        [doc("a")],
        [doc("b"), doc("taken")],
        [doc("c")],
        [doc("taken", version=9)],
        [doc("d", body={"x": object()})],
    ]
    futures = [store.submit(Change(puts=puts)) for puts in given]
    go_on.set()
    assert [type(future.exception(10)) for future in futures] == [type(None), Taken, type(None), Stale, TypeError]
    assert [found.name for found in store.page(Query(kind="k", order="name"))] == ["a", "c", "taken"]


def test_a_change_sees_what_an_earlier_one_of_its_transaction_wrote(store: SqliteStore, writer: Writer) -> None:
    _, go_on = held(writer)
    first, second = store.submit(Change(puts=[doc()])), store.submit(Change(puts=[doc()]))
    go_on.set()
    assert first.exception(10) is None
    assert isinstance(second.exception(10), Taken)


def test_a_full_disk_fails_the_change_that_needs_it_and_the_writer_goes_on(store: SqliteStore, writer: Writer) -> None:
    store.commit(Change(puts=[doc("before")]))
    pages = writer.run(lambda run: run("PRAGMA page_count").fetchone()[0], durable=False).result(10)
    writer.run(lambda run: run(f"PRAGMA max_page_count = {pages + 4}").fetchall(), durable=False).result(10)
    _, go_on = held(writer)
    small = store.submit(Change(puts=[doc("small")]))
    large = store.submit(Change(puts=[doc("large", body={"x": "y" * 1_000_000})]))
    other = store.submit(Change(puts=[doc("other")]))
    go_on.set()
    with pytest.raises(StoreFailed, match="full"):
        large.result(10)
    assert (small.exception(10), other.exception(10)) == (None, None)
    assert [found.name for found in store.page(Query(kind="k", order="name"))] == ["before", "other", "small"]


def test_a_locked_database_fails_the_change_and_the_writer_goes_on(path: Path) -> None:
    writer = Writer(path)
    writer.run(lambda run: None, durable=False).result(10)
    writer._connection.execute("PRAGMA busy_timeout = 20")
    intruder = sqlite3.connect(path, isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailed, match="locked"):
        writer.commit(Change(puts=[doc()]))
    intruder.execute("ROLLBACK")
    intruder.close()
    writer.commit(Change(puts=[doc()]))
    writer.close()


def test_close_commits_what_waits_and_then_nothing_more(path: Path) -> None:
    writer = Writer(path)
    _, go_on = held(writer)
    futures = [writer.submit(Change(puts=[doc(f"n{i}")])) for i in range(10)]
    go_on.set()
    writer.close()
    assert all(future.exception(0) is None for future in futures)
    with pytest.raises(StoreFailed, match="closed"):
        writer.submit(Change(puts=[doc()]))


def test_a_commit_can_be_awaited(store: SqliteStore) -> None:
    async def main() -> None:
        await store.commit_async(Change(puts=[doc()]))
        with pytest.raises(Taken):
            await store.commit_async(Change(puts=[doc()]))

    asyncio.run(main())


# --- reads


def test_a_listing_of_folders_reads_a_few_rows_of_each(store: SqliteStore, path: Path) -> None:
    rows = [ObjectPut(row=ObjectRow(bucket="b", key=f"{folder:02}/{i:04}")) for folder in range(20) for i in range(500)]
    store.commit(Change(rows=list(rows)))
    read = 0

    def counting(text: str, values: Any = ()) -> Any:
        def counted() -> Iterator[Any]:
            nonlocal read
            for row in cursor:
                read += 1
                yield row

        cursor = connection.execute(text, values)
        rows = counted()
        return type("Rows", (), {"__iter__": lambda self: rows, "close": lambda self: cursor.close()})()

    connection = sqlite3.connect(path)
    page = Listing(counting, ObjectQuery(bucket="b", delimiter="/")).read()
    connection.close()
    assert len(page.prefixes) == 20
    assert read <= 20


PAGES = [
    Query(kind="k", account="1", region="r", order=order, descending=True, after=(1.0, "x"), **filters)
    for order in ("created", "updated", "name")
    for filters in ({}, {"parent": "p"})
] + [
    Query(kind="k", account="1", region="r", order="created", after=(1.0, "x"), status="S"),
    Query(kind="k", account="1", region="r", order="created", after=(1.0, "x"), label="L"),
    Query(kind="k", account="1", region="r", order="created", after=(1.0, "x"), label="L", parent="p"),
    Query(kind="k", account="1", region="r", order="created", after=(1.0, "x"), status="S", parent="p"),
    Query(kind="k", account="1", region="r", order="rank", after=(1.0, "x"), parent="p"),
]


@pytest.mark.parametrize("query", PAGES, ids=repr)
def test_a_page_is_a_range_of_an_index_and_is_not_sorted(store: SqliteStore, path: Path, query: Query) -> None:

    connection = sqlite3.connect(path)
    text, values = documents.page(query)
    plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values))
    connection.close()
    assert "USING INDEX" in plan
    assert "TEMP B-TREE" not in plan
    assert "region=?" in plan


def test_each_thread_reads_on_a_connection_of_its_own_and_close_closes_them(path: Path, writer: Writer) -> None:
    reads = SqliteReads(path)
    writer.commit(Change(puts=[doc()]))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(reads.get(doc().ref))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [d.version for d in found] == [1] * 4
    assert reads.get(doc().ref) is not None
    reads.close()
    with pytest.raises(sqlite3.ProgrammingError):
        reads.get(doc().ref)


def test_reads_cannot_write(store: SqliteStore) -> None:
    assert store.count(Query(kind="k")) == 0
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._run("DELETE FROM documents", {})


def test_only_the_owner_may_read_the_database(store: SqliteStore, path: Path) -> None:
    store.commit(Change(puts=[doc()]))
    files = sorted(path.parent.glob("state.db*"))
    assert [file.name for file in files] == ["state.db", "state.db-shm", "state.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


# --- the schema


def test_a_database_of_a_newer_penstock_is_refused(path: Path) -> None:
    Writer(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = '9999' WHERE name = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(Refused, match=r"newer Penstock \(schema 9999; .*upgrade Penstock"):
        Writer(path)


def test_a_database_is_brought_up_step_by_step(path: Path) -> None:
    first = [(1, "CREATE TABLE a (x TEXT); -- with a comment\nCREATE TABLE b (x TEXT);\n")]
    second = [*first, (2, "ALTER TABLE a ADD COLUMN y TEXT;\nINSERT INTO a VALUES ('1;2', 'z');\n-- the end\n")]
    connection = sqlite3.connect(path, isolation_level=None)
    assert [schema.migrate(connection, steps) for steps in (first, first, second, second)] == [1, 1, 2, 2]
    assert connection.execute("SELECT * FROM a").fetchall() == [("1;2", "z")]
    connection.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    schema.migrate(connection, [(1, "CREATE TABLE a (x TEXT);")])
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, [(1, ""), (2, "CREATE TABLE b (x TEXT);\nCREATE TABLE a (x TEXT);")])
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"meta", "a"}
    connection.close()


def test_the_numbers_of_the_migrations_have_no_gaps() -> None:
    assert [number for number, _ in schema.steps("sqlite")] == list(range(1, len(schema.steps("sqlite")) + 1))


# --- through the socket


def test_only_the_owner_may_open_the_socket(engine: Engine) -> None:
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o600


def test_a_path_too_long_for_an_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    engine = Engine(folder)
    front = RemoteWriter(engine.socket)
    front.commit(Change(puts=[doc()]))
    front.close()
    engine.down()


def test_every_front_is_told_of_a_changes_topics_once_it_is_durable(engine: Engine, front: SqliteStore) -> None:
    other = RemoteWriter(engine.socket)
    told: list[list[str]] = []
    something = threading.Semaphore(0)

    def hear(topics: Any) -> None:
        told.append(list(topics))
        something.release()

    other.hear(hear)
    other.commit(Change(puts=[doc("b")]))
    assert something.acquire(timeout=60)  # connected: it may have missed what came before
    front.commit(Change(puts=[doc()], tells=["queue"]))
    assert something.acquire(timeout=60)
    with pytest.raises(Taken):
        front.commit(Change(puts=[doc()], tells=["nothing"]))
    engine.down()
    engine.up()
    assert something.acquire(timeout=60)  # after a break
    other.close()
    assert told == [[""], ["queue"], [""]]


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_front_awaits_its_commits_in_its_own_loop(engine: Engine, runner: Any) -> None:
    async def main() -> None:
        front = RemoteWriter(engine.socket)
        given = [doc(f"n{i}") for i in range(100)]
        await asyncio.gather(*(front.commit_async(Change(puts=[one])) for one in given))
        assert {one.version for one in given} == {1}
        with pytest.raises(Taken) as caught:
            await front.commit_async(Change(puts=[doc("n1")]))
        assert caught.value.ref == doc("n1").ref
        await asyncio.to_thread(front.commit, Change(puts=[doc("from a thread")]))
        front.close()

    threads = threading.active_count()
    runner(main())
    assert threading.active_count() <= threads + 1  # the engine's end of the connection, maybe still


def test_a_cancelled_await_does_not_disturb_the_others(engine: Engine) -> None:
    async def main() -> None:
        front = RemoteWriter(engine.socket)
        _, go_on = held(engine.writer)
        waiting = asyncio.ensure_future(front.commit_async(Change(puts=[doc("a")])))
        other = asyncio.ensure_future(front.commit_async(Change(puts=[doc("b")])))
        await asyncio.sleep(0)
        waiting.cancel()
        go_on.set()
        await other
        front.close()

    asyncio.run(main())


def test_a_change_waits_while_the_engine_restarts(engine: Engine, front: SqliteStore) -> None:
    front.commit(Change(puts=[doc("before")]))
    engine.down()
    future = front.submit(Change(puts=[doc("meanwhile")]))
    assert not future.done()
    engine.up()
    future.result(10)
    assert front.count(Query(kind="k")) == 2


def test_a_front_that_is_there_first_waits_for_the_engine(tmp_path: Path) -> None:
    front = RemoteWriter(tmp_path / "writer.sock")
    future = front.submit(Change(puts=[doc()]))
    engine = Engine(tmp_path)
    future.result(10)
    front.close()
    engine.down()


def test_an_engine_that_stays_away_is_unavailable(tmp_path: Path) -> None:
    front = RemoteWriter(tmp_path / "writer.sock", patience_s=0.1)
    with pytest.raises(Unavailable, match=r"within 0\.1 s"):
        front.submit(Change(puts=[doc()])).result(10)
    front.close()


def test_an_engine_that_does_not_answer_is_unavailable(engine: Engine) -> None:
    front = RemoteWriter(engine.socket, patience_s=0.1)
    _, go_on = held(engine.writer)
    with pytest.raises(Unavailable):
        front.submit(Change(puts=[doc()])).result(10)
    go_on.set()
    front.close()


def test_a_change_sent_again_after_a_lost_answer_is_not_applied_again(engine: Engine, front: SqliteStore) -> None:
    """The connection is cut after the writer took the change and before it answered."""
    front.commit(Change(puts=[doc("first")]))
    _, go_on = held(engine.writer)
    given = doc("once")
    future = front.submit(Change(puts=[given]))
    while engine.writer._jobs.qsize() < 1:  # until the change has arrived
        time.sleep(0.001)
    for link in list(engine.server._links):
        link.drop()
        link.thread.join(10)
    go_on.set()
    future.result(10)  # Taken, if the second sending had been applied
    assert given.version == 1
    found = front.get(given.ref)
    assert found is not None
    assert found.version == 1


def test_an_id_seen_is_forgotten_after_a_while(path: Path) -> None:
    moment = [1000.0]
    writer = Writer(path, lambda: moment[0])
    reads = SqliteReads(path)

    def send(name: str, change_id: str) -> None:
        done: Future[None] = Future()
        writer.submit_once(Change(puts=[doc(name)]), change_id, lambda _, error: done.set_result(None), lambda: None)
        done.result(10)

    send("a", "x:1")
    moment[0] += 2000
    send("b", "x:2")
    kept = [row[0] for row in reads._run("SELECT id FROM recent_changes", {})]
    assert kept == ["x:2"]
    reads.close()
    writer.close()


def test_a_malformed_change_is_answered_and_harms_nobody(engine: Engine, front: SqliteStore) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(engine.socket))
        stranger.sendall(frames.frame(0, "stranger") + frames.frame(7, {"puts": "nonsense"}))
        ((number, body),) = frames.Frames().feed(stranger.recv(65536))
        error = frames.outcome(body)
    assert number == 7
    assert isinstance(error, StoreFailed)
    assert "malformed" in str(error)
    front.commit(Change(puts=[doc()]))


def test_what_speaks_something_else_is_hung_up_on(engine: Engine, front: SqliteStore) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(engine.socket))
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stranger.recv(1) == b""
    front.commit(Change(puts=[doc()]))


def test_a_change_too_large_for_a_frame_is_told_before_it_is_sent(front: SqliteStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES", 1000)
    with pytest.raises(ValueError, match="too large"):
        front.commit(Change(puts=[doc(body={"x": "y" * 2000})]))
    front.commit(Change(puts=[doc()]))


def test_a_closed_front_fails_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    front = RemoteWriter(tmp_path / "writer.sock")
    future = front.submit(Change(puts=[doc()]))
    front.close()
    with pytest.raises(Unavailable, match="closed"):
        future.result(10)
    with pytest.raises(Unavailable, match="closed"):
        front.submit(Change(puts=[doc()]))


def test_frames_are_cut_wherever_the_stream_is() -> None:
    stream = b"".join(frames.frame(i, "x" * i) for i in range(1, 20))
    cutter, found = frames.Frames(), []
    for at in range(0, len(stream), 7):
        found += [(number, msgspec.msgpack.decode(body)) for number, body in cutter.feed(stream[at : at + 7])]
    assert found == [(i, "x" * i) for i in range(1, 20)]


def test_every_row_of_a_change_survives_the_socket() -> None:
    given = Change(
        puts=[doc(body={"moment": 1.5, "list": [1, None, True]})],
        rows=[ObjectPut(row=ObjectRow(bucket="b", key="k", inline=os.urandom(100)), if_none_match=True)],
    )
    ((_, body),) = frames.Frames().feed(bytes(frames.frame(1, given)))
    assert msgspec.msgpack.decode(body, type=Change) == given


def test_counting_up_is_for_puts_only() -> None:
    seen, put = doc("seen", version=3), doc("put", version=3)
    changes.count_up(Change(reads=[seen], puts=[put]))
    assert (seen.version, put.version) == (3, 4)
