"""Callback steps: a token goes out in a message, and the step waits until somebody brings it back.

A callback is a document under its token: Executing, until SendPipelineExecutionStepSuccess or -Failure ends it. The message is written in
the transaction that begins the step, so it is sent once or not at all.

Source: docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html (the message's members, stopping).
"""

from __future__ import annotations

import json
from typing import Any

from penstock.kernel import ids
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.resource import Resource
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.expressions import Scope, resolve, to_text
from penstock.store.records import Document

TYPE = "Callback"
TOKEN_LENGTH = 10
CALLBACK = Resource(
    "sagemaker.pipeline-callback",
    key="CallbackToken",
    path="pipeline-callback/{name}",
    arn="_arn",
    status="_status",
    moves={"Executing": {"Completed", "Failed"}},
    missing=("ResourceNotFound", "The callback token '{name}' is of no step."),
    updated="",
)
"""Its parent is the execution's id. Its body's own members: `_execution` and `_step`, whose it is; `_types`, the types of the outputs
that the step declares; `_outputs`, their values, typed; `_sent`, what goes into each message."""


def begin(call: Call, execution: Document, step: Step, scope: Scope) -> Document:
    """Sends the message with a new token, in the call's change.

    Raises: Unresolved; ServiceError, as SQS answers it.
    """
    url = to_text(resolve(step.raw["SqsQueueUrl"], scope))
    token = ids.word(TOKEN_LENGTH, ids.MIXED)
    sent = {
        "token": token,
        "pipelineExecutionArn": execution.arn,
        "arguments": resolve(step.arguments, scope),
    }
    body = {
        "SqsQueueUrl": url,
        "_execution": [execution.account, execution.region, execution.name],
        "_step": step.name,
        "_types": {each["OutputName"]: each["OutputType"] for each in step.raw.get("OutputParameters") or []},
        "_sent": sent,
    }
    with call.attempt():
        _send(call, url, sent, "Executing")
        return CALLBACK.create(call, token, body=body, status="Executing", parent=execution.name)


def ask_to_stop(call: Call, callback: Document) -> None:
    """Sends another message, that says that the execution is to stop: who has the token brings it back when he has cleaned up.

    Raises: ServiceError, as SQS answers it.
    """
    with call.attempt():
        _send(call, callback.body["SqsQueueUrl"], callback.body["_sent"], "Stopping")


def _send(call: Call, url: str, sent: dict[str, Any], status: str) -> None:
    try:
        call.other("sqs", "SendMessage", QueueUrl=url, MessageBody=json.dumps({**sent, "status": status}))
    except ServiceError as why:
        why.message = why.message.replace("The specified queue does not exist.", f"The specified queue does not exist: {url}")
        raise


def metadata(callback: Document) -> dict[str, Any]:
    """How the step's metadata shows it."""
    body = callback.body
    shown = {"CallbackToken": callback.name, "SqsQueueUrl": body["SqsQueueUrl"]}
    if outputs := body.get("_outputs"):
        shown["OutputParameters"] = [{"Name": name, "Value": to_text(value)} for name, value in outputs.items()]
    return {TYPE: shown}


def outputs(callback: Document) -> dict[str, Any]:
    """What later steps may refer to."""
    return {"OutputParameters": callback.body.get("_outputs") or {}}
