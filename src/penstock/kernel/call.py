"""A call: one operation on its way from a request to a change, or one engine step on behalf of a document.

Operations and steps read through the call and write by filling `call.change`; the dispatcher (or the engine loop) commits it.
What a call has put into its change, it reads back: `find` looks there first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.kernel import ids
from penstock.kernel.errors import ServiceError
from penstock.store.records import Change, Document, Event, Ref, Row, Wake

if TYPE_CHECKING:
    from penstock.kernel.app import App


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the signature proved it."""

    account: str
    arn: str
    """`arn:aws:sts::<account>:assumed-role/<role>/<session>` or `arn:aws:iam::<account>:user/<name>`."""
    user_id: str = ""
    access_key: str = ""
    session_policy: str = ""
    run: str = ""
    """The run whose credentials these are; empty for people."""


class Long(Exception):
    """What a step is about to do may take longer than a step may work: the engine runs it again, beside its other steps.

    An operation may do the same: the front runs it again, beside its event loop.
    """


class Waiting(Exception):
    """There is nothing to answer yet: the front runs the operation again when somebody tells of the topic, or at `due`."""

    def __init__(self, topic: str, due: float):
        self.topic, self.due = topic, due
        super().__init__(topic)


class ByRef:
    """The documents of a change's list by their refs, however many it has: such a list only grows, or gives way to another."""

    __slots__ = ("_found", "_of", "_seen")

    def __init__(self) -> None:
        self._of: list[Document] = []
        self._seen = 0
        self._found: dict[Ref, Document] = {}

    def read(self, documents: list[Document]) -> dict[Ref, Document]:
        if documents is not self._of or len(documents) < self._seen:
            self._of, self._seen, self._found = documents, 0, {}
        for document in documents[self._seen :]:
            self._found[document.ref] = document
        self._seen = len(documents)
        return self._found


@dataclass(slots=True)
class Call:
    """All that an operation or a step gets."""

    app: App
    caller: Caller
    service: str
    """botocore's service name; for a step the service of its kind."""
    operation: str
    """AWS's operation name ("CreateModel"); empty for a step."""
    region: str
    params: dict[str, Any]
    request_id: str
    now: float
    change: Change = field(default_factory=Change)
    run: str | None = None
    """The run whose socket the request came from."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request's headers, for the few operations that answer what was sent."""
    later: Callable[[], Awaitable[dict[str, Any]]] | None = None
    """What the front awaits, once the change is committed, for the reply: what a function of the user's answers, say."""
    patient: bool = False
    """Whether this step, or operation, runs beside the others, and may take its time."""
    arrived: float = 0.0
    """When the request came, for an operation that is run again because it waits; 0 where nobody waits."""
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    """What a step wants done once its change is durable; a crash may lose it."""
    by_ref: tuple[ByRef, ByRef] = field(default_factory=lambda: (ByRef(), ByRef()), repr=False)
    """Where its change's puts and deletes are found: the same of all calls that write into it."""

    @property
    def account(self) -> str:
        return self.caller.account

    # --- reading
    def find(self, ref: Ref) -> Document | None:
        """The document, as this call's own change has it, else as the store has it."""
        if (put := self.was_put(ref)) is not None:
            return put
        return None if self.was_deleted(ref) else self.app.store.get(ref)

    def was_put(self, ref: Ref) -> Document | None:
        """The document as this call's own change puts it."""
        return self.by_ref[0].read(self.change.puts).get(ref)

    def was_deleted(self, ref: Ref) -> bool:
        return ref in self.by_ref[1].read(self.change.deletes)

    # --- writing
    def put(self, document: Document) -> Document:
        """Puts a document into the change, once. The store checks its version, counts it up, and keeps `updated`."""
        document.updated = self.now
        if self.was_put(document.ref) is not document:
            self._drop(document.ref)
            self.change.puts.append(document)
        return document

    def delete(self, document: Document) -> None:
        self._drop(document.ref)
        if document.version:
            self.change.deletes.append(document)

    def _drop(self, ref: Ref) -> None:
        if self.was_put(ref) is not None:
            self.change.puts = [put for put in self.change.puts if put.name != ref.name or put.ref != ref]

    def wake(self, ref: Ref, due: float | None = None) -> None:
        """Has the engine look at the document: now, or at a moment."""
        self.change.wakes.append(
            Wake(
                kind=ref.kind,
                account=ref.account,
                region=ref.region,
                name=ref.name,
                due=self.now if due is None else due,
            )
        )

    def row(self, row: Row) -> None:
        self.change.rows.append(row)

    def take_time(self) -> None:
        """Called before what may take longer than a step may work (50 ms): copying bytes, thousands of rows.

        Raises: Long, unless the call may take its time.
        """
        if not self.patient:
            raise Long

    def tell(self, topic: str) -> None:
        """Has whoever waits for something of the topic (`Call.wait_for`) look again, once the change is durable."""
        if topic not in self.change.tells:
            self.change.tells.append(topic)

    def wait_for(self, topic: str, most_s: float, due: float | None = None) -> None:
        """Called where there is nothing to answer yet: waits until the topic is told of, or until `due`, for at most so long.

        Gives: nothing, where the time is over, or where nobody waits (another operation or a step asks).
        Raises: Waiting.
        """
        end = self.arrived + most_s
        if self.arrived and self.now < end:
            raise Waiting(topic, end if due is None else min(due, end))

    def emit(
        self, source: str, detail_type: str, detail: Mapping[str, Any], resources: list[str] | None = None
    ) -> None:
        """Writes an event to the outbox, in the transaction of the change it tells of."""
        self.change.events.append(
            Event(
                id=ids.request_id(),
                source=source,
                detail_type=detail_type,
                account=self.account,
                region=self.region,
                time=self.now,
                resources=resources or [],
                detail=dict(detail),
            )
        )

    # --- calling
    def other(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """Runs another service's operation in process, with the same checks; what it writes joins this call's change.

        Raises: ServiceError, as a client would be told.
        """
        return self.app.run(self, service, operation, params)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """For what may be refused half-way, where the call goes on: then nothing of it is in the change.

        Raises: the ServiceError that was raised in it.
        """
        change = self.change
        kept = {part: list(getattr(change, part)) for part in change.__struct_fields__}
        try:
            yield
        except ServiceError:
            for part, before in kept.items():
                setattr(change, part, before)
            raise


def slow(operation: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Marks an operation that may take more than a millisecond: the front runs it in the executor, not in the event loop."""
    operation.slow = True  # type: ignore[attr-defined]
    return operation


def takes(most_bytes: int, code: str) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Marks an operation whose requests may be larger than those of others, `Settings.max_body_bytes`.

    Takes: `code`, of the error that tells of one that is larger still.
    """

    def mark(operation: Callable[[Call], Any]) -> Callable[[Call], Any]:
        operation.takes = (most_bytes, code)  # type: ignore[attr-defined]
        return operation

    return mark


def slow_when(large: Callable[[Call], bool]) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Marks an operation that may take more than a millisecond for such calls."""

    def mark(operation: Callable[[Call], Any]) -> Callable[[Call], Any]:
        operation.slow_when = large  # type: ignore[attr-defined]
        return operation

    return mark
