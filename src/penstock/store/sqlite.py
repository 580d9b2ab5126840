"""The store on SQLite, of the standard library: reads on connections of their own, writes through the one writer.

A reader never waits for the writer (write-ahead log), so a short read may run inside a front's event loop.
Open it after a fork, never before: SQLite's connections do not survive one.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import urllib.parse
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec

from penstock.store import changes, documents, objects, series, work
from penstock.store.records import (
    Change,
    Document,
    Event,
    ObjectPage,
    ObjectQuery,
    ObjectRow,
    Query,
    Ref,
    UploadPart,
    Wake,
)
from penstock.store.statements import Run
from penstock.store.writer import BUSY_S, Job, Writer, counted

_result = msgspec.json.Decoder(dict[str, object])


class _Reader:
    """A thread's reading connection; closed with its thread."""

    def __init__(self, path: str | Path):
        name = urllib.parse.quote(str(Path(path).absolute()))
        self.connection = sqlite3.connect(
            f"file:{name}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False,
            cached_statements=256,
        )  # fmt: skip
        for pragma in ("query_only = ON", "mmap_size = 268435456", "temp_store = MEMORY"):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()


class SqliteReads:
    """The reading half of a Store: one read-only connection a thread, opened at its first question."""

    def __init__(self, path: str | Path, now: Callable[[], float] = time.time):
        self._path, self._now = path, now
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def _run(self) -> Run:
        try:
            run: Run = self._local.run
        except AttributeError:
            reader = _Reader(self._path)
            with self._lock:
                self._readers.add(reader)
            self._local.reader, self._local.run = reader, reader.connection.execute
            run = self._local.run
        return run

    def close(self) -> None:
        """Closes the connections of all threads."""
        with self._lock:
            for reader in self._readers:
                reader.connection.close()

    # --- documents
    def get(self, ref: Ref) -> Document | None:
        row = self._run(documents.GET, documents.values(ref)).fetchone()
        return documents.document(row) if row else None

    def by_arn(self, arn: str) -> Document | None:
        row = self._run(documents.BY_ARN, {"arn": arn}).fetchone()
        return documents.document(row) if row else None

    def page(self, query: Query) -> list[Document]:
        return [documents.document(row) for row in self._run(*documents.page(query)).fetchall()]

    def count(self, query: Query) -> int:
        return int(self._run(*documents.count(query)).fetchone()[0])

    def statuses(self, kind: str, account: str, region: str, names: Sequence[str]) -> dict[str, str]:
        return dict(self._run(*documents.statuses(kind, account, region, names)).fetchall()) if names else {}

    def latest(self, kind: str, account: str, region: str, parents: Sequence[str]) -> dict[str, float]:
        rows = self._run(*documents.latest(kind, account, region, parents)).fetchall() if parents else []
        return {parent: created for parent, created in rows if created is not None}

    def tags(self, arn: str) -> dict[str, str]:
        return dict(self._run(documents.TAGS, {"arn": arn}).fetchall())

    def tagged(self, account: str, region: str) -> dict[str, dict[str, str]]:
        return documents.tagged(self._run, account, region)

    def token(self, account: str, region: str, operation: str, token: str) -> tuple[str, dict[str, object]] | None:
        given = {"account": account, "region": region, "operation": operation, "token": token, "now": self._now()}
        row = self._run(documents.ANSWER, given).fetchone()
        return (row[0], _result.decode(row[1])) if row else None

    # --- objects
    def object(self, bucket: str, key: str, version_id: str | None = None) -> ObjectRow | None:
        text = objects.LATEST if version_id is None else objects.VERSION
        row = self._run(text, {"bucket": bucket, "key": key, "version_id": version_id}).fetchone()
        return objects.object_row(row) if row else None

    def objects(self, query: ObjectQuery) -> ObjectPage:
        return objects.Listing(self._run, query).read()

    def upload_parts(self, upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]:
        rows = self._run(objects.PARTS, {"upload_id": upload_id, "after": after, "limit": limit}).fetchall()
        return [objects.upload_part(row) for row in rows]

    def blob_used(self, sha256: str) -> bool:
        return bool(self._run(objects.BLOB_USED, {"sha256": sha256}).fetchone()[0])

    # --- series
    def points(self, series_name: str, after: float = 0.0, limit: int = 10_000) -> list[tuple[float, float, float]]:
        rows = self._run(series.POINTS, {"series": series_name, "after": after, "limit": limit}).fetchall()
        return [series.point(row) for row in rows]

    def series(self, prefix: str) -> list[str]:
        return series.series_names(self._run, prefix)

    def oldest(self, what: str) -> float | None:
        row = self._run(series.OLDEST[what]).fetchone()
        return float(row[0]) if row else None

    def events(self, after: int, limit: int = 1000) -> list[Event]:
        return [series.event(row) for row in self._run(series.EVENTS, {"after": after, "limit": limit}).fetchall()]

    # --- work
    def due(self, ref: Ref) -> float | None:
        row = self._run(work.DUE, documents.values(ref)).fetchone()
        return row[0] if row else None

    def next_due(self) -> float | None:
        """When the next wake can be claimed."""
        moment: float | None = self._run(work.NEXT_DUE, {}).fetchone()[0]
        return moment


class Submits(Protocol):
    """Where changes go: a Writer in this process, or a RemoteWriter to another's."""

    def submit(self, change: Change) -> Future[None]: ...
    def commit_async(self, change: Change) -> Awaitable[None]: ...
    def hear(self, heard: Callable[[Sequence[str]], None]) -> None: ...
    def close(self) -> None: ...


class SqliteStore(SqliteReads):
    """A Store: reads of its own, and a writer that it closes in the end."""

    def __init__(self, path: str | Path, writer: Submits, now: Callable[[], float] = time.time):
        super().__init__(path, now)
        self.writer = writer

    def submit(self, change: Change) -> Future[None]:
        return self.writer.submit(change)

    def commit(self, change: Change) -> None:
        self.writer.submit(change).result()

    def commit_async(self, change: Change) -> Awaitable[None]:
        return self.writer.commit_async(change)

    def hear(self, heard: Callable[[Sequence[str]], None]) -> None:
        self.writer.hear(heard)

    def close(self) -> None:
        self.writer.close()
        super().close()


class SqliteWork:
    """The Work of a database, beside its Writer: claims and finishes join the same transactions as the changes."""

    def __init__(self, reads: SqliteReads, writer: Writer, now: Callable[[], float] = time.time):
        self._reads, self._writer, self._now = reads, writer, now

    def claim(self, now: float, lease_s: float, limit: int) -> list[Wake]:
        return self._writer.run(lambda run: work.claim(run, now, lease_s, limit), durable=False).result()

    def finish(self, wake: Wake, again: float | None, change: Change) -> Future[None]:
        def apply(run: Run) -> None:
            changes.apply(run, change, self._now())
            work.finish(run, wake, again)

        return self._given_back(apply, change)

    def retry(self, wake: Wake, again: float) -> Future[None]:
        return self._given_back(lambda run: work.finish(run, wake, again, wake.tries), Change())

    def due(self, ref: Ref) -> float | None:
        return self._reads.due(ref)

    def next_due(self) -> float | None:
        return self._reads.next_due()

    def attend(self, offer: Callable[[], tuple[float, float, int]], taken: Callable[[list[Wake], float | None], None]) -> None:
        def ride(run: Run) -> tuple[list[Wake], float | None]:
            due: float | None = run(work.NEXT_DUE, {}).fetchone()[0]
            now, lease_s, limit = offer()
            if due is None or due > now or limit <= 0:
                return [], due
            wakes = work.claim(run, now, lease_s, limit)
            return wakes, run(work.NEXT_DUE, {}).fetchone()[0]

        self._writer.take_along(ride, lambda brought: taken(*brought))

    def release_all(self) -> None:
        self._writer.run(lambda run: run(work.RELEASE_ALL, {}).rowcount, durable=True).result()

    def _given_back(self, apply: Callable[[Run], Any], change: Change) -> Future[None]:
        """Without a change, losing it to a crash costs one more look, so it does not wait for the disk."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        settle = counted(change, future)
        self._writer.put(Job(apply, settle, durable=bool(change), wakes=True, tells=change.tells))
        return future
