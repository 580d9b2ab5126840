"""Managed spot training: interruptions, the pause until there is capacity again, and the time that a job may wait.

An interruption is put in the way by `penstock fault`. It stops the run (SIGTERM, then SIGKILL); what lies in the checkpoint
folder goes to S3, nothing else does; the next attempt is a run of its own, begun with what lies in S3 then. All that an
interruption changes is one change: a crash before it has the same done again, a crash after it finds a job that waits.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.kernel import auth
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.runs.base import ENDED, RUNNING, WAITING, Executor, RunState
from penstock.services.sagemaker import faults, jobs, nouns, programs, results, specs, telling
from penstock.services.sagemaker.training import rules
from penstock.services.sagemaker.training.state import GROUP, move_on
from penstock.store.records import Document

INTERRUPTED = "interrupted"
"""Why a run was stopped that an interruption ended."""
CHECKPOINTS = "checkpoints"
NOTE = "penstock: the spot instances were taken back (interruption {number}); the job goes on when there is capacity again."


def look(call: Call, kind: programs.Kind, document: Document) -> float | None:
    """What a spot job has of its own to do: the seconds until its next look, or None where this look goes on as any job's.

    What ends the job here asks for one more look, since None would have the folder given back before the end is durable.
    """
    if document.status in nouns.FINAL:
        return None
    runs: Executor = call.app.runs
    state = runs.look(document.body["_run"])
    if state is not None and state.phase == ENDED and state.reason == INTERRUPTED:
        if document.status == "Stopping":
            return jobs.conclude(call, kind, document, replace(state, reason="stopped")) or 0.0
        return _interrupt(call, kind, document, state)
    if document.status == "Stopping":
        return None
    if state is None or state.phase == WAITING:
        return _wait(call, kind, document, state)
    return _watch(call, kind, document, state) if state.phase == RUNNING else None


def sooner(call: Call, document: Document, pause_s: float | None) -> float | None:
    """The seconds until the next look: no later than the wait is over, or the next interruption strikes."""
    if pause_s is None or document.status != "InProgress":
        return pause_s
    moments = [rules.wait_until(document.body) - call.now]
    runs: Executor = call.app.runs
    state = runs.look(document.body["_run"])
    if state is not None and state.phase == RUNNING:
        moments += [wait_s for wait_s, _ in faults.interruptions(call, document, call.now - state.started)]
    return min([pause_s, *(max(0.0, moment) for moment in moments)])


def _wait(call: Call, kind: programs.Kind, document: Document, state: RunState | None) -> float | None:
    """A job whose program does not run: till its next attempt, and no longer than it may."""
    runs: Executor = call.app.runs
    body, until = document.body, rules.wait_until(document.body)
    if past := body.get("_past"):
        runs.forget(past)
    if call.now >= until:
        if state is None:
            return jobs.conclude(call, kind, document, RunState(ENDED, reason="timeout", ended=call.now)) or 0.0
        runs.stop(body["_run"], "timeout")
        return 0.0
    if state is None and "_again" in body:
        if call.now < body["_again"]:
            return float(min(body["_again"], until) - call.now)
        for member in ("_again", "_past"):
            body.pop(member, None)
        move_on(body, "Starting", call.now)
        telling.show(call, kind, document, True)
    return None


def _watch(call: Call, kind: programs.Kind, document: Document, state: RunState) -> float | None:
    """A job whose program runs: till its wait is over, or an interruption strikes."""
    runs: Executor = call.app.runs
    if call.now >= rules.wait_until(document.body):
        runs.stop(document.body["_run"], "timeout")
        return jobs.HEARTBEAT_S
    if "_interrupt" in document.body:
        runs.stop(document.body["_run"], INTERRUPTED)
        return jobs.HEARTBEAT_S
    for wait_s, fault in faults.interruptions(call, document, call.now - state.started):
        if wait_s <= 0.0:  # noted first: what is counted down in this change has happened, whatever dies afterwards
            faults.count_down(call, fault)
            document.body["_interrupt"] = fault.body.get("Gap", 0.0)
            kind.resource.save(call, document)
            return 0.0
    return None


def _interrupt(call: Call, kind: programs.Kind, document: Document, state: RunState) -> float:
    """Brings the checkpoints of an interrupted run to S3, and has the job wait for its next attempt."""
    body = document.body
    found = [result for result in state.results if result.output == CHECKPOINTS]
    begun = body.get("_taken", 0)
    until = begun + jobs.PUBLISHED_AT_ONCE
    try:
        with call.attempt():
            results.publish(call, kind, document, replace(state, results=found[begun:until]))
    except ServiceError as error:
        return jobs.conclude(call, kind, document, replace(state, results=[]), results.unpublished(error)) or 0.0
    if len(found) > until:
        body["_taken"] = until
        kind.resource.save(call, document)
        return 0.0
    gap_s = float(body.pop("_interrupt", 0.0))
    body.pop("_taken", None)
    body["_spent"] = body.get("_spent", 0.0) + (max(0.0, state.ended - state.started) if state.started else 0.0)
    _renew(call, document)
    move_on(body, "Interrupted", state.ended or call.now)
    body["_again"] = call.now + gap_s
    for host in kind.hosts(document):
        file = call.app.logs.path(document.account, document.region, GROUP, nouns.stream_name(document, host.name))
        call.app.logs.append(file, call.now, NOTE.format(number=body["_interruptions"]))
    telling.show(call, kind, document, True)
    return 0.0


def _renew(call: Call, document: Document) -> None:
    """Gives the job the name and the credentials of its next run; those of the last one end."""
    body = document.body
    for key in auth.keys_of_run(call.app.store, body["_run"]):
        call.delete(key)
    body["_interruptions"] = body.get("_interruptions", 0) + 1
    body["_past"], body["_run"] = body["_run"], f"{nouns.run_name(document)}-{body['_interruptions']}"
    specs.give_key(call, document)
