"""Where the outcome of an asynchronous invocation goes: destinations, and dead-letter queues.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from penstock.kernel import invocations, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.state import FUNCTION
from penstock.store.records import Document

BUCKET = "arn:aws:s3:::"

log = logging.getLogger("penstock.lambda")


def record_of(
    call: Call, invocation: Document, arn: str, condition: str, version: str, answer: str, error: str
) -> dict[str, Any]:
    """What a destination is told."""
    stamp = datetime.fromtimestamp(call.now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    told: dict[str, Any] = {
        "version": "1.0",
        "timestamp": stamp,
        "requestContext": {
            "requestId": invocation.name,
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": invocation.body["attempts"],
        },
        "requestPayload": _plain(invocation.body["payload"]),
    }
    if answer:
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": version}
        told["responseContext"] = context | ({"functionError": error} if error else {})
        told["responsePayload"] = _plain(answer)
    return told


def reachable(call: Call, target: str) -> bool:
    """Whether an outcome can go there: a queue or function that is there, a topic or bus of this account and region, a bucket."""
    service, region, account, _, name = (target.split(":") + [""] * 7)[2:7]
    if service == "sqs":
        return queues.find(call, target) is not None
    if service == "s3":
        return target.startswith(BUCKET) and ":" not in target.removeprefix(BUCKET)
    if service == "lambda" and call.find(FUNCTION.ref(call, name)) is None:
        return False
    return (region, account) == (call.region, call.account)


def deliver(call: Call, target: str, record: dict[str, Any], seed: str, succeeded: bool) -> None:
    """Sends an outcome to its destination, in the call's change; what cannot be sent is told in the server's log."""
    service, text = target.split(":")[2], json.dumps(record)
    try:
        if service == "lambda":
            invocations.begin(call, target, text, name=invocations.name_of(seed), event=True)
        elif service not in call.app.services:
            log.warning("The outcome of %s has no way to %s: %s is not served.", seed, target, service)
        elif service == "events":
            kind = f"Lambda Function Invocation Result - {'Success' if succeeded else 'Failure'}"
            entry = {"Source": "lambda", "DetailType": kind, "Detail": text, "EventBusName": target, "Resources": [target]}
            call.other("events", "PutEvents", Entries=[entry])
        elif service == "s3":
            name = f"aws/lambda/async/{seed}.json"
            call.other("s3", "PutObject", Bucket=target.removeprefix(BUCKET), Key=name, Body=text.encode())
        else:
            send(call, target, text, {})
    except ServiceError as fault:
        log.warning("The outcome of %s did not reach %s: %s", seed, target, fault)


def send(call: Call, target: str, text: str, attributes: dict[str, str]) -> None:
    """Sends a message to a queue or a topic.

    Raises: ServiceError.
    """
    told = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items() if value}
    if target.split(":")[2] == "sns":
        call.other("sns", "Publish", TopicArn=target, Message=text, MessageAttributes=told)
        return
    queue = queues.find(call, target)
    if queue is None:
        raise ServiceError("AWS.SimpleQueueService.NonExistentQueue", f"There is no queue {target} that the function can reach.")
    url = call.other("sqs", "GetQueueUrl", QueueName=queue.name)["QueueUrl"]
    call.other("sqs", "SendMessage", QueueUrl=url, MessageBody=text, MessageAttributes=told)


def bury(call: Call, target: str, invocation: Document, code: str, message: str) -> None:
    """Sends an event that failed to the function's dead-letter queue."""
    if target.split(":")[2] not in call.app.services:
        log.warning("The event %s has no way to its dead-letter queue %s.", invocation.name, target)
        return
    attributes = {"RequestID": invocation.name, "ErrorCode": code, "ErrorMessage": message[:1024]}
    try:
        send(call, target, invocation.body["payload"], attributes)
    except ServiceError as fault:
        log.warning("The event %s did not reach its dead-letter queue %s: %s", invocation.name, target, fault)


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
