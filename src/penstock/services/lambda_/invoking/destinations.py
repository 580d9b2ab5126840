"""Where the outcome of an asynchronous invocation goes: destinations, and dead-letter queues.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from penstock.kernel import invocations, queues
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.state import FUNCTION
from penstock.store.records import Document

BUCKET = "arn:aws:s3:::"
LOOP = 16
"""So often a function is invoked in one chain of destinations, then it is a loop."""

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


def deliver(
    call: Call, target: str, record: dict[str, Any], seed: str, succeeded: bool, chain: Mapping[str, int]
) -> None:  # fmt: skip
    """Sends an outcome to its destination, in the call's change; what cannot be sent is told in the server's log.

    Takes: `chain`, how often each function was invoked on the way to this outcome, by its name.
    Differs: recursive loops are found among functions that are each other's destinations, not those that lead through a queue, a
    topic, a bucket or a client in a function. The event that is not carried out goes to the dead-letter queue, not to the on-failure
    destination.
    Source: docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
    """
    service, text = target.split(":")[2], json.dumps(record)
    try:
        if service == "lambda":
            _invoke(call, target, text, seed, chain)
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


def _invoke(call: Call, target: str, text: str, seed: str, chain: Mapping[str, int]) -> None:
    """Has a function invoked, unless it is one of a loop: then the event goes to its dead-letter queue alone, and the chain ends."""
    name = invocations.name_of(seed)
    function = call.find(FUNCTION.ref(call, target.split(":")[6]))
    if function is None or chain.get(function.name, 0) < LOOP or function.body.get("_recursive_loop") == "Allow":
        invocations.begin(call, target, text, name=name, event=True, chain=dict(chain))
        return
    log.warning("%s was invoked %d times in one chain of destinations: this recursive loop is ended.", target, LOOP)
    if letters := (function.body.get("DeadLetterConfig") or {}).get("TargetArn"):
        stopped = Document(kind=invocations.KIND, account=call.account, region=call.region, name=name, body={"payload": text})
        bury(call, letters, stopped, "400", "Lambda has detected your function being invoked in a recursive loop.")


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
