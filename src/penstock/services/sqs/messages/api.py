"""Operations on messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.kernel import queues
from penstock.kernel.call import Call, slow_when
from penstock.kernel.errors import ServiceError
from penstock.services.sqs import rules
from penstock.services.sqs.messages.receiving import show, take
from penstock.services.sqs.messages.sending import announce, check_fifo, send
from penstock.services.sqs.state import is_fifo, message_ref, queue_of
from penstock.store.records import Document

LONGEST_S = 43_200
"""A message may be hidden for so long after it was received."""


# --- sending
def send_message(call: Call) -> dict[str, Any]:
    """Sends a message."""
    return send(call, queue_of(call), call.params)


def send_message_batch(call: Call) -> dict[str, Any]:
    """Sends up to ten messages; what is wrong with one is told beside the others."""
    queue, entries = queue_of(call), call.params["Entries"]
    rules.check_entries(entries, "SendMessageBatch")
    sent = sum(len((entry.get("MessageBody") or "").encode()) for entry in entries)
    if sent > rules.MEBIBYTE:
        told = f"Batch requests cannot be longer than {rules.MEBIBYTE} bytes. You have sent {sent} bytes."
        raise ServiceError("BatchRequestTooLong", told)
    if is_fifo(queue):
        for entry in entries:  # without a group or an id nothing of the batch is sent
            if not entry.get("MessageGroupId"):
                raise rules.unfit_value("The request must contain the parameter MessageGroupId.")
            check_fifo(queue, entry, entry.get("MessageBody") or "")
    return _each(call, lambda entry: send(call, queue, entry))


# --- receiving
def _many(call: Call) -> bool:
    """Whether receiving may take longer than the event loop should wait: many bodies, or a look through a queue's groups."""
    return call.params.get("MaxNumberOfMessages", 1) > 1 or str(call.params.get("QueueUrl", "")).endswith(".fifo")


@slow_when(_many)
def receive_message(call: Call) -> dict[str, Any]:
    """Receives up to ten messages, hidden from others for a while; waits for one where asked to.

    Differs: what can be received is found at every look. ReceiveRequestAttemptId is taken and ignored.
    """
    queue, given = queue_of(call), call.params
    attributes = queue.body["Attributes"]
    most = _within(given, "MaxNumberOfMessages", 1, 10, 1)
    wait_s = _within(given, "WaitTimeSeconds", 0, 20, rules.number(attributes, "ReceiveMessageWaitTimeSeconds"))
    hidden_s = _within(given, "VisibilityTimeout", 0, LONGEST_S, rules.number(attributes, "VisibilityTimeout"))
    for name in (*(given.get("AttributeNames") or ()), *(given.get("MessageSystemAttributeNames") or ())):
        if name not in rules.SYSTEM:
            raise ServiceError("InvalidAttributeName", f"Unknown Attribute {name[:256]}.")
    taken = take(call, queue, most, hidden_s)
    if not taken and not call.change:
        call.wait_for(queue.body["_messages"], wait_s, queues.due(call, queue) if wait_s else None)
    return {"Messages": [show(message, given) for message in taken]} if taken else {}


def _within(given: dict[str, Any], name: str, least: int, most: int, default: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    if not least <= value <= most:
        raise rules.unfit_value(f"Value {value} for parameter {name} is invalid. Reason: Must be >= {least} and <= {most}, if provided.")
    return int(value)


# --- after receiving
def delete_message(call: Call) -> None:
    """Deletes a message by a receipt of it, of a standard queue by an old one, too."""
    _delete(call, queue_of(call), call.params)


def delete_message_batch(call: Call) -> dict[str, Any]:
    """Deletes up to ten messages."""
    queue = queue_of(call)
    rules.check_entries(call.params["Entries"], "DeleteMessageBatch")
    return _each(call, lambda entry: _delete(call, queue, entry))


def change_message_visibility(call: Call) -> None:
    """Hides a message that was received for another while, counted from now; one of a standard queue also when its time is over."""
    _hide(call, queue_of(call), call.params)


def change_message_visibility_batch(call: Call) -> dict[str, Any]:
    """Hides up to ten messages for another while."""
    queue = queue_of(call)
    rules.check_entries(call.params["Entries"], "ChangeMessageVisibilityBatch")
    return _each(call, lambda entry: _hide(call, queue, entry))


def _delete(call: Call, queue: Document, given: dict[str, Any]) -> None:
    message, current = _received(call, queue, given["ReceiptHandle"])
    if message is None or (is_fifo(queue) and not current):
        return
    if is_fifo(queue):
        if message.rank <= call.now:
            raise rules.unfit_value(
                f"Value {given['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
            )
        announce(call, queue, call.now)  # the group goes on
    call.delete(message)


def _hide(call: Call, queue: Document, given: dict[str, Any]) -> None:
    message, _ = _received(call, queue, given["ReceiptHandle"])
    hidden_s = given.get("VisibilityTimeout", 30)
    if not 0 <= hidden_s <= LONGEST_S:
        raise rules.unfit_value(
            f"Value {hidden_s} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and {LONGEST_S}, if provided."
        )
    if message is None:
        raise rules.unfit_value(
            f"Value {given['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available "
            "for visibility timeout change."
        )
    if is_fifo(queue) and message.rank <= call.now:
        raise ServiceError("MessageNotInflight", "The specified message isn't in flight.")
    if call.now + hidden_s - message.body["last"] > LONGEST_S:
        raise rules.unfit_value(
            f"Value {hidden_s} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the "
            f"limit [{LONGEST_S} seconds]"
        )
    message.rank = call.now + hidden_s
    call.put(message)
    announce(call, queue, message.rank)


def _received(call: Call, queue: Document, handle: str) -> tuple[Document | None, bool]:
    """The message of a receipt handle, and whether it is its last receipt; None for one that is gone.

    Raises: ServiceError ReceiptHandleIsInvalid for what is no handle.
    """
    read = rules.read_receipt(handle)
    if read is None:
        raise ServiceError("ReceiptHandleIsInvalid", f'The input receipt handle "{handle[:1024]}" is not a valid receipt handle.')
    found = call.find(message_ref(queue, read[0]))
    if found is None or found.parent != queue.body["_messages"]:
        return None, False
    return found, found.body["count"] == read[1]


def _each(call: Call, do: Callable[[dict[str, Any]], dict[str, Any] | None]) -> dict[str, Any]:
    """What became of each entry of a batch; what one would have written is not written where it fails."""
    answer: dict[str, Any] = {"Successful": [], "Failed": []}
    for entry in call.params["Entries"]:
        try:
            with call.attempt():
                answer["Successful"].append({"Id": entry["Id"], **(do(entry) or {})})
        except ServiceError as fault:
            failed = {"Id": entry["Id"], "SenderFault": fault.status < 500, "Code": fault.code, "Message": fault.message}
            answer["Failed"].append(failed)
    return {name: entries for name, entries in answer.items() if entries or name == "Successful"}
