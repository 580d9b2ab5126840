"""The one writer of a SQLite database: a thread that commits, in one transaction, whatever waits together.

Where a job is Stale, Taken or Unmet, the others run once more, each inside a savepoint, so that it fails alone; a job is told
of its outcome only after the transaction is durable. What needs no durability (claims: a restart releases them all) waits for no disk.
A rider goes with each transaction that has to do with wakes: what they make due is claimed in the transaction that brings them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from penstock import Refused
from penstock.store import changes
from penstock.store.records import Change, StoreFailed
from penstock.store.schema import migrate
from penstock.store.statements import Run

TOGETHER = 256
"""Jobs in one transaction at most: what comes later waits for the next."""
REMEMBERED_S = 900.0
"""How long the id of a change is kept: far longer than anybody sends it again."""
BUSY_S = 5.0
ASK_DOCTOR = "`penstock doctor` says what to do."
T = TypeVar("T")
Settle = Callable[[Any, Exception | None], None]


class Job:
    """Something to run in a transaction, and whom to tell: `settle(result, error)`, then `flush()` once for all."""

    __slots__ = ("apply", "durable", "error", "flush", "result", "settle", "tells", "wakes")

    def __init__(
        self, apply: Callable[[Run], Any], settle: Settle, *, durable: bool = True, wakes: bool = False,
        flush: Callable[[], None] | None = None, tells: Sequence[str] = (),
    ):  # fmt: skip
        self.apply, self.settle, self.durable, self.wakes, self.flush = apply, settle, durable, wakes, flush
        self.tells = tells
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Owns the writing connection. Safe to call from any thread; opening it migrates the schema.

    Raises: Refused, when a newer Penstock wrote the database.
    """

    def __init__(self, path: str | Path, now: Callable[[], float] = time.time):
        self._now = now
        self._connection = open_writing(path)
        self._sync = True
        self._ride: Callable[[Run], Any] | None = None
        self._rode: Callable[[Any], None] = _nobody
        self._brought: list[Any] = []
        self._hearers: list[Callable[[Sequence[str]], None]] = []
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._forgotten = now()
        self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
        self._thread.start()

    # --- asking
    def submit(self, change: Change) -> Future[None]:
        """Commits the change durably; see Store.submit."""
        future = _future()
        settle = counted(change, future)
        wakes = bool(change.wakes)
        self.put(Job(lambda run: changes.apply(run, change, self._now()), settle, wakes=wakes, tells=change.tells))
        return future

    def commit(self, change: Change) -> None:
        self.submit(change).result()

    def commit_async(self, change: Change) -> Awaitable[None]:
        """The same, awaited."""
        return asyncio.wrap_future(self.submit(change))

    def submit_once(self, change: Change, change_id: str, settle: Settle, flush: Callable[[], None]) -> None:
        """Commits a change that may have been sent before, telling `settle` of the outcome from the writer's thread."""
        self.put(
            Job(
                lambda run: changes.apply_once(run, change, self._now(), change_id), settle,
                wakes=bool(change.wakes), flush=flush, tells=change.tells,
            )
        )  # fmt: skip

    def run(self, apply: Callable[[Run], T], *, durable: bool) -> Future[T]:
        """Runs anything in a transaction; the future has its result."""
        future: Future[T] = _future()
        self.put(Job(apply, _told(future), durable=durable))
        return future

    def put(self, job: Job) -> None:
        """Queues a job.

        Raises: StoreFailed, when the writer is closed.
        """
        with self._lock:
            if self._closed:
                raise StoreFailed("the store is closed")
            self._jobs.put(job)

    def take_along(self, ride: Callable[[Run], T], rode: Callable[[T], None]) -> None:
        """`ride` runs at the end of each transaction that has to do with wakes, in it; `rode` is called with what it gave, once
        that is committed and its jobs were told, in the writer's thread: both must be quick."""
        self._ride, self._rode = ride, rode

    def hear(self, heard: Callable[[Sequence[str]], None]) -> None:
        """`heard` is called in the writer's thread with the topics of each transaction: it must be quick."""
        self._hearers.append(heard)

    def close(self) -> None:
        """Commits what waits, then lets go of the database."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- the writer's thread
    def _loop(self) -> None:
        last = False
        while not last:
            waiting = [self._jobs.get()]
            while waiting[-1] is not None and len(waiting) < TOGETHER:
                try:
                    waiting.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            last = waiting[-1] is None
            if jobs := [job for job in waiting if job is not None]:
                self._commit(jobs)
                self._tell(jobs)
        self._connection.close()

    def _commit(self, jobs: list[Job], alone: bool = False) -> None:
        """One transaction of all jobs; of those of which one fails again with a savepoint each; when the database cannot take
        it, one for each: only the culprit fails.

        Takes: `alone`, whether each has a savepoint.
        """
        run = self._connection.execute
        began = False
        try:
            self._sync_if(any(job.durable for job in jobs))
            run("BEGIN IMMEDIATE")
            began = True
            for job in jobs:
                self._attempt(job, alone)
                if job.error and not alone:
                    run("ROLLBACK")
                    return self._commit(jobs, True) if len(jobs) > 1 else None
            brought = [self._ride(run)] if self._ride and any(job.wakes for job in jobs) else []
            self._forget_old()
            run("COMMIT")
            self._brought += brought
            return
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    run("ROLLBACK")
            failed = StoreFailed(str(error))
        if began and len(jobs) > 1:
            for job in jobs:
                self._commit([job])
            return
        for job in jobs:
            job.result, job.error = None, failed

    def _attempt(self, job: Job, alone: bool) -> None:
        """Runs one job, in a savepoint where it is to fail alone.

        Raises: sqlite3.Error, when the whole transaction is lost.
        """
        run = self._connection.execute
        job.error = None
        if alone:
            run("SAVEPOINT job")
        try:
            job.result = job.apply(run)
        except Exception as error:  # whatever it is, it is the asker's, and the writer goes on
            if not self._connection.in_transaction:
                raise
            job.error = StoreFailed(str(error)) if isinstance(error, sqlite3.Error) else error
            if alone:
                run("ROLLBACK TO job")
        if alone:
            run("RELEASE job")

    def _tell(self, jobs: list[Job]) -> None:
        flushes = dict.fromkeys(job.flush for job in jobs if job.flush)
        for job in jobs:
            job.settle(job.result, job.error)
        for flush in flushes:
            flush()
        brought, self._brought = self._brought, []
        for each in brought:
            self._rode(each)
        if topics := list(dict.fromkeys(topic for job in jobs if job.error is None for topic in job.tells)):
            for told in self._hearers:
                told(topics)

    def _sync_if(self, durable: bool) -> None:
        if durable != self._sync:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._sync = durable

    def _forget_old(self) -> None:
        now = self._now()
        if now - self._forgotten > REMEMBERED_S / 10:
            self._forgotten = now
            changes.forget(self._connection.execute, now - REMEMBERED_S)


def _nobody(brought: Any) -> None:
    pass


def counted(change: Change, future: Future[None]) -> Settle:
    """Tells the caller's records of their new versions, then the future of the outcome."""

    def settle(_: Any, error: Exception | None) -> None:
        if error is None:
            changes.count_up(change)
            future.set_result(None)
        else:
            future.set_exception(error)

    return settle


def _told(future: Future[Any]) -> Settle:
    def settle(result: Any, error: Exception | None) -> None:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    return settle


def _future() -> Future[Any]:
    """A future that cannot be cancelled: once queued, a change is written."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def open_writing(path: str | Path) -> sqlite3.Connection:
    """The writing connection: write-ahead log, synced at each commit, schema up to date, readable by its owner only.

    Raises: Refused for a database that is locked, damaged, read-only, or of a newer Penstock.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as fault:
        raise Refused(f"{path} cannot be written: {fault.strerror}. {ASK_DOCTOR}") from None
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    try:
        for pragma in (
            "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = OFF",
            "temp_store = MEMORY", "mmap_size = 268435456", "cache_size = -16000", "wal_autocheckpoint = 2000",
            "journal_size_limit = 67108864",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}").fetchall()
        migrate(connection)
    except sqlite3.DatabaseError as fault:
        connection.close()
        raise Refused(f"The database {path} cannot be opened: {fault}. {ASK_DOCTOR}") from None
    except BaseException:
        connection.close()
        raise
    return connection
