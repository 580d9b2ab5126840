"""How messages are found in a queue and handed out, or go to the dead-letter queue."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sqs import rules
from penstock.services.sqs.messages.sending import pass_on
from penstock.services.sqs.state import QUEUE, is_fifo, messages_of
from penstock.store.records import Document

SLICE = 50
"""Messages that a look of the queue's engine reads."""
LET_GO = 20
"""Dead and expired messages that one look meets; the queue's engine sees to the rest."""
LEFT = 10
"""Messages at the queue's front that its engine leaves to those who receive, so that they do not meet; fewer than they let go."""


def take(call: Call, queue: Document, most: int, hidden_s: float) -> list[Document]:
    """Messages that are received now, hidden for so long, in the call's change; expired and dead ones leave the queue.

    Differs: a dead letter goes at the look that would have received it, however many messages are in flight.
    """
    taken: list[Document] = []
    dropping, left = Dropping(call, queue), LET_GO
    for message in receivable(call, queue, most):
        if call.was_put(message.ref) or call.was_deleted(message.ref):
            continue  # whoever asks has deleted or received it in the same change
        if dropping.drop(message):
            left -= 1
            if not left:
                call.wake(queue.ref)
                break
        else:
            _receive(call, message, hidden_s)
            taken.append(message)
            if len(taken) == most:
                break
    return taken


def sweep(call: Call, queue: Document) -> int:
    """Lets some of the dead and expired messages go that stand before those that can be received; gives how many."""
    dropping, found = Dropping(call, queue), receivable(call, queue, SLICE)
    return sum(dropping.drop(message) for message in islice(found, LEFT, SLICE))


class Dropping:
    """By which messages leave a queue that nobody can receive any more: expired, or received too often."""

    def __init__(self, call: Call, queue: Document):
        attributes = queue.body["Attributes"]
        self._call, self._queue = call, queue
        self._kept_from = call.now - rules.number(attributes, "MessageRetentionPeriod")
        self._dead = rules.redrive(attributes.get("RedrivePolicy"))
        self._target = QUEUE.find(call, self._dead[0]) if self._dead else None

    def drop(self, message: Document) -> bool:
        """Whether the message leaves the queue, in the call's change."""
        if message.created <= self._kept_from:
            self._call.delete(message)
            return True
        if self._dead and self._target and message.body["count"] >= self._dead[1]:
            _bury(self._call, self._queue, message, self._target)
            return True
        return False


def receivable(call: Call, queue: Document, most: int, after: str | None = None) -> Iterator[Document]:
    """The messages that can be received: those that could be for the longest time first; no more bodies are read than are wanted.

    Of a FIFO queue in their order, and none of a group of which another is in flight. Takes: `after`, to have those of any queue in
    the order in which they came, after that name.
    """
    past = math.nextafter(call.now, math.inf)  # what can be received has a rank up to now
    query = messages_of(queue, order="rank", limit=most, rank_before=past, after=(after, after) if after else None)
    if is_fifo(queue):
        query.free_at = call.now
    if is_fifo(queue) or after is not None:
        query.order = "name"
    while True:
        found = call.app.store.page(query)
        yield from found
        if len(found) < query.limit:
            return
        query.after, query.limit = (getattr(found[-1], query.order), found[-1].name), max(most, LEFT)


def _receive(call: Call, message: Document, hidden_s: float) -> None:
    message.body["count"] += 1
    message.body.setdefault("first", call.now)
    message.body["last"] = call.now
    message.rank, message.status = call.now + hidden_s, "received"
    call.put(message)


def _bury(call: Call, queue: Document, message: Document, target: Document) -> None:
    """Moves a message to the dead-letter queue; in a standard one it keeps the moment it was sent, so its time goes on."""
    pass_on(call, message, target, {**message.body, "source": queue.arn}, call.now if is_fifo(target) else message.created)


def show(message: Document, params: dict[str, Any]) -> dict[str, Any]:
    """A message as its receiver sees it, with the attributes that were asked for."""
    body = message.body
    system = [*(params.get("AttributeNames") or ()), *(params.get("MessageSystemAttributeNames") or ())]
    shown: dict[str, Any] = {
        "MessageId": body["id"],
        "ReceiptHandle": rules.write_receipt(message.name, body["count"]),
        "MD5OfBody": rules.md5(body["text"]),
        "Body": body["text"],
    }
    if asked := {name: value for name, value in _system(message).items() if "All" in system or name in system}:
        shown["Attributes"] = asked
    if wanted := rules.wanted(body["attributes"], params.get("MessageAttributeNames") or ()):
        shown["MessageAttributes"] = {name: show_attribute(value) for name, value in wanted.items()}
        shown["MD5OfMessageAttributes"] = rules.md5_of_attributes(wanted)
    return shown


def show_attribute(value: dict[str, str]) -> dict[str, Any]:
    if "BinaryValue" not in value:
        return value
    return {"DataType": value["DataType"], "BinaryValue": rules.from_base64(value["BinaryValue"])}


def _system(message: Document) -> dict[str, str]:
    body = message.body
    found = {
        "SenderId": body["sender"],
        "SentTimestamp": str(int(message.created * 1000)),
        "ApproximateReceiveCount": str(body["count"]),
        "ApproximateFirstReceiveTimestamp": str(int(body["first"] * 1000)),
        "MessageGroupId": message.label,
        "MessageDeduplicationId": body["dedup"],
        "SequenceNumber": body["sequence"],
        "AWSTraceHeader": body["system"].get("AWSTraceHeader", {}).get("StringValue", ""),
        "DeadLetterQueueSourceArn": body.get("source", ""),
    }
    return {name: value for name, value in found.items() if value}
