"""How a message comes into a queue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from penstock.kernel import ids, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sqs import rules
from penstock.services.sqs.state import DEDUPLICATION, MESSAGE, is_fifo
from penstock.store.records import Document, Ref

DEDUPLICATED_S = 300.0
"""How long a FIFO queue remembers the ids of its messages."""


def send(call: Call, queue: Document, given: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a message into a queue, in the call's change, and gives what its sender is answered.

    Takes: `given`, SendMessage's members, or those of an entry of a batch.
    Raises: ServiceError.
    """
    text, attributes = given["MessageBody"], rules.read_attributes(given.get("MessageAttributes") or {})
    _check_text(queue, text, attributes)
    system, delay_s = _system(given), _delay(queue, given)
    fifo = check_fifo(queue, given, text) if is_fifo(queue) else _check_standard(given)
    answer = {"MessageId": ids.request_id(), "MD5OfMessageBody": rules.md5(text)}
    if attributes:
        answer["MD5OfMessageAttributes"] = rules.md5_of_attributes(attributes)
    if system:
        answer["MD5OfMessageSystemAttributes"] = rules.md5_of_attributes(system)
    if fifo and (known := _known(call, queue, fifo)) is not None:
        return known
    if fifo:
        queue.body["_sequence"] += 1
        call.put(queue)
        answer["SequenceNumber"] = fifo["sequence"] = f"{queue.body['_sequence']:020d}"
        _remember(call, queue, fifo, answer)
    elif not any(seen is queue for seen in call.change.reads):
        call.change.reads.append(queue)  # it must still be there when this is written
    body = {
        "id": answer["MessageId"], "text": text, "attributes": attributes, "system": system, "sender": sender_of(call),
        "dedup": fifo.get("dedup") or given.get("MessageDeduplicationId") or "", "sequence": fifo.get("sequence", ""), "count": 0,
    }  # fmt: skip
    put(call, queue, body, label=given.get("MessageGroupId", ""), due=call.now + delay_s, name=fifo.get("sequence", ""))
    return answer


def put(
    call: Call, queue: Document, body: dict[str, Any], *, label: str, due: float, name: str = "", created: float | None = None
) -> Document:
    """Writes a message that can be received from `due` on, and tells those who wait for one."""
    parent = queue.body["_messages"]
    message = Document(
        kind=MESSAGE, account=queue.account, region=queue.region, name=f"{parent}/{name or _next(call)}", parent=parent,
        status="sent", label=label, rank=due, created=call.now if created is None else created, body=body,
    )  # fmt: skip
    call.put(message)
    announce(call, queue, due)
    return message


def pass_on(call: Call, message: Document, target: Document, body: dict[str, Any], created: float) -> None:
    """Moves a message into another queue, with that body, in the call's change; it can be received there at once."""
    call.delete(message)
    name = ""
    if is_fifo(target):
        target.body["_sequence"] += 1
        call.put(target)
        name = body["sequence"] = f"{target.body['_sequence']:020d}"
    elif not any(seen is target for seen in call.change.reads):
        call.change.reads.append(target)
    put(call, target, body, label=message.label, due=call.now, name=name, created=created)


def announce(call: Call, queue: Document, due: float) -> None:
    """Has those look who wait for messages: requests at once, documents that watch the queue at the moment."""
    call.tell(queue.body["_messages"])
    for watcher in queues.watchers(call, queue):
        call.wake(watcher, due)


def sender_of(call: Call) -> str:
    return call.caller.user_id or call.caller.account


def _next(call: Call) -> str:
    """A name that sorts behind those before it, as far as anybody can tell in a queue without an order."""
    return f"{int(call.now * 1e6):017d}-{time.monotonic_ns():020d}-{ids.word(6)}"


# --- checks
def _check_text(queue: Document, text: str, attributes: dict[str, dict[str, str]]) -> None:
    if not text:
        raise ServiceError("MissingParameter", "The request must contain the parameter MessageBody.")
    most = rules.number(queue.body["Attributes"], "MaximumMessageSize")
    if rules.weigh(text, attributes) > most:
        raise rules.unfit_value(f"One or more parameters are invalid. Reason: Message must be shorter than {most} bytes.")
    if found := rules.UNFIT.search(text):
        raise ServiceError(
            "InvalidMessageContents",
            f"Invalid character U+{ord(found[0]):04X} was found in the message body, the set of allowed characters is #x9 | #xA | #xD | "
            "#x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
        )


def _system(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    found = given.get("MessageSystemAttributes") or {}
    for name in found:
        if name != "AWSTraceHeader":
            raise rules.unfit_value(f"Value {name[:256]} for parameter MessageSystemAttributeName is invalid. Reason: unknown name.")
    return rules.read_attributes(found)


def _delay(queue: Document, given: Mapping[str, Any]) -> int:
    own = rules.number(queue.body["Attributes"], "DelaySeconds")
    asked = given.get("DelaySeconds")
    if asked is None:
        return own
    if not 0 <= asked <= 900:
        raise rules.unfit_value(f"Value {asked} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.")
    if is_fifo(queue) and asked not in (0, own):
        raise rules.unfit_value(
            f"Value {asked} for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this "
            "queue type."
        )
    return own if is_fifo(queue) else int(asked)


def _check_standard(given: Mapping[str, Any]) -> dict[str, str]:
    """Differs: the group of a message in a standard queue is kept and shown; there is no fair share between groups."""
    for name in ("MessageGroupId", "MessageDeduplicationId"):
        _check_id(name, given.get(name))
    return {}


def _check_id(name: str, value: str | None) -> None:
    if value is not None and not rules.FIFO_ID.fullmatch(value):
        raise rules.unfit_value(
            f"Value {value[:128]} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and punctuation "
            "characters. 1 to 128 in length."
        )


def check_fifo(queue: Document, given: Mapping[str, Any], text: str) -> dict[str, str]:
    """The group and the deduplication id of a message of a FIFO queue.

    Raises: ServiceError for a message without a group, or without an id where the queue does not make one of the content.
    """
    group, dedup = given.get("MessageGroupId"), given.get("MessageDeduplicationId")
    if not group:
        raise ServiceError("MissingParameter", "The request must contain the parameter MessageGroupId.")
    _check_id("MessageGroupId", group)
    _check_id("MessageDeduplicationId", dedup)
    if dedup is None:
        if queue.body["Attributes"].get("ContentBasedDeduplication") != "true":
            raise rules.unfit_value(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
            )
        dedup = hashlib.sha256(text.encode()).hexdigest()
    return {"group": group, "dedup": dedup}


# --- deduplication
def _dedup_ref(queue: Document, fifo: Mapping[str, str]) -> Ref:
    by_group = queue.body["Attributes"].get("DeduplicationScope") == "messageGroup"
    scope = hashlib.sha256(f"{fifo['group'] if by_group else ''} {fifo['dedup']}".encode()).hexdigest()
    return Ref(DEDUPLICATION, queue.account, queue.region, f"{queue.body['_messages']}/{scope}")


def _known(call: Call, queue: Document, fifo: Mapping[str, str]) -> dict[str, Any] | None:
    """What was answered to a message of the same id within the last five minutes."""
    found = call.find(_dedup_ref(queue, fifo))
    return dict(found.body) if found and call.now - found.created < DEDUPLICATED_S else None


def _remember(call: Call, queue: Document, fifo: Mapping[str, str], answer: dict[str, Any]) -> None:
    ref = _dedup_ref(queue, fifo)
    found = call.find(ref)
    if found is None:
        found = Document(kind=ref.kind, account=ref.account, region=ref.region, name=ref.name, parent=queue.body["_messages"])
    found.created, found.body = call.now, answer
    call.put(found)
