"""How messages are moved: some at each look, in the order in which they came, each deleted and sent in one change."""

from __future__ import annotations

from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call
from penstock.services.sqs.messages.receiving import Dropping, receivable
from penstock.services.sqs.messages.sending import pass_on
from penstock.services.sqs.moves.state import TASK
from penstock.services.sqs.state import QUEUE
from penstock.store.records import Document

BATCH = 20
"""Messages that one look moves."""
GONE, UNKNOWN = "AWS.SimpleQueueService.NonExistentQueue", "CouldNotDetermineMessageSource"


class _Failed(Exception):
    """Why a task cannot go on."""


def move(call: Call, task: Document) -> float | None:
    """Moves the next messages, no more than the task's rate allows; gives when to look again."""
    if task.status == "CANCELLING":
        TASK.move(call, task, "CANCELLED")
    if task.status != "RUNNING":
        return None
    source = QUEUE.find(call, task.parent)
    if source is None:
        call.delete(task)
        return None
    allowed, pause_s = _pace(call, task)
    try:
        more = _move_some(call, task, source, allowed)
    except _Failed as why:
        TASK.move(call, task, "FAILED", FailureReason=str(why))
        return None
    if not more:
        TASK.move(call, task, "COMPLETED")
        return None
    call.put(task)
    return pause_s


def _pace(call: Call, task: Document) -> tuple[int, float]:
    """How many messages may be moved now, and how soon to look again."""
    rate = task.body.get("MaxNumberOfMessagesPerSecond")
    if rate is None:
        return BATCH, 0.0
    due = 1 + int((call.now - task.created) * rate) - task.body["ApproximateNumberOfMessagesMoved"]
    return max(0, min(BATCH, due)), 0.0 if due > BATCH else 1 / rate


def _move_some(call: Call, task: Document, source: Document, allowed: int) -> bool:
    """Moves so many messages; whether there are more.

    Raises: _Failed; what came before goes on.
    """
    body, dropping = task.body, Dropping(call, source)
    targets: dict[str, Document] = {}
    if not body["_until"].startswith(f"{source.body['_messages']}/"):  # it was empty, or was emptied since
        return False
    for message in receivable(call, source, allowed + 1, after=body["_after"]):
        if message.name > body["_until"]:
            return False
        if not allowed:
            return True
        if not dropping.drop(message):
            _move_one(call, message, _target(call, task, message, targets))
            body["ApproximateNumberOfMessagesMoved"] += 1
            allowed -= 1
        body["_after"] = message.name
    return False


def _target(call: Call, task: Document, message: Document, known: dict[str, Document]) -> Document:
    """The queue that a message is moved to.

    Raises: _Failed.
    """
    arn = task.body.get("DestinationArn") or message.body.get("source", "")
    if arn not in known:
        found = QUEUE.find(call, arn) if arn else None
        if found is None:
            raise _Failed(GONE if arn else UNKNOWN)
        known[arn] = found
    return known[arn]


def _move_one(call: Call, message: Document, target: Document) -> None:
    """In the other queue it is a new message, with an id and a time of its own, that nobody has received yet."""
    kept: dict[str, Any] = {name: value for name, value in message.body.items() if name not in ("source", "first", "last")}
    pass_on(call, message, target, {**kept, "id": ids.request_id(), "count": 0}, call.now)


STEPS = {TASK.kind: move}
