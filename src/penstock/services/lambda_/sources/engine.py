"""The engine's looks at mappings: what the function has finished is deleted, what came is taken to it.

A look receives at most ten messages, begins at most one batch, deletes a hundred messages at most, and looks again at once while
there is more. Receiving, beginning and
deleting are each in one transaction with what the mapping knows of them, so a crash loses nothing; a function may see a batch twice.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

from penstock.kernel import invocations, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.invoking.engine import has_begun
from penstock.services.lambda_.sources import batches
from penstock.services.lambda_.sources.state import SOURCE
from penstock.store.records import Document

TOGETHER = 5
"""Batches that a function has at a time, where ScalingConfig says nothing."""
SIZE_MOST = 6_291_456 - len(batches.PAYLOAD.format(""))
"""What the records of a batch may weigh, in the bytes of their JSON: an invocation takes 6 MB."""
MANY = 100
"""Messages from which on beginning a batch, or judging it, takes its time."""
RECEIVED = 10
LOOK_AGAIN_S = 60.0
SETTLED = {"Creating", "Enabling", "Disabling", "Updating"}
"""The states that a look ends."""


def look(call: Call, mapping: Document) -> float | None:
    """One look at a mapping."""
    if _finish(call, mapping):
        return 0.0
    body = mapping.body
    if mapping.status == "Deleting":
        _leave(call, mapping)
        if not body["_running"]:
            if batches.drop(call, mapping):
                return 0.0
            call.delete(mapping)
            return None
        SOURCE.save(call, mapping)
        return LOOK_AGAIN_S
    if mapping.status in SETTLED:
        wanted = "Enabled" if body["_enabled"] else "Disabled"
        mapping.status = body["State"] = wanted
        call.put(mapping)
    if not body["_enabled"]:
        return _abandon(call, mapping)
    return _take(call, mapping)


def _abandon(call: Call, mapping: Document) -> float | None:
    """Lets go of what was gathered: those messages are seen again after their time-out."""
    body = mapping.body
    if "_gathered" not in body:
        return None
    if batches.drop(call, mapping, body["_batches"] + 1):
        return 0.0
    del body["_gathered"]
    call.put(mapping)
    return None


def _finish(call: Call, mapping: Document) -> bool:
    """Ends batches that the function has finished: the messages that it did not fail are deleted.

    Gives: whether there is more of it to do than one look may.
    """
    body, left = mapping.body, batches.SLICE
    for name, batch in list(body["_running"].items()):
        ending = body.setdefault("_ending", {}).get(name)
        if ending is None:
            outcome = invocations.outcome(call, name)
            if outcome is None and invocations.find(call, name) is not None:
                continue
            ending = body["_ending"][name] = _judge(call, mapping, batch, outcome)
            invocations.end(call, name)
        pieces = batches.kept(call, mapping, batch, limit=left, bodies=ending["delete"])
        for piece in pieces:
            if ending["delete"]:
                failed = set(ending["failed"])
                _delete(call, mapping, [receipt for receipt in piece.body["receipts"] if receipt[0] not in failed])
            call.delete(piece)
        call.put(mapping)
        left -= len(pieces)
        if not left:
            return True
        body["LastProcessingResult"] = ending["told"]
        del body["_running"][name], body["_ending"][name]
    return False


def _judge(call: Call, mapping: Document, batch: int, outcome: invocations.Outcome | None) -> dict[str, Any]:
    """Whether messages of a batch are to be deleted, and which of them the function failed."""
    if outcome is None or not outcome.succeeded:
        return {"delete": False, "failed": [], "told": "PROBLEM: Function call failed"}
    failed: list[str] = []
    if "ReportBatchItemFailures" in (mapping.body.get("FunctionResponseTypes") or ()):
        if mapping.body["BatchSize"] > MANY:
            call.take_time()
        receipts = [receipt for piece in batches.kept(call, mapping, batch) for receipt in piece.body["receipts"]]
        done = {name for name, _ in succeeded(receipts, outcome.payload)}
        failed = [name for name, _ in receipts if name not in done]
    return {"delete": True, "failed": failed, "told": "OK"}


def _leave(call: Call, mapping: Document) -> None:
    """Gives up the batches that wait for the function, throttled, say: their messages are seen again after their time-out."""
    for name in list(mapping.body["_running"]):
        invocation = invocations.find(call, name)
        if invocation is not None and invocation.status == invocations.WAITING and not has_begun(call, invocation):
            invocations.end(call, name)
            del mapping.body["_running"][name]
            call.put(mapping)


def succeeded(messages: list[list[str]], payload: str) -> list[list[str]]:
    """The messages of a batch that the function did not name as failed; none where its answer makes no sense.

    Source: docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html.
    """
    try:
        answer = json.loads(payload) if payload else None
        failures = (answer or {}).get("batchItemFailures") or []
        failed = {failure["itemIdentifier"] for failure in failures}
    except (ValueError, TypeError, AttributeError, KeyError):
        return []
    if not all(isinstance(name, str) and name for name in failed) or not failed <= {name for name, _ in messages}:
        return []
    return [message for message in messages if message[0] not in failed]


def _delete(call: Call, mapping: Document, messages: list[list[str]]) -> None:
    """Deletes up to ten messages, unless their queue is not there any more."""
    entries = [{"Id": str(number), "ReceiptHandle": handle} for number, (_, handle) in enumerate(messages)]
    if not entries:
        return
    with suppress(ServiceError), call.attempt():
        call.other("sqs", "DeleteMessageBatch", QueueUrl=_url(mapping), Entries=entries)


def _take(call: Call, mapping: Document) -> float | None:
    """Receives what there is, and begins a batch that is full or has waited for long enough; gives when to look again."""
    body = mapping.body
    gathered: dict[str, Any] = body.get("_gathered") or {"since": call.now, "count": 0, "bytes": 0, "pieces": 0}
    most = (body.get("ScalingConfig") or {}).get("MaximumConcurrency", TOGETHER)
    if len(body["_running"]) >= most:
        return None  # the end of a batch wakes it
    room = body["BatchSize"] - gathered["count"]
    came = _receive(call, mapping, min(RECEIVED, room)) if room > 0 else []
    texts = [batches.text_of(record) for record in came]
    fit = _fitting(texts, SIZE_MOST - gathered["bytes"])
    queues.give_back(call, {record["messageId"] for record in came[fit:]})
    if fit:
        gathered = _gather(call, mapping, gathered, came[:fit], texts[:fit])
    left_s = gathered["since"] + body["MaximumBatchingWindowInSeconds"] - call.now
    full = gathered["count"] >= body["BatchSize"] or fit < len(came)
    if gathered["count"] and (full or left_s <= 0):
        _begin(call, mapping, gathered, texts[:fit])
        return 0.0
    if len(came) == RECEIVED:
        return 0.0
    return min(_next_s(call, mapping), left_s if gathered["count"] else LOOK_AGAIN_S)


def _fitting(texts: list[str], room: int) -> int:
    """How many of the records, from the first on, there is room for."""
    for number, text in enumerate(texts):
        room -= batches.weigh([text])
        if room < 0:
            return number
    return len(texts)


def _gather(
    call: Call, mapping: Document, before: dict[str, Any], records: list[dict[str, Any]], texts: list[str]
) -> dict[str, Any]:
    """Keeps records with those of the batch that waits for more; gives what there is of it now."""
    batches.keep(call, mapping, mapping.body["_batches"] + 1, before["pieces"], records, texts)
    gathered = {
        "since": before["since"] if before["count"] else call.now,
        "count": before["count"] + len(records),
        "bytes": before["bytes"] + batches.weigh(texts),
        "pieces": before["pieces"] + 1,
    }
    mapping.body["_gathered"] = gathered
    call.put(mapping)
    return gathered


def _next_s(call: Call, mapping: Document) -> float:
    queue = queues.find(call, mapping.parent)
    due = queues.due(call, queue) if queue else None
    return LOOK_AGAIN_S if due is None else min(LOOK_AGAIN_S, max(0.0, due - call.now))


def _receive(call: Call, mapping: Document, most: int) -> list[dict[str, Any]]:
    asked = {"MaxNumberOfMessages": most, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    try:
        with call.attempt():
            got = call.other("sqs", "ReceiveMessage", QueueUrl=_url(mapping), **asked)
    except ServiceError as fault:
        if mapping.body.get("LastProcessingResult") != (told := f"PROBLEM: {fault.message}"):
            mapping.body["LastProcessingResult"] = told
            call.put(mapping)
        return []
    return [record(message, mapping.parent) for message in got.get("Messages", ())]


def record(message: dict[str, Any], queue_arn: str) -> dict[str, Any]:
    """A message as the function sees it."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }  # fmt: skip


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if "StringValue" in value:
        return {"stringValue": value["StringValue"], **shown}
    return {"binaryValue": base64.b64encode(value["BinaryValue"]).decode(), **shown}


def _begin(call: Call, mapping: Document, gathered: dict[str, Any], last: list[str]) -> None:
    """Has the function invoked with what was gathered; the records of this very look are given, the store does not have them yet."""
    if gathered["count"] > MANY:
        call.take_time()
    body = mapping.body
    body["_batches"] += 1
    texts = [text for piece in batches.kept(call, mapping, body["_batches"]) for text in piece.body["texts"]]
    name = invocations.name_of(f"{mapping.arn}/{body['_batches']}")
    body["_running"][name] = body["_batches"]
    del body["_gathered"]
    call.put(mapping)
    payload = batches.PAYLOAD.format(batches.BETWEEN.join([*texts, *last]))
    queue = queues.find(call, mapping.parent)
    hidden_s = float(queue.body["Attributes"].get("VisibilityTimeout", 30)) if queue else 0.0
    invocations.begin(call, body["FunctionArn"], payload, name=name, tell=mapping.ref, timeout_s=hidden_s)


def _url(mapping: Document) -> str:
    return f"/{mapping.account}/{mapping.parent.rpartition(':')[2]}"


STEPS = {SOURCE.kind: look}
