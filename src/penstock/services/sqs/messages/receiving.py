"""How messages are found in a queue and handed out, or go to the dead-letter queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sqs import rules
from penstock.services.sqs.messages.sending import put
from penstock.services.sqs.state import QUEUE, is_fifo, messages_of
from penstock.store.records import Document

SLICE = 50
SEEN_MOST = 20_000
"""How far a FIFO queue is looked into for messages of groups that are free."""


def take(call: Call, queue: Document, most: int, hidden_s: float) -> list[Document]:
    """Messages that are received now, hidden for so long, in the call's change; expired and dead ones leave the queue.

    Differs: a dead letter goes at the look that would have received it, however many messages are in flight.
    """
    attributes, taken = queue.body["Attributes"], []
    kept_from = call.now - rules.number(attributes, "MessageRetentionPeriod")
    dead = rules.redrive(attributes.get("RedrivePolicy"))
    target = QUEUE.find(call, dead[0]) if dead else None
    for message in _ordered(call, queue) if is_fifo(queue) else _visible(call, queue):
        if call.change and (call.find(message.ref) is None or any(put.ref == message.ref for put in call.change.puts)):
            continue  # whoever asks has deleted or received it in the same change
        if message.created <= kept_from:
            call.delete(message)
        elif dead and target and message.body["count"] >= dead[1]:
            _bury(call, queue, message, target)
        else:
            _receive(call, message, hidden_s)
            taken.append(message)
            if len(taken) == most:
                break
    return taken


def _visible(call: Call, queue: Document) -> Iterator[Document]:
    """The messages that can be received, those that could be for the longest time first."""
    query = messages_of(queue, order="rank", limit=SLICE)
    while True:
        found = call.app.store.page(query)
        for message in found:
            if message.rank > call.now:
                return
            yield message
        if len(found) < SLICE:
            return
        query.after = (found[-1].rank, found[-1].name)


def _ordered(call: Call, queue: Document) -> Iterator[Document]:
    """The messages of a FIFO queue that can be received, in their order: none of a group of which an earlier one is in flight."""
    blocked = {message.label for message in call.app.store.page(messages_of(queue, order="rank", rank_after=call.now, limit=SEEN_MOST))}
    query = messages_of(queue, order="name", limit=SLICE)
    seen = 0
    while seen < SEEN_MOST:
        found = call.app.store.page(query)
        yield from (message for message in found if message.label not in blocked and message.rank <= call.now)
        seen += len(found)
        if len(found) < SLICE:
            return
        query.after = (found[-1].name, found[-1].name)


def _receive(call: Call, message: Document, hidden_s: float) -> None:
    message.body["count"] += 1
    message.body.setdefault("first", call.now)
    message.body["last"] = call.now
    message.rank, message.status = call.now + hidden_s, "received"
    call.put(message)


def _bury(call: Call, queue: Document, message: Document, target: Document) -> None:
    """Moves a message to the dead-letter queue; in a standard one it keeps the moment it was sent, so its time goes on."""
    call.delete(message)
    body = {**message.body, "source": queue.arn}
    name = ""
    if is_fifo(target):
        target.body["_sequence"] += 1
        call.put(target)
        name = body["sequence"] = f"{target.body['_sequence']:020d}"
    else:
        call.change.reads.append(target)
    created = call.now if is_fifo(target) else message.created
    put(call, target, body, label=message.label, due=call.now, name=name, created=created)


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
