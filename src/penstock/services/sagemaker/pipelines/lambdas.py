"""Lambda steps: a function is invoked with the step's inputs; what it returns are the step's outputs, by their declared types.

The invocation (`kernel.invocations`) outlives crashes, and wakes the execution when it has ended. The step's own document keeps
what came of it, for later steps and for the cache.

Source: docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html (ten minutes at most; a stopped execution waits for the
function: Stopped if it ends, Failed if its time is over).
"""

from __future__ import annotations

import json
from typing import Any

from penstock.kernel import invocations
from penstock.kernel.call import Call
from penstock.kernel.resource import Resource
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.expressions import Scope, resolve, to_text
from penstock.store.records import Document

TYPE = "Lambda"
TIMEOUT_S = 600.0
REFUSED = frozenset({"TooManyRequestsException", "ServiceException"})
INVOKED = Resource(
    "sagemaker.pipeline-lambda",
    key="RequestId",
    path="pipeline-lambda/{name}",
    arn="_arn",
    status="_status",
    moves={"Executing": {"Completed", "Failed", "TimedOut"}},
    updated="",
)
"""Its parent is the execution's id; its name is the request id. Its body's own members: `_execution` and `_step`, whose it is; `_types`,
the types of the outputs that the step declares; `_outputs`, their values, typed."""


class Unfit(Exception):
    """What a function returned is not what its step declares; the sentence says how."""


def arguments_of(step: Step, scope: Scope) -> dict[str, Any]:
    """What the step's result depends on, resolved: the function, its inputs, the outputs declared.

    Raises: Unresolved.
    """
    return {
        "FunctionArn": to_text(resolve(step.raw["FunctionArn"], scope)),
        "Arguments": resolve(step.arguments, scope),
        "OutputParameters": step.raw.get("OutputParameters") or [],
    }


def begin(call: Call, execution: Document, step: Step, arguments: dict[str, Any], attempt: int) -> Document:
    """Has the function invoked, in the call's change."""
    name = invocations.name_of(f"{execution.arn}/{step.name}/{execution.body.get('_attempt', 0)}/{attempt}")
    arn = arguments["FunctionArn"]
    invocations.begin(
        call, arn, json.dumps(arguments["Arguments"]), name=name, tell=execution.ref, timeout_s=TIMEOUT_S
    )
    body = {
        "FunctionArn": arn,
        "_execution": [execution.account, execution.region, execution.name],
        "_step": step.name,
        "_types": {each["OutputName"]: each["OutputType"] for each in arguments["OutputParameters"]},
    }
    return INVOKED.create(call, name, body=body, status="Executing", parent=execution.name)


def settle(call: Call, invoked: Document) -> None:
    """Ends a step's document when its invocation has ended."""
    if invoked.status != "Executing":
        return
    found = invocations.outcome(call, invoked.name)
    if found is None:
        if invocations.find(call, invoked.name) is None:
            _end(call, invoked, "Failed", "InternalServerError: The invocation is not there any more.")
        return
    invocations.end(call, invoked.name)
    arn = invoked.body["FunctionArn"]
    if found.error == "TimedOut":
        told = f"The function {arn} did not end within the {TIMEOUT_S / 60:g} minutes that a Lambda step has."
        _end(call, invoked, "TimedOut", told)
    elif found.error:
        kind, message = _error(found)
        timed_out = kind == "Sandbox.Timedout"
        told = f"Failed to invoke lambda function {arn}. Error Details: {kind}: {message}"
        _end(call, invoked, "TimedOut" if timed_out else "Failed", told, "InternalServerError" if kind in REFUSED else "")
    else:
        _take(call, invoked, found.payload)


def _take(call: Call, invoked: Document, payload: str) -> None:
    types = invoked.body["_types"]
    try:
        invoked.body["_outputs"] = _typed(json.loads(payload or "null"), types)
    except Unfit as why:
        wants = f"step '{invoked.body['_step']}' declares"
        _end(call, invoked, "Failed", f"What the function {invoked.body['FunctionArn']} returned is not what {wants}: {why}")
    else:
        _end(call, invoked, "Completed")


def _end(call: Call, invoked: Document, status: str, reason: str = "", code: str = "") -> None:
    told = f"{code}: {reason}" if code else reason
    INVOKED.move(call, invoked, status, FailureReason=told or None)


def _error(found: invocations.Outcome) -> tuple[str, str]:
    """The type and the message of a function's error."""
    try:
        told = json.loads(found.payload)
        message, kind = str(told.get("errorMessage", "")), str(told.get("errorType", ""))
    except (ValueError, AttributeError):
        message, kind = found.payload, ""
    return (kind or found.error) if found.error == "Unhandled" else found.error, message


# --- outputs
def _typed(returned: Any, types: dict[str, str]) -> dict[str, Any]:
    """The declared outputs out of what a function returned; what is not declared is left out, as at AWS.

    Raises: Unfit.
    """
    if not types:
        return {}
    if not isinstance(returned, dict):
        raise Unfit(f"a dictionary with {', '.join(types)} is wanted, and it returned {_clip(returned)}")
    outputs = {}
    for name, kind in types.items():
        if returned.get(name) is None:
            there = ", ".join(map(str, returned)) or "nothing"
            raise Unfit(f"the output '{name}' of type {kind} is missing; it returned {there}")
        value = _fit(returned[name], kind)
        if value is None:
            raise Unfit(f"the output '{name}' is declared as {kind}, and it returned {_clip(returned[name])}")
        outputs[name] = value
    return outputs


def _fit(value: Any, kind: str) -> Any:
    """A value as its declared type; None where it is none."""
    if isinstance(value, (dict, list)):
        return None
    if kind == "String":
        return value if isinstance(value, str) else to_text(value)
    if kind == "Boolean":
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
        if kind == "Float":
            return number
        return int(value) if not isinstance(value, float) or number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def _clip(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


# --- how it is shown
def metadata(invoked: Document) -> dict[str, Any]:
    """How the step's metadata shows it."""
    shown: dict[str, Any] = {"Arn": invoked.body["FunctionArn"]}
    if outputs := invoked.body.get("_outputs"):
        shown["OutputParameters"] = [{"Name": name, "Value": to_text(value)} for name, value in outputs.items()]
    return {TYPE: shown}


def outputs(invoked: Document) -> dict[str, Any]:
    """What later steps may refer to."""
    return {"OutputParameters": invoked.body.get("_outputs") or {}}
