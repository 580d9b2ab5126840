"""The engine's looks at mappings: what the function has finished is deleted, what came is taken to it.

A look receives at most ten messages, begins at most one batch, and looks again at once while there is more. Receiving, beginning and
deleting are each in one transaction with what the mapping knows of them, so a crash loses nothing; a function may see a batch twice.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from penstock.kernel import invocations, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.invoking.engine import has_begun
from penstock.services.lambda_.sources.state import SOURCE
from penstock.store.records import Document

TOGETHER = 5
"""Batches that a function has at a time, where ScalingConfig says nothing."""
SIZE_MOST = 5 << 20
"""What a batch's records may weigh before no more are gathered: an invocation takes 6 MB."""
RECEIVED = 10
LOOK_AGAIN_S = 60.0
SETTLED = {"Creating", "Enabling", "Disabling", "Updating"}
"""The states that a look ends."""


def look(call: Call, mapping: Document) -> float | None:
    """One look at a mapping."""
    _finish(call, mapping)
    body = mapping.body
    if mapping.status == "Deleting":
        _leave(call, mapping)
        if not body["_running"]:
            call.delete(mapping)
            return None
        SOURCE.save(call, mapping)
        return LOOK_AGAIN_S
    if mapping.status in SETTLED:
        wanted = "Enabled" if body["_enabled"] else "Disabled"
        mapping.status = body["State"] = wanted
        call.put(mapping)
    if not body["_enabled"]:
        if body.pop("_gathered", None):  # they are seen again after their time-out
            call.put(mapping)
        return None
    return _take(call, mapping)


def _finish(call: Call, mapping: Document) -> None:
    """Ends the batches that the function has finished: the messages that it did not fail are deleted."""
    for name, messages in list(mapping.body["_running"].items()):
        outcome = invocations.outcome(call, name)
        if outcome is None and invocations.find(call, name) is not None:
            continue
        done, told = messages, "OK"
        if outcome is None or not outcome.succeeded:
            done, told = [], "PROBLEM: Function call failed"
        elif "ReportBatchItemFailures" in (mapping.body.get("FunctionResponseTypes") or ()):
            done = succeeded(messages, outcome.payload)
        _delete(call, mapping, done)
        mapping.body["LastProcessingResult"] = told
        del mapping.body["_running"][name]
        invocations.end(call, name)
        call.put(mapping)


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
    url = _url(mapping)
    for start in range(0, len(messages), RECEIVED):
        entries = [
            {"Id": str(number), "ReceiptHandle": handle}
            for number, (_, handle) in enumerate(messages[start : start + RECEIVED])
        ]
        try:
            with call.attempt():
                call.other("sqs", "DeleteMessageBatch", QueueUrl=url, Entries=entries)
        except ServiceError:
            return  # the queue is not there any more


def _take(call: Call, mapping: Document) -> float | None:
    """Receives what there is, and begins a batch that is full or has waited for long enough; gives when to look again."""
    body = mapping.body
    gathered: dict[str, Any] = body.get("_gathered") or {"since": call.now, "records": []}
    most = (body.get("ScalingConfig") or {}).get("MaximumConcurrency", TOGETHER)
    if len(body["_running"]) >= most:
        return None  # the end of a batch wakes it
    records = gathered["records"]
    room = body["BatchSize"] - len(records)
    came = _receive(call, mapping, min(RECEIVED, room)) if room > 0 else []
    if came and not records:
        gathered["since"] = call.now
    records += came
    left_s = gathered["since"] + body["MaximumBatchingWindowInSeconds"] - call.now
    full = len(records) >= body["BatchSize"] or sum(len(record["body"]) for record in records) >= SIZE_MOST
    if records and (full or left_s <= 0):
        _begin(call, mapping, records)
        body.pop("_gathered", None)
        call.put(mapping)
        return 0.0
    if came:
        body["_gathered"] = gathered
        call.put(mapping)
    if len(came) == RECEIVED:
        return 0.0
    return min(_next_s(call, mapping), left_s if records else LOOK_AGAIN_S)


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


def _begin(call: Call, mapping: Document, records: list[dict[str, Any]]) -> None:
    body = mapping.body
    body["_batches"] += 1
    name = invocations.name_of(f"{mapping.arn}/{body['_batches']}")
    body["_running"][name] = [[record["messageId"], record["receiptHandle"]] for record in records]
    payload = json.dumps({"Records": records})
    queue = queues.find(call, mapping.parent)
    hidden_s = float(queue.body["Attributes"].get("VisibilityTimeout", 30)) if queue else 0.0
    invocations.begin(call, body["FunctionArn"], payload, name=name, tell=mapping.ref, timeout_s=hidden_s)


def _url(mapping: Document) -> str:
    return f"/{mapping.account}/{mapping.parent.rpartition(':')[2]}"


STEPS = {SOURCE.kind: look}
