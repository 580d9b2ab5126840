"""Faults on demand: errors that an operator puts in the way of named steps and jobs, to see what retry policies do.

Each is a document of the account: what happens, to whom, how often still. It is counted down in the change that it
happens in, so after a crash it has happened as often as it was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker import contract
from penstock.store.records import GLOBAL, Document, Query

KIND = "sagemaker.fault"
REFUSALS = {
    "throttling": ("ThrottlingException", "Rate exceeded", 400),
    "service-fault": ("InternalFailure", "The request processing has failed because of an unknown error.", 500),
    "resource-limit": (
        "ResourceLimitExceeded", "The account-level service limit is reached (a fault that was asked for).", 400,
    ),
}  # fmt: skip
"""What the operation answers that a step calls to make its job, model or package."""
FAILURES = {
    "capacity": "CapacityError: Unable to provision requested ML compute capacity. "
    "Please retry using a different ML instance type.",
    "internal-error": contract.INTERNAL_REASON,
}
"""The reason that a job fails with before it has begun."""
INTERRUPTIONS = ("spot-interruption",)
"""What takes the instances from a spot training job that runs."""
KINDS = (*REFUSALS, *FAILURES, *INTERRUPTIONS)


def make(
    account: str, number: str, kind: str, target: str, times: int, now: float, after_s: float = 0.0, gap_s: float = 0.0
) -> Document:  # fmt: skip
    """A fault of one of the KINDS for `times` steps or jobs whose names match `target` (a pattern, as a shell has it).

    Takes: of an interruption, `after_s`, how long the program has run by then, and `gap_s`, how long there is no capacity.
    """
    body: dict[str, Any] = {"Fault": kind, "Target": target, "Left": times}
    if kind in INTERRUPTIONS:
        body |= {"After": after_s, "Gap": gap_s}
    return Document(kind=KIND, account=account, region=GLOBAL, name=number, created=now, body=body)


def of_account(account: str) -> Query:
    """The question for an account's faults, oldest first."""
    return Query(kind=KIND, account=account, region=GLOBAL, order="created")


def refuse(call: Call, name: str) -> None:
    """Raises the error that a step of this name is to meet when it makes its job.

    Raises: ServiceError.
    """
    if struck := _strike(call, [name], REFUSALS):
        raise ServiceError(*REFUSALS[struck])


def failure_of(call: Call, job: Document) -> str | None:
    """The reason that a job is to fail with instead of running, by its own name or its step's."""
    struck = _strike(call, _names(job), FAILURES)
    return FAILURES[struck] if struck else None


def interruptions(call: Call, job: Document, ran_s: float) -> list[tuple[float, Document]]:
    """The interruptions that a running spot job is to meet, each with the seconds until it is due; the next one first."""
    found = [(max(0.0, fault.body["After"] - ran_s), fault) for fault in _aimed(call, _names(job), INTERRUPTIONS)]
    return sorted(found, key=lambda each: each[0])


def count_down(call: Call, fault: Document) -> None:
    """Notes that a fault has happened once more."""
    fault.body["Left"] -= 1
    call.put(fault) if fault.body["Left"] else call.delete(fault)


def _names(job: Document) -> list[str]:
    return [job.name, *([job.body["_step"]] if "_step" in job.body else [])]


def _strike(call: Call, names: list[str], among: Iterable[str]) -> str | None:
    for fault in _aimed(call, names, among):
        count_down(call, fault)
        return str(fault.body["Fault"])
    return None


def _aimed(call: Call, names: list[str], among: Iterable[str]) -> Iterator[Document]:
    """The faults of some kinds that are for one of the names, oldest first."""
    for stored in call.app.store.page(of_account(call.account)):
        fault = call.find(stored.ref)
        if fault is None or fault.body["Fault"] not in among:
            continue
        if any(fnmatchcase(name, fault.body["Target"]) for name in names):
            yield fault
