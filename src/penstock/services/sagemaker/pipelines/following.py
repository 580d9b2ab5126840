"""What became of running steps, and how they are asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines import callbacks, jobs, lambdas, retries
from penstock.services.sagemaker.pipelines.look import Look
from penstock.store.records import Document

NO_REASON = "ClientError: SendPipelineExecutionStepFailure was called without a FailureReason."
SETTLED: Mapping[str, Callable[[Call, Document], None]] = {lambdas.INVOKED.kind: lambdas.settle}
"""What ends a document of such a kind, where it does not end by itself: it is read at each look of its execution."""


def follow(look: Look) -> None:
    """Ends the steps whose documents have ended: only these are read as a whole, the others' statuses at once."""
    running = [name for name in look.running if "due" not in look.entries[name]]
    statuses = jobs.statuses(look.call, look.execution, [look.entries[name] for name in running])
    for name in running:
        kind, job_name = look.entries[name]["job"]
        status = statuses.get((kind, job_name))
        if kind not in SETTLED and status is not None and status not in jobs.OUTCOMES:
            continue
        made = jobs.find(look.call, look.execution, look.entries[name])
        if made is None:
            look.end(name, "Failed", "ClientError: what the step made was deleted before it ended.")
            continue
        if kind in SETTLED:
            SETTLED[kind](look.call, made)
        outcome = jobs.OUTCOMES.get(made.status)
        if outcome is None:
            continue
        if outcome == "Stopped" and look.execution.status != "Stopping":
            look.end(name, "Failed", f"ClientError: {made.arn} was stopped, and not by its execution.")
        else:
            ENDS.get(kind, _end_job)(look, name, made, outcome)


def _end_job(look: Look, name: str, job: Document, outcome: str) -> None:
    if outcome != "Failed":
        look.end(name, outcome, "")
        return
    reason = job.body.get("FailureReason", "")
    look.fail(look.definition.steps[name], f"ClientError: {reason}", retries.kind_of_failure(reason))


def _end_callback(look: Look, name: str, callback: Document, outcome: str) -> None:
    look.write(name, outcome, callbacks.metadata(callback), reason=callback.body.get("FailureReason") or NO_REASON)


def _end_lambda(look: Look, name: str, invoked: Document, outcome: str) -> None:
    """Ends a Lambda step; one that a stopped execution waited for is Stopped, unless its time was over."""
    reason = invoked.body.get("FailureReason", "")
    told = reason if reason.startswith("InternalServerError") else f"ClientError: {reason}"
    if look.execution.status == "Stopping":
        timed_out = invoked.status == "TimedOut"
        look.write(name, "Failed" if timed_out else "Stopped", lambdas.metadata(invoked), reason=told)
    elif outcome == "Failed":
        kind = retries.SERVICE_FAULT if told == reason else None
        look.fail(look.definition.steps[name], told, kind)
    else:
        look.write(name, outcome, lambdas.metadata(invoked))


ENDS: Mapping[str, Callable[[Look, str, Document, str], None]] = {
    lambdas.INVOKED.kind: _end_lambda, callbacks.CALLBACK.kind: _end_callback
}  # fmt: skip
"""How a step ends, by the kind of what it made; jobs, models and packages end alike."""


# --- stopping
def stop(look: Look) -> None:
    """Asks every running job to stop, once."""
    for name in look.running:
        entry, kind = look.entries[name], look.definition.steps[name].type
        if "due" in entry:
            look.end(name, "Stopped", "")
            continue
        if kind == callbacks.TYPE:
            _ask_to_stop(look, name)
            continue
        if kind == lambdas.TYPE:  # it is waited for
            if entry["status"] != "Stopping":
                look.write(name, "Stopping")
            continue
        maker = jobs.MAKERS[kind]
        if entry["status"] == "Stopping" or not maker.stoppable:
            continue
        job = jobs.find(look.call, look.execution, entry)
        if job is not None and jobs.attempt(look.call, f"Stop{maker.noun}", **{maker.name: job.name}) is not None:
            look.write(name, "Stopping")


def _ask_to_stop(look: Look, name: str) -> None:
    """Tells whoever has a step's token that the execution is to stop, once: it waits for the token all the same.

    Differs: where the message cannot be sent (the queue is not there any more), the step ends as stopped.
    """
    callback = jobs.find(look.call, look.execution, look.entries[name])
    if callback is None or look.entries[name]["status"] == "Stopping":
        return
    try:
        callbacks.ask_to_stop(look.call, callback)
    except ServiceError:
        look.end(name, "Stopped", "")
        return
    look.write(name, "Stopping")
