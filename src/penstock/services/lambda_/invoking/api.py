"""Invoke, and how asynchronous invocations are retried and where their outcomes go."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from penstock.functions.base import FAILED, THROTTLED, Outcome
from penstock.kernel import invocations
from penstock.kernel.call import Call, slow_when
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_ import rules
from penstock.services.lambda_.invoking.destinations import reachable
from penstock.services.lambda_.invoking.orders import order_of
from penstock.services.lambda_.state import (
    FUNCTION,
    LATEST,
    Named,
    configuration_of,
    draw,
    function_of,
    missing,
    named,
    refused,
)
from penstock.store.records import Document

DESTINATIONS = ("sqs", "sns", "lambda", "events", "s3")
INLINE_BYTES = 65_536
"""A payload up to this size is parsed in the event loop: it takes less than a millisecond."""


def _is_large(call: Call) -> bool:
    """Whether a payload is one that takes long to read, and is read (what is too large is refused unread)."""
    return INLINE_BYTES < len(call.params.get("Payload") or b"") <= rules.SYNC_BYTES


@slow_when(_is_large)
def invoke(call: Call) -> dict[str, Any]:
    """Runs a function, or has it run.

    Raises: ServiceError ResourceNotFoundException, InvalidRequestContentException, RequestTooLargeException,
    TooManyRequestsException, ServiceException.
    Differs: a function whose State is Pending is waited for, as for a cold start, instead of refused. Between invocations the threads
        of its Python stand still, as at AWS; programs that it started, and threads within libraries, go on.
    """
    given = call.params
    function, found = configuration_of(call, named(call), draw())
    payload = given.get("Payload") or b""
    kind = given.get("InvocationType", "RequestResponse")
    rules.check_payload(payload, rules.ASYNC_BYTES if kind == "Event" else rules.SYNC_BYTES, "Invoke")
    context = _context(given.get("ClientContext"))
    if found.body.get("State") == "Failed":
        raise ServiceError("ResourceNotReadyException", found.body.get("StateReason", "The function's State is Failed."), 502)
    if kind == "DryRun":
        return {"StatusCode": 204, "_status": 204}
    if kind == "Event":
        invocations.begin(
            call, FUNCTION.arn_of(call, function.name) + _colon(named(call).qualifier), (payload or b"{}").decode(),
            name=call.request_id, client_context=context, event=True,
        )  # fmt: skip
        return {"StatusCode": 202, "_status": 202}
    if call.app.functions is None:
        raise ServiceError(FAILED, "The functions' dispatcher is not there.", 500)
    order = order_of(
        function, found, named(call).arn(call), payload, call.request_id, client_context=context,
        tail=given.get("LogType") == "Tail",
    )  # fmt: skip
    version = found.body["Version"]

    async def answer() -> dict[str, Any]:
        return _answer(await call.app.functions.invoke(order), version, order.tail)

    call.later = answer
    return {}


def _answer(outcome: Outcome, version: str, tail: bool) -> dict[str, Any]:
    """Raises: ServiceError where it came to no invocation."""
    if outcome.refused:
        status = {THROTTLED: 429, FAILED: 500}.get(outcome.refused, 502)
        members = {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"} if outcome.refused == THROTTLED else {}
        raise ServiceError(outcome.refused, outcome.message, status, Type="User" if status == 429 else "Service", **members)
    headers = {"content-type": "application/json"}
    answer: dict[str, Any] = {"StatusCode": 200, "ExecutedVersion": version, "Payload": outcome.payload, "_headers": headers}
    if outcome.error:
        answer["FunctionError"] = outcome.error
    if tail:
        answer["LogResult"] = base64.b64encode(outcome.log).decode()
    return answer


def _colon(qualifier: str) -> str:
    return f":{qualifier}" if qualifier else ""


def _context(given: str | None) -> str:
    """A ClientContext's JSON.

    Raises: ServiceError for what is none.
    """
    if not given:
        return ""
    try:
        text = base64.b64decode(given, validate=True).decode()
        if not isinstance(json.loads(text), dict) or len(text) > 3583:
            raise ValueError
    except (binascii.Error, ValueError):
        raise ServiceError(
            "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.", 400
        ) from None
    return json.dumps(json.loads(text))  # one line: it travels in a header


# --- how asynchronous invocations are carried out
def put_function_recursion_config(call: Call) -> dict[str, Any]:
    """Raises: ServiceError ResourceNotFoundException."""
    given = call.params["RecursiveLoop"]
    FUNCTION.save(call, function_of(call), _recursive_loop=given)
    return {"RecursiveLoop": given}


def get_function_recursion_config(call: Call) -> dict[str, Any]:
    """Raises: ServiceError ResourceNotFoundException."""
    return {"RecursiveLoop": function_of(call).body.get("_recursive_loop", "Terminate")}


def put_function_event_invoke_config(call: Call) -> dict[str, Any]:
    return _keep(call, {})


def update_function_event_invoke_config(call: Call) -> dict[str, Any]:
    _there(call, named(call))
    return _keep(call, _config(call)[1])


def get_function_event_invoke_config(call: Call) -> dict[str, Any]:
    return _show(call, *_config(call))


def delete_function_event_invoke_config(call: Call) -> None:
    wanted, _ = _config(call)
    function = function_of(call, wanted)
    configs = dict(function.body["_invoke_configs"])
    del configs[wanted.qualifier or LATEST]
    FUNCTION.save(call, function, _invoke_configs=configs or None)


def list_function_event_invoke_configs(call: Call) -> dict[str, Any]:
    function = _there(call, Named(named(call).name))
    configs: dict[str, dict[str, Any]] = function.body.get("_invoke_configs") or {}
    return {
        "FunctionEventInvokeConfigs": [
            _show(call, Named(function.name, qualifier), config) for qualifier, config in sorted(configs.items())
        ]
    }


def _config(call: Call) -> tuple[Named, dict[str, Any]]:
    """Raises: ServiceError ResourceNotFoundException."""
    wanted = named(call)
    function = call.find(FUNCTION.ref(call, wanted.name))
    config = (function.body.get("_invoke_configs") or {}).get(wanted.qualifier or LATEST) if function is not None else None
    if config is None:
        arn = Named(wanted.name, wanted.qualifier or LATEST).arn(call)
        raise missing(f"The function {arn} doesn't have an EventInvokeConfig")
    return wanted, config


def _there(call: Call, wanted: Named) -> Document:
    """The function, when what is wanted of it is there, too.

    Raises: ServiceError ResourceNotFoundException.
    """
    try:
        return configuration_of(call, wanted)[0]
    except ServiceError:
        raise missing("The function doesn't exist.") from None


def _keep(call: Call, before: dict[str, Any]) -> dict[str, Any]:
    given, wanted = call.params, named(call)
    function = _there(call, wanted)
    members = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
    if all(given.get(member) is None for member in members):
        raise refused(
            "You must specify at least one of error handling or destination setting."
        )
    config = {**before, **{member: given[member] for member in members if given.get(member) is not None}}
    _check_destinations(call, function, config.get("DestinationConfig") or {})
    config["LastModified"] = call.now
    configs = {**(function.body.get("_invoke_configs") or {}), wanted.qualifier or LATEST: config}
    FUNCTION.save(call, function, _invoke_configs=configs)
    return _show(call, wanted, config)


def _check_destinations(call: Call, function: Document, destinations: dict[str, Any]) -> None:
    """Raises: ServiceError InvalidParameterValueException."""
    arns = {outcome: (destinations.get(outcome) or {}).get("Destination") for outcome in ("OnSuccess", "OnFailure")}
    for arn in filter(None, arns.values()):
        if arn.split(":")[2] not in DESTINATIONS:
            told = [f"{name[0].lower()}{name[1:]}={f'{name}(destination={to})' if to else 'null'}" for name, to in arns.items()]
            raise refused(f"The provided destination config DestinationConfig({', '.join(told)}) is invalid.")
        if f"{arn}:".startswith(f"{function.arn}:"):
            raise refused("You can't specify the function as a destination for itself.")
        if not reachable(call, arn):
            raise refused(f"The destination ARN {arn} is invalid.")


def _show(call: Call, wanted: Named, config: dict[str, Any]) -> dict[str, Any]:
    arn = Named(wanted.name, wanted.qualifier or LATEST).arn(call)
    destinations = {"OnSuccess": {}, "OnFailure": {}, **(config.get("DestinationConfig") or {})}
    return {**config, "DestinationConfig": destinations, "FunctionArn": arn}
