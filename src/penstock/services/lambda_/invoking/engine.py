"""The engine's looks at invocations that outlive a crash: attempts, the pauses between them, and the end.

An attempt is an order with a key. The dispatcher knows an order by its key, after a restart too where a worker has it; one that
it does not know was not begun, or was lost with its worker, and is given again. So an attempt may run twice, as at AWS, and is
never forgotten.

Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import json
from typing import Any

from penstock.functions.base import FAILED, THROTTLED, Functions, Outcome
from penstock.kernel import invocations
from penstock.kernel.app import App
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.invoking import destinations
from penstock.services.lambda_.invoking.orders import order_of
from penstock.services.lambda_.state import FUNCTION, LATEST, configuration_of, draw, read_name
from penstock.store.records import Change, Document, Query, Ref, Wake

HEARTBEAT_S = 20.0
RETRIES, MAX_AGE_S = 2, 21_600.0
LOSSES = 8
"""So often a worker may be lost, or the service fail, until the invocation is given up."""
THROTTLE_S = (1.0, 300.0)
"""The first pause after a throttled attempt, which doubles, and the longest."""
KEPT_S = 86_400.0
"""How long an outcome is kept that nobody fetches."""


def recover(app: App) -> int:
    """At the engine's start: has every invocation that has not ended looked at now, since the dispatcher that had its order is gone.

    Gives how many there are.
    """
    waiting = app.store.page(Query(kind=invocations.KIND, status=invocations.WAITING, limit=100_000, bodies=False))
    now = app.clock.now()
    if waiting:
        app.store.commit(Change(wakes=[Wake(**one.ref._asdict(), due=now) for one in waiting]))
    return len(waiting)


def carry_out(call: Call, invocation: Document) -> float | None:
    """One look at an invocation."""
    body = invocation.body
    if invocation.status != invocations.WAITING:
        if call.now < body["ended"] + KEPT_S:
            return float(body["ended"]) + KEPT_S - call.now
        call.delete(invocation)
        return None
    until = float(body.get("until", "inf"))
    if call.now < (due := min(body.get("due", 0.0), until)):
        return float(due) - call.now
    functions: Functions = call.app.functions
    found = functions.look(key_of(invocation))
    if isinstance(found, Outcome):
        key = key_of(invocation)
        call.afterwards.append(lambda: functions.forget(key))
        return _hear(call, invocation, found)
    if call.now >= until:
        return _end(call, invocation, _told(f"It did not end within its {body['until'] - invocation.created:g} s."), "TimedOut")
    if found is False and (ended := _begin(call, invocation)) is not None:
        return ended
    return min(HEARTBEAT_S, max(0.01, until - call.now))


def key_of(invocation: Document) -> str:
    body = invocation.body
    return f"{invocation.account}/{invocation.region}/{invocation.name}/{body['attempts']}.{body.get('losses', 0)}"


def has_begun(call: Call, invocation: Document) -> bool:
    """Whether the dispatcher has, or had, the attempt that is due."""
    return call.app.functions.look(key_of(invocation)) is not False


def ref_of(key: str) -> Ref:
    """The invocation that an order's key is of."""
    account, region, name, _ = key.split("/")
    return Ref(invocations.KIND, account, region, name)


def _begin(call: Call, invocation: Document) -> float | None:
    """Gives the dispatcher an attempt; gives the end's answer where there can be none."""
    body = invocation.body
    try:
        wanted = read_name(call, body["function"])
        function, found = configuration_of(call, wanted, draw())
        if found.body.get("State") == "Failed":
            raise ServiceError("ResourceNotReadyException", found.body.get("StateReason", ""))
    except ServiceError as fault:
        if body.get("event"):  # whose destinations would be told is gone
            call.delete(invocation)
            return 0.0
        return _end(call, invocation, _told(fault.message), fault.code)
    if call.now - invocation.created > _limits(function, wanted.qualifier)[1] and body.get("event"):
        return _end(call, invocation, "", "EventAgeExceeded")
    order = order_of(
        function, found, wanted.arn(call), body["payload"].encode(), invocation.name, key=key_of(invocation),
        client_context=body.get("client_context", ""), quiet=_is_quiet(body, function, wanted.qualifier),
    )  # fmt: skip
    call.app.functions.begin(order)
    return None


def _hear(call: Call, invocation: Document, outcome: Outcome) -> float | None:
    """What an attempt came to: the end, or another one after a pause."""
    body = invocation.body
    answer = outcome.payload.decode("utf-8", "replace")
    if outcome.refused == THROTTLED:
        body["losses"], body["throttled"] = body.get("losses", 0) + 1, body.get("throttled", 0) + 1
        return _again(call, invocation, min(THROTTLE_S[1], THROTTLE_S[0] * 2.0 ** min(body["throttled"] - 1, 20)))
    if outcome.refused == FAILED:
        body["losses"], body["failures"] = body.get("losses", 0) + 1, body.get("failures", 0) + 1
        if body["failures"] <= LOSSES:
            return _again(call, invocation, 0.0 if outcome.lost else 1.0)
    if outcome.refused:
        return _end(call, invocation, _told(outcome.message), outcome.refused)
    body["attempts"] += 1
    if not outcome.error:
        return _end(call, invocation, answer, "")
    retries = body["retries"]
    if body.get("event"):
        retries = _retries(call, invocation)
    if body["attempts"] <= retries:
        return _again(call, invocation, call.app.settings.lambda_retry_s * body["attempts"])
    return _end(call, invocation, answer, outcome.error)


def _again(call: Call, invocation: Document, pause_s: float) -> float:
    invocation.body["due"] = call.now + pause_s
    call.put(invocation)
    return pause_s


def _end(call: Call, invocation: Document, answer: str, error: str) -> float | None:
    """Ends an invocation: whoever waits is told, else the destinations are."""
    body = invocation.body
    if body.get("event"):
        _tell_destinations(call, invocation, answer, error)
    if not body["tell"]:
        call.delete(invocation)
        return 0.0
    invocation.status = invocations.FAILED if error else invocations.SUCCEEDED
    body |= {"answer": answer, "error": error, "ended": call.now}
    call.put(invocation)
    call.wake(Ref(*body["tell"]))
    return KEPT_S


def _tell_destinations(call: Call, invocation: Document, answer: str, error: str) -> None:
    try:
        wanted = read_name(call, invocation.body["function"])
        function, found = configuration_of(call, wanted)
    except ServiceError:
        return
    config = _config(function, wanted.qualifier)
    which = "OnFailure" if error else "OnSuccess"
    version = found.body["Version"]
    target = ((config.get("DestinationConfig") or {}).get(which) or {}).get("Destination")
    if target:
        condition = "Success" if not error else "EventAgeExceeded" if error == "EventAgeExceeded" else "RetriesExhausted"
        arn = f"{function.arn}:{wanted.qualifier or LATEST}"
        record = destinations.record_of(call, invocation, arn, condition, version, answer, error)
        before = invocation.body.get("chain") or {}
        chain = {**before, function.name: before.get(function.name, 0) + 1}
        destinations.deliver(call, target, record, invocation.name, not error, chain)
    letters = (found.body.get("DeadLetterConfig") or {}).get("TargetArn")
    if error and letters:
        destinations.bury(call, letters, invocation, "200", _message(answer))


def _config(function: Document, qualifier: str) -> dict[str, Any]:
    configs: dict[str, dict[str, Any]] = function.body.get("_invoke_configs") or {}
    return configs.get(qualifier or LATEST) or {}


def _is_quiet(body: dict[str, Any], function: Document, qualifier: str) -> bool:
    """Whether nobody is told what the function returns."""
    destinations = _config(function, qualifier).get("DestinationConfig") or {}
    return bool(body.get("event")) and not body["tell"] and not (destinations.get("OnSuccess") or {}).get("Destination")


def _limits(function: Document, qualifier: str) -> tuple[int, float]:
    config = _config(function, qualifier)
    return int(config.get("MaximumRetryAttempts", RETRIES)), float(config.get("MaximumEventAgeInSeconds", MAX_AGE_S))


def _retries(call: Call, invocation: Document) -> int:
    wanted = read_name(call, invocation.body["function"])
    function = call.find(FUNCTION.ref(call, wanted.name))
    return 0 if function is None else _limits(function, wanted.qualifier)[0]


def _told(message: str) -> str:
    return json.dumps({"errorMessage": message})


def _message(answer: str) -> str:
    try:
        return str(json.loads(answer).get("errorMessage", ""))
    except (ValueError, AttributeError):
        return ""


def give_up(call: Call, invocation: Document) -> None:
    _end(call, invocation, _told("We encountered an internal error. Please try again."), FAILED)


STEPS = {invocations.KIND: carry_out}
GIVE_UP = {invocations.KIND: give_up}
