"""Invocations of functions that outlive a crash: how engine steps and other services have a function run.

An invocation is a document, put in the change of whoever wants it, so it happens if that change does. The lambda service runs it
and wakes who is to be told. Whoever is told reads the outcome and ends the invocation; one that nobody waits for ends itself.

    begin        in a step or an operation: a function is to run, with this payload
    outcome      what became of it; None while it waits or runs
    end          forgets it
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from penstock.kernel.call import Call
from penstock.store.records import Document, Ref

KIND = "lambda.invocation"
WAITING, SUCCEEDED, FAILED = "Waiting", "Succeeded", "Failed"
SPACE = uuid.UUID("6b0f8f1e-4a5e-4d0c-9d3e-1c0a7c1b2f55")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an invocation."""

    payload: str
    """What the function returned, as JSON; or the error in AWS's form (errorMessage, errorType, stackTrace)."""
    error: str = ""
    """Empty; "Unhandled" for an error of the function (its time-out, its end); or the code with which Lambda refused it."""
    request_id: str = ""

    @property
    def succeeded(self) -> bool:
        return not self.error


def name_of(seed: str) -> str:
    """The request id that a seed stands for: the same for the same look, so that a look that is repeated begins nothing twice."""
    return str(uuid.uuid5(SPACE, seed))


def begin(
    call: Call,
    function: str,
    payload: str,
    *,
    name: str,
    tell: Ref | None = None,
    retries: int = 0,
    timeout_s: float | None = None,
    **about: Any,
) -> Document:
    """Has a function invoked, of the call's account and region, in the call's change.

    Takes: `function`, its name or ARN, with a qualifier or without; `payload`, JSON; `name`, a request id; `tell`, the document
    whose step is woken at the end, and which then ends the invocation; `retries`, after errors of the function (throttling is waited
    for); `timeout_s`, after which the invocation is given up, however long the function may run; `about`, further members of the body.
    """
    body = {
        "function": function,
        "payload": payload,
        "retries": retries,
        "attempts": 0,
        "tell": list(tell) if tell else None,
        **about,
    }
    if timeout_s is not None:
        body["until"] = call.now + timeout_s
    made = Document(
        kind=KIND, account=call.account, region=call.region, name=name, status=WAITING, created=call.now, body=body
    )  # fmt: skip
    call.put(made)
    call.wake(made.ref)
    return made


def find(call: Call, name: str) -> Document | None:
    return call.find(Ref(KIND, call.account, call.region, name))


def outcome(call: Call, name: str) -> Outcome | None:
    """What became of an invocation that is there; None while it waits or runs."""
    document = find(call, name)
    if document is None or document.status == WAITING:
        return None
    return outcome_of(document)


def outcome_of(document: Document) -> Outcome:
    return Outcome(document.body.get("answer", ""), document.body.get("error", ""), document.name)


def end(call: Call, name: str) -> None:
    """Forgets an invocation; a function that still runs goes on, and nobody hears of it."""
    if (document := find(call, name)) is not None:
        call.delete(document)
        call.wake(document.ref)  # the look that it waits for, at an outcome that nobody fetched, goes too
