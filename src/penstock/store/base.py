"""What a store promises. `StoreContract` in tests/contract holds every driver to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

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


class Store(Protocol):
    """Reads see every change whose commit was acknowledged before they began. Safe to call from several threads."""

    # --- reads; each under a millisecond at 100,000 rows
    def get(self, ref: Ref) -> Document | None: ...
    def by_arn(self, arn: str) -> Document | None: ...
    def page(self, query: Query) -> list[Document]:
        """At most `query.limit` documents; the caller asks for one more than it shows, to know if there are more."""
        ...

    def count(self, query: Query) -> int: ...
    def statuses(self, kind: str, account: str, region: str, names: Sequence[str]) -> dict[str, str]:
        """The status of each document of a kind with one of these names (at most 400), by name; nothing of one that is not there."""
        ...

    def latest(self, kind: str, account: str, region: str, parents: Sequence[str]) -> dict[str, float]:
        """When the newest document of a kind below each parent (at most 400 of them) was made; none for one without."""
        ...

    def tags(self, arn: str) -> dict[str, str]: ...
    def tagged(self, account: str, region: str) -> dict[str, dict[str, str]]:
        """The tags of every resource whose ARN names this account and region ("" for what has no region)."""
        ...

    def token(self, account: str, region: str, operation: str, token: str) -> tuple[str, dict[str, object]] | None:
        """(digest, result) of an idempotency token that has not expired, or None."""
        ...

    def object(self, bucket: str, key: str, version_id: str | None = None) -> ObjectRow | None:
        """The latest version (a delete marker too), or that version."""
        ...

    def objects(self, query: ObjectQuery) -> ObjectPage: ...
    def upload_parts(self, upload_id: str, after: int = 0, limit: int = 10_000) -> list[UploadPart]: ...
    def points(self, series: str, after: float = 0.0, limit: int = 10_000) -> list[tuple[float, float, float]]: ...
    def series(self, prefix: str) -> list[str]: ...
    def events(self, after: int, limit: int = 1000) -> list[Event]: ...
    def oldest(self, what: str) -> float | None:
        """The moment of the first of the "events" or "points" that is still there."""
        ...

    def blob_used(self, sha256: str) -> bool:
        """Whether an object or an upload's part points at the blob."""
        ...

    # --- writes
    def submit(self, change: Change) -> Future[None]:
        """Commits durably; the future raises Stale, Taken or Unmet, and then nothing of the change was written.
        It raises StoreFailed when the database cannot take it, and Unavailable when the writer is away for too long."""
        ...

    def commit(self, change: Change) -> None:
        """`submit(change).result()`."""
        ...

    def commit_async(self, change: Change) -> Awaitable[None]:
        """The same, awaited in an event loop: the way of fronts, which costs no thread switch."""
        ...

    def hear(self, heard: Callable[[Sequence[str]], None]) -> None:
        """`heard` is called (from any thread) with the `tells` of changes that became durable, of whatever process."""
        ...

    def close(self) -> None: ...


class Work(Protocol):
    """The durable wake-ups: only the engine process has this."""

    def claim(self, now: float, lease_s: float, limit: int) -> list[Wake]:
        """Due wakes that nobody holds, now leased (and tries counted up), the longest due first."""
        ...

    def finish(self, wake: Wake, again: float | None, change: Change) -> Future[None]:
        """Commits the step's change; in the same transaction gives the wake back, due at `again`, or removes it for
        None, unless somebody moved its due time meanwhile: then it stays, due at the earlier of both. For a wake that
        was not claimed (`leased` 0), that is so if the document's wake is still the one that is due at `wake.due`, unclaimed.
        The future raises Stale (and Taken, Unmet), and then the wake is still leased."""
        ...

    def due(self, ref: Ref) -> float | None:
        """When a document's wake is due, if it has one that nobody holds."""
        ...

    def retry(self, wake: Wake, again: float) -> Future[None]:
        """Gives the wake back after an error, due at `again` or when somebody moved it meanwhile, its tries kept."""
        ...

    def next_due(self) -> float | None: ...

    def attend(self, offer: Callable[[], tuple[float, float, int]], taken: Callable[[list[Wake], float | None], None]) -> None:
        """From now on, whatever is due when a wake was brought or given back is claimed in the same transaction.

        Takes: `offer`, which gives what `claim` takes: now, the lease, and how many (0: none now); `taken`, which is called (from
        any thread) with what was claimed, and when the next wake is due.
        """
        ...

    def release_all(self) -> None:
        """Recovery: after a restart nobody holds a lease any more."""
        ...
