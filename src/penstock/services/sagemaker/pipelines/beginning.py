"""How steps begin: which are ready, and what each type of step makes."""

from __future__ import annotations

import math
from typing import Any

from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker import faults
from penstock.services.sagemaker.pipelines import callbacks, conditions, jobs, lambdas, records, retries
from penstock.services.sagemaker.pipelines.cache import Verdict
from penstock.services.sagemaker.pipelines.checks import EXECUTED, FOREIGN, NOT_YET
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.experiments import configure
from penstock.services.sagemaker.pipelines.expressions import Unresolved, resolve, to_text
from penstock.services.sagemaker.pipelines.look import Look
from penstock.services.sagemaker.pipelines.scope import StepScope
from penstock.services.sagemaker.pipelines.state import MAX_PARALLEL, RUNNING

BATCH = 16
"""How many jobs one look makes: it must not hold the engine for long, and looks again at once."""
DESCRIPTION_MOST = 3072


def try_again(look: Look) -> None:
    """Makes the next attempt of the steps whose pause is over."""
    due = [name for name in look.running if look.entries[name].get("due", math.inf) <= look.call.now]
    for name in due[:BATCH]:
        entry = look.entries[name]
        del entry["due"]
        entry["attempt"] += 1
        start(look, look.definition.steps[name])


def begin(look: Look) -> None:
    """Begins what is ready, in order; steps that end at once make others ready in the same look."""
    allowed = look.execution.body.get("ParallelismConfiguration", {}).get("MaxParallelExecutionSteps", MAX_PARALLEL)
    skipped: set[str] = set()
    running, made = len(look.running), 0
    for name in look.definition.order:
        step = look.definition.steps[name]
        if name in look.entries or not counts(look, name) or waits(look, step, skipped):
            continue
        if step.type in jobs.MAKERS or step.type in (callbacks.TYPE, lambdas.TYPE):
            if running >= allowed:
                continue
            if made >= BATCH:
                look.more = True
                break
            made += 1
        start(look, step)
        running += look.entries[name]["status"] in RUNNING
        if look.failed:
            break


def counts(look: Look, name: str) -> bool:
    """Whether a step is part of this execution: all are, unless some were selected."""
    return look.selected is None or name in look.selected or name in look.entries


def waits(look: Look, step: Step, skipped: set[str]) -> bool:
    """Whether the step is not ready; one that never will be joins the skipped."""
    if step.branch and counts(look, step.branch[0]):
        condition, wanted = step.branch
        entry = look.entries.get(condition, {})
        if condition in skipped or (entry.get("status") == "Succeeded" and entry["outcome"] is not wanted):
            skipped.add(step.name)
            return True
        if entry.get("status") != "Succeeded":
            return True
    if not skipped.isdisjoint(step.needs):
        skipped.add(step.name)
        return True
    if any(look.entries.get(need, {}).get("status") == "Succeeded" for need in step.unless):
        skipped.add(step.name)
        return True
    return any(
        look.entries.get(need, {}).get("status") != "Succeeded" for need in step.needs if counts(look, need)
    )


def start(look: Look, step: Step) -> None:
    """Begins one step."""
    if step.type == "Condition":
        decide(look, step)
    elif step.type == "Fail":
        give_up(look, step)
    elif step.type == callbacks.TYPE:
        ask(look, step)
    elif step.type == lambdas.TYPE:
        invoke(look, step)
    elif step.type == records.TYPE:
        record(look, step)
    elif step.type in EXECUTED:
        make(look, step)
    else:
        foreign = FOREIGN.get(step.type)
        told = f"needs {foreign}, which is not on this machine: Penstock does not run it" if foreign else "is not run yet"
        if step.type in NOT_YET:
            told += f": {NOT_YET[step.type]}"
        look.end(step.name, "Failed", f"ClientError: A step of the type {step.type} {told}.")


def _refuse(look: Look, step: Step, why: Unresolved | ServiceError, operation: str = "", verdict: Verdict | None = None) -> None:
    """A step cannot begin: what it refers to has no value, or the operation that it needs is refused."""
    if isinstance(why, Unresolved):
        look.end(step.name, "Failed", f"ClientError: {why}")
    else:
        told = f"Failed to invoke {operation}. Error Details: {why.message}" if operation else why.message
        look.fail(step, f"ClientError: {told}", retries.kind_of_error(why), verdict)


def decide(look: Look, step: Step) -> None:
    """Evaluates a Condition step: all of its conditions must hold.

    Differs: a step without a description is described by what it compared.
    """
    scope = StepScope(look.call, look.execution, look.definition.steps)

    def value(operand: Any) -> Any:
        return resolve(operand, scope)

    given = step.arguments.get("Conditions") or []
    try:
        outcome = all(conditions.holds(condition, value) for condition in given)
        told = " and ".join(conditions.explain(condition, value) for condition in given)
    except Unresolved as why:
        look.end(step.name, "Failed", f"ClientError: {why}")
        return
    told = f"{told} is {str(outcome).lower()}"[:DESCRIPTION_MOST] if told else ""
    metadata = {"Condition": {"Outcome": str(outcome)}}
    look.write(step.name, "Succeeded", metadata, outcome=outcome, description=told)


def give_up(look: Look, step: Step) -> None:
    """Ends a Fail step, with its message as the reason."""
    scope = StepScope(look.call, look.execution, look.definition.steps)
    try:
        told = to_text(resolve(step.arguments.get("ErrorMessage", ""), scope))
    except Unresolved as why:
        told = f"ClientError: {why}"
    look.write(step.name, "Failed", {"Fail": {"ErrorMessage": told[:3072]}}, reason=told)


def ask(look: Look, step: Step) -> None:
    """Begins a Callback step: its message goes out, and the step waits for the token."""
    scope = StepScope(look.call, look.execution, look.definition.steps)
    try:
        callback = callbacks.begin(look.call, look.execution, step, scope)
    except (Unresolved, ServiceError) as why:
        _refuse(look, step, why, "sqs:SendMessage")
        return
    look.write(step.name, "Executing", callbacks.metadata(callback), job=[callback.kind, callback.name])


def invoke(look: Look, step: Step) -> None:
    """Begins a Lambda step: its function is invoked, unless an earlier result stands for it."""
    scope = StepScope(look.call, look.execution, look.definition.steps)
    verdict = None
    try:
        arguments = lambdas.arguments_of(step, scope)
        verdict = look.cache.look(step, arguments)
        if verdict is not None and verdict.hit:
            reuse(look, step, verdict)
            return
        faults.refuse(look.call, step.name)
    except (Unresolved, ServiceError) as why:
        _refuse(look, step, why, "lambda:Invoke", verdict)
        return
    attempt = look.entries.get(step.name, {}).get("attempt", 1)
    invoked = lambdas.begin(look.call, look.execution, step, arguments, attempt)
    job = [invoked.kind, invoked.name]
    look.write(step.name, "Executing", lambdas.metadata(invoked), job=job, verdict=verdict)


def record(look: Look, step: Step) -> None:
    """Enters what a Lineage step asks for."""
    try:
        arguments = resolve(step.arguments, StepScope(look.call, look.execution, look.definition.steps))
        faults.refuse(look.call, step.name)
        made = records.enter(look.call, arguments)
    except (Unresolved, ServiceError) as why:
        _refuse(look, step, why)
        return
    look.write(step.name, "Succeeded", {"Lineage": made})
    look.entries[step.name]["outputs"] = made


def make(look: Look, step: Step) -> None:
    """Makes a step's job, model or package."""
    maker = jobs.MAKERS[step.type]
    name = jobs.name_job(look.execution, step, _prefix(step), look.entries.get(step.name, {}).get("attempt", 1))
    scope = StepScope(look.call, look.execution, look.definition.steps, name)
    verdict = None
    try:
        arguments = resolve(step.arguments, scope)
        verdict = look.cache.look(step, arguments)
        if verdict is not None and verdict.hit:
            reuse(look, step, verdict)
            return
        configure(look.call, look.execution, step, arguments)
        faults.refuse(look.call, step.name)
        job = jobs.make(look.call, look.execution, step, arguments, name)
    except (Unresolved, ServiceError) as why:
        _refuse(look, step, why, f"sagemaker:{maker.create}", verdict)
        return
    look.write(
        step.name,
        jobs.OUTCOMES.get(job.status, "Executing"),
        {maker.metadata: {"Arn": job.arn}},
        reason=f"ClientError: {job.body.get('FailureReason', '')}",
        job=[job.kind, job.name],
        verdict=verdict,
    )


def reuse(look: Look, step: Step, verdict: Verdict) -> None:
    """Ends a step with the result of an earlier run."""
    assert verdict.record is not None
    job = jobs.find(look.call, look.execution, verdict.record.body)
    assert job is not None
    is_lambda = step.type == lambdas.TYPE
    metadata = lambdas.metadata(job) if is_lambda else {jobs.MAKERS[step.type].metadata: {"Arn": job.arn}}
    look.write(step.name, "Succeeded", metadata, job=verdict.record.body["job"], verdict=verdict)


def _prefix(step: Step) -> str | None:
    """The prefix that a definition may give its jobs' names (PipelineDefinitionConfig.use_custom_job_prefix)."""
    given = step.arguments.get(jobs.MAKERS[step.type].name)
    return given if isinstance(given, str) else None
