"""The engine of executions: each look sees what ended, begins what is ready, and says how the whole stands.

A look makes its jobs in the same change in which it notes them, so a step is begun once or not at all. Jobs wake their
execution whenever their status changes (their document's `_execution`).
"""

from __future__ import annotations

import math
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker import faults
from penstock.services.sagemaker.pipelines import callbacks, conditions, jobs, lambdas, records, retries
from penstock.services.sagemaker.pipelines.cache import Cache, Verdict
from penstock.services.sagemaker.pipelines.checks import EXECUTED, FOREIGN, NOT_YET
from penstock.services.sagemaker.pipelines.definition import Definition, Step
from penstock.services.sagemaker.pipelines.events import move_execution, tell_step
from penstock.services.sagemaker.pipelines.experiments import configure, note_end, note_start
from penstock.services.sagemaker.pipelines.expressions import Unresolved, resolve, to_text
from penstock.services.sagemaker.pipelines.failure import give_up
from penstock.services.sagemaker.pipelines.scope import StepScope
from penstock.services.sagemaker.pipelines.state import (
    ATTEMPTS,
    ENDED,
    EXECUTION,
    MAX_PARALLEL,
    RUNNING,
    STEP,
    VERSION,
    definition_of,
)
from penstock.services.sagemaker.pipelines.weaving import weave
from penstock.store.records import Document, Ref

BATCH = 16
"""How many jobs one look makes: it must not hold the engine for long, and looks again at once."""
LOOK_AGAIN_S = 60.0
"""Jobs wake their execution; this is for the case that one did not."""
NO_REASON = "ClientError: SendPipelineExecutionStepFailure was called without a FailureReason."
FAILED_STEPS = "Step failure: One or multiple steps failed."
REASON_MOST = 1024
DESCRIPTION_MOST = 3072


def advance(call: Call, execution: Document) -> float | None:
    """One look at an execution.

    Differs: after a step failed, no further step is begun, those that depend on a failure (Trigger Failed or Any) neither; what
        waits for its next attempt goes on. Only what ran with caching on is found again by the cache; its age counts from its
        end.
    """
    if execution.status in ENDED:  # the looks after the last one: nobody waits for them
        return weave(call, execution)
    version = Ref(VERSION.kind, execution.account, execution.region, execution.body["_version"])
    try:
        store: Any = call.app.store  # mypy takes a Protocol for unhashable
        definition = definition_of(store, version)
    except LookupError:
        move_execution(call, execution, "Failed", FailureReason="The definition of the pipeline is not there any more.")
        return None
    look = Look(call, execution, definition)
    look.follow()
    if execution.status == "Stopping":
        look.stop()
    else:
        look.try_again()
        if not look.failed:
            look.begin()
    again = look.conclude()
    return 0.0 if execution.status in ENDED else again


STEPS = {EXECUTION.kind: advance}
GIVE_UP = {EXECUTION.kind: give_up}


class Look:
    """One look at one execution: its steps' entries, and what is found and done."""

    def __init__(self, call: Call, execution: Document, definition: Definition):
        self.call, self.execution, self.definition = call, execution, definition
        self.entries: dict[str, dict[str, Any]] = execution.body["_steps"]
        self.selected: list[str] | None = execution.body.get("_selected")
        self.cache = Cache(call, execution)
        self.changed = False
        self.more = False
        """Whether ready steps were left for the next look."""

    @property
    def failed(self) -> bool:
        return any(entry["status"] == "Failed" for entry in self.entries.values())

    @property
    def running(self) -> list[str]:
        return [name for name, entry in self.entries.items() if entry["status"] in RUNNING]

    # --- what became of running steps
    def follow(self) -> None:
        """Ends the steps whose jobs have ended: only their jobs are read as a whole, the others' statuses at once.

        A Lambda step's document ends by this look and not by itself, so it is always read.
        """
        running = [name for name in self.running if "due" not in self.entries[name]]
        statuses = jobs.statuses(self.call, self.execution, [self.entries[name] for name in running])
        for name in running:
            kind, job_name = self.entries[name]["job"]
            status = statuses.get((kind, job_name))
            if kind != lambdas.INVOKED.kind and status is not None and status not in jobs.OUTCOMES:
                continue
            job = jobs.find(self.call, self.execution, self.entries[name])
            if job is None:
                self.end(name, "Failed", "ClientError: what the step made was deleted before it ended.")
                continue
            if job.kind == lambdas.INVOKED.kind:
                lambdas.settle(self.call, job)
            outcome = jobs.OUTCOMES.get(job.status)
            if outcome is None:
                continue
            if outcome == "Stopped" and self.execution.status != "Stopping":
                self.end(name, "Failed", f"ClientError: {job.arn} was stopped, and not by its execution.")
            elif job.kind == lambdas.INVOKED.kind:
                self.end_lambda(name, job, outcome)
            elif job.kind == callbacks.CALLBACK.kind:
                self.write(name, outcome, callbacks.metadata(job), reason=job.body.get("FailureReason") or NO_REASON)
            elif outcome == "Failed":
                reason = job.body.get("FailureReason", "")
                self.fail(self.definition.steps[name], f"ClientError: {reason}", retries.kind_of_failure(reason))
            else:
                self.end(name, outcome, "")
            note_end(self.call, self.execution, job, outcome)

    def end_lambda(self, name: str, invoked: Document, outcome: str) -> None:
        """Ends a Lambda step; one that a stopped execution waited for is Stopped, unless its time was over."""
        reason = invoked.body.get("FailureReason", "")
        told = reason if reason.startswith("InternalServerError") else f"ClientError: {reason}"
        if self.execution.status == "Stopping":
            timed_out = invoked.status == "TimedOut"
            self.write(name, "Failed" if timed_out else "Stopped", lambdas.metadata(invoked), reason=told)
        elif outcome == "Failed":
            kind = retries.SERVICE_FAULT if told == reason else None
            self.fail(self.definition.steps[name], told, kind)
        else:
            self.write(name, outcome, lambdas.metadata(invoked))

    def stop(self) -> None:
        """Asks every running job to stop, once."""
        for name in self.running:
            entry, kind = self.entries[name], self.definition.steps[name].type
            if "due" in entry:
                self.end(name, "Stopped", "")
                continue
            if kind == callbacks.TYPE:
                self.ask_to_stop(name)
                continue
            if kind == lambdas.TYPE:  # it is waited for
                if entry["status"] != "Stopping":
                    self.write(name, "Stopping")
                continue
            maker = jobs.MAKERS[kind]
            if entry["status"] == "Stopping" or not maker.stoppable:
                continue
            job = jobs.find(self.call, self.execution, entry)
            if job is not None and jobs.attempt(self.call, f"Stop{maker.noun}", **{maker.name: job.name}) is not None:
                self.write(name, "Stopping")

    def ask_to_stop(self, name: str) -> None:
        """Tells whoever has a step's token that the execution is to stop, once: it waits for the token all the same.

        Differs: where the message cannot be sent (the queue is not there any more), the step ends as stopped.
        """
        callback = jobs.find(self.call, self.execution, self.entries[name])
        if callback is None or self.entries[name]["status"] == "Stopping":
            return
        try:
            callbacks.ask_to_stop(self.call, callback)
        except ServiceError:
            self.end(name, "Stopped", "")
            return
        self.write(name, "Stopping")

    def try_again(self) -> None:
        """Makes the next attempt of the steps whose pause is over."""
        due = [name for name in self.running if self.entries[name].get("due", math.inf) <= self.call.now]
        for name in due[:BATCH]:
            entry = self.entries[name]
            del entry["due"]
            entry["attempt"] += 1
            self.start(self.definition.steps[name])

    def fail(self, step: Step, reason: str, kind: str | None, verdict: Verdict | None = None) -> None:
        """Ends a step as failed, or has it wait for its next attempt where a retry policy is for its kind of failure."""
        entry = self.entries.get(step.name, {"began": self.call.now})
        again = None if self.execution.status == "Stopping" else retries.pause(step, entry, kind, self.call.now)
        if again is None:
            self.write(step.name, "Failed", reason=reason, verdict=verdict)
            return
        policy, pause_s = again
        due = self.call.now + pause_s
        told = {"exception": kind, "reason": reason[:REASON_MOST], "at": self.call.now, "again": due}
        self.write(step.name, "Starting", verdict=verdict, attempt=told)
        entry = self.entries[step.name]
        entry["due"] = due
        used = entry.setdefault("retries", {})
        used[str(policy)] = used.get(str(policy), 0) + 1

    # --- beginning
    def begin(self) -> None:
        """Begins what is ready, in order; steps that end at once make others ready in the same look."""
        allowed = self.execution.body.get("ParallelismConfiguration", {}).get("MaxParallelExecutionSteps", MAX_PARALLEL)
        skipped: set[str] = set()
        running, made = len(self.running), 0
        for name in self.definition.order:
            step = self.definition.steps[name]
            if name in self.entries or not self.counts(name) or self.waits(step, skipped):
                continue
            if step.type in jobs.MAKERS or step.type in (callbacks.TYPE, lambdas.TYPE):
                if running >= allowed:
                    continue
                if made >= BATCH:
                    self.more = True
                    break
                made += 1
            self.start(step)
            running += self.entries[name]["status"] in RUNNING
            if self.failed:
                break

    def counts(self, name: str) -> bool:
        """Whether a step is part of this execution: all are, unless some were selected."""
        return self.selected is None or name in self.selected or name in self.entries

    def waits(self, step: Step, skipped: set[str]) -> bool:
        """Whether the step is not ready; one that never will be joins the skipped."""
        if step.branch and self.counts(step.branch[0]):
            condition, wanted = step.branch
            entry = self.entries.get(condition, {})
            if condition in skipped or (entry.get("status") == "Succeeded" and entry["outcome"] is not wanted):
                skipped.add(step.name)
                return True
            if entry.get("status") != "Succeeded":
                return True
        if not skipped.isdisjoint(step.needs):
            skipped.add(step.name)
            return True
        if any(self.entries.get(need, {}).get("status") == "Succeeded" for need in step.unless):
            skipped.add(step.name)
            return True
        return any(
            self.entries.get(need, {}).get("status") != "Succeeded" for need in step.needs if self.counts(need)
        )

    def start(self, step: Step) -> None:
        """Begins one step."""
        if step.type == "Condition":
            self.decide(step)
        elif step.type == "Fail":
            self.give_up(step)
        elif step.type == callbacks.TYPE:
            self.ask(step)
        elif step.type == lambdas.TYPE:
            self.invoke(step)
        elif step.type == records.TYPE:
            self.record(step)
        elif step.type in EXECUTED:
            self.make(step)
        else:
            foreign = FOREIGN.get(step.type)
            told = f"needs {foreign}, which is not on this machine: Penstock does not run it" if foreign else "is not run yet"
            if step.type in NOT_YET:
                told += f": {NOT_YET[step.type]}"
            self.end(step.name, "Failed", f"ClientError: A step of the type {step.type} {told}.")

    def decide(self, step: Step) -> None:
        """Evaluates a Condition step: all of its conditions must hold.

        Differs: a step without a description is described by what it compared.
        """
        scope = StepScope(self.call, self.execution, self.definition.steps)

        def value(operand: Any) -> Any:
            return resolve(operand, scope)

        given = step.arguments.get("Conditions") or []
        try:
            outcome = all(conditions.holds(condition, value) for condition in given)
            told = " and ".join(conditions.explain(condition, value) for condition in given)
        except Unresolved as why:
            self.end(step.name, "Failed", f"ClientError: {why}")
            return
        told = f"{told} is {str(outcome).lower()}"[:DESCRIPTION_MOST] if told else ""
        metadata = {"Condition": {"Outcome": str(outcome)}}
        self.write(step.name, "Succeeded", metadata, outcome=outcome, description=told)

    def give_up(self, step: Step) -> None:
        """Ends a Fail step, with its message as the reason."""
        scope = StepScope(self.call, self.execution, self.definition.steps)
        try:
            told = to_text(resolve(step.arguments.get("ErrorMessage", ""), scope))
        except Unresolved as why:
            told = f"ClientError: {why}"
        self.write(step.name, "Failed", {"Fail": {"ErrorMessage": told[:3072]}}, reason=told)

    def ask(self, step: Step) -> None:
        """Begins a Callback step: its message goes out, and the step waits for the token."""
        scope = StepScope(self.call, self.execution, self.definition.steps)
        try:
            callback = callbacks.begin(self.call, self.execution, step, scope)
        except Unresolved as why:
            self.end(step.name, "Failed", f"ClientError: {why}")
            return
        except ServiceError as fault:
            told = f"ClientError: Failed to invoke sqs:SendMessage. Error Details: {fault.message}"
            self.fail(step, told, retries.kind_of_error(fault))
            return
        self.write(step.name, "Executing", callbacks.metadata(callback), job=[callback.kind, callback.name])

    def invoke(self, step: Step) -> None:
        """Begins a Lambda step: its function is invoked, unless an earlier result stands for it."""
        scope = StepScope(self.call, self.execution, self.definition.steps)
        verdict = None
        try:
            arguments = lambdas.arguments_of(step, scope)
            verdict = self.cache.look(step, arguments)
            if verdict is not None and verdict.hit:
                self.reuse(step, verdict)
                return
            faults.refuse(self.call, step.name)
        except Unresolved as why:
            self.end(step.name, "Failed", f"ClientError: {why}")
            return
        except ServiceError as fault:
            told = f"ClientError: Failed to invoke lambda:Invoke. Error Details: {fault.message}"
            self.fail(step, told, retries.kind_of_error(fault), verdict)
            return
        attempt = self.entries.get(step.name, {}).get("attempt", 1)
        invoked = lambdas.begin(self.call, self.execution, step, arguments, attempt)
        job = [invoked.kind, invoked.name]
        self.write(step.name, "Executing", lambdas.metadata(invoked), job=job, verdict=verdict)

    def record(self, step: Step) -> None:
        """Enters what a Lineage step asks for."""
        try:
            arguments = resolve(step.arguments, StepScope(self.call, self.execution, self.definition.steps))
            faults.refuse(self.call, step.name)
            made = records.enter(self.call, arguments)
        except Unresolved as why:
            self.end(step.name, "Failed", f"ClientError: {why}")
            return
        except ServiceError as fault:
            self.fail(step, f"ClientError: {fault.message}", retries.kind_of_error(fault))
            return
        self.write(step.name, "Succeeded", {"Lineage": made})
        self.entries[step.name]["outputs"] = made

    def make(self, step: Step) -> None:
        """Makes a step's job, model or package."""
        maker = jobs.MAKERS[step.type]
        name = jobs.name_job(
            self.execution, step, self.prefix(step), self.entries.get(step.name, {}).get("attempt", 1)
        )
        scope = StepScope(self.call, self.execution, self.definition.steps, name)
        verdict = None
        try:
            arguments = resolve(step.arguments, scope)
            verdict = self.cache.look(step, arguments)
            if verdict is not None and verdict.hit:
                self.reuse(step, verdict)
                return
            configure(self.call, self.execution, step, arguments)
            faults.refuse(self.call, step.name)
            job = jobs.make(self.call, self.execution, step, arguments, name)
        except Unresolved as why:
            self.end(step.name, "Failed", f"ClientError: {why}")
            return
        except ServiceError as fault:
            told = f"ClientError: Failed to invoke sagemaker:{maker.create}. Error Details: {fault.message}"
            self.fail(step, told, retries.kind_of_error(fault), verdict)
            return
        note_start(self.call, self.execution, step, job)
        self.write(
            step.name,
            jobs.OUTCOMES.get(job.status, "Executing"),
            {maker.metadata: {"Arn": job.arn}},
            reason=f"ClientError: {job.body.get('FailureReason', '')}",
            job=[job.kind, job.name],
            verdict=verdict,
        )

    def reuse(self, step: Step, verdict: Verdict) -> None:
        """Ends a step with the result of an earlier run."""
        assert verdict.record is not None
        job = jobs.find(self.call, self.execution, verdict.record.body)
        assert job is not None
        is_lambda = step.type == lambdas.TYPE
        metadata = lambdas.metadata(job) if is_lambda else {jobs.MAKERS[step.type].metadata: {"Arn": job.arn}}
        self.write(step.name, "Succeeded", metadata, job=verdict.record.body["job"], verdict=verdict)

    def prefix(self, step: Step) -> str | None:
        """The prefix that a definition may give its jobs' names (PipelineDefinitionConfig.use_custom_job_prefix)."""
        given = step.arguments.get(jobs.MAKERS[step.type].name)
        return given if isinstance(given, str) else None

    # --- writing
    def end(self, name: str, status: str, reason: str) -> None:
        self.write(name, status, reason=reason)

    def write(
        self,
        name: str,
        status: str,
        metadata: dict[str, Any] | None = None,
        reason: str = "",
        job: list[str] | None = None,
        outcome: bool | None = None,
        description: str = "",
        verdict: Verdict | None = None,
        attempt: dict[str, Any] | None = None,
    ) -> None:
        """Notes a step's status in the execution, writes the step as it is shown, and tells of it."""
        step, now = self.definition.steps[name], self.call.now
        document = self.document(step)
        previous = document.status
        document.status = document.body["StepStatus"] = status
        if metadata is not None:
            document.body["Metadata"] = metadata
        if description:
            document.body.setdefault("StepDescription", description)
        if status in ENDED:
            document.body["EndTime"] = now
        if status == "Failed" and reason:
            document.body["FailureReason"] = reason[:REASON_MOST]
        entry = self.entries.setdefault(name, {"began": now, "attempt": 1})
        entry["status"] = status
        entry.pop("due", None)
        document.body["AttemptCount"] = entry.get("attempt", 1)
        if attempt is not None:
            document.body.setdefault(ATTEMPTS, []).append(attempt)
        if job is not None:
            entry["job"] = job
        if outcome is not None:
            entry["outcome"] = outcome
        if verdict is not None:
            self.cache.note(document, verdict)
        if status in ENDED:
            self.cache.keep(document, entry)
        self.call.put(document)
        tell_step(self.call, self.execution, document, step.type, previous)
        self.changed = True

    def document(self, step: Step) -> Document:
        """The step's document; a new one for a step that begins."""
        body, name = self.execution.body, f"{self.execution.name}/{step.name}"
        if step.name in self.entries:
            found = self.call.find(Ref(STEP.kind, self.execution.account, self.execution.region, name))
            if found is not None:
                return found
        body["_begun"] += 1
        shown = {
            "StepName": step.name,
            "StepDisplayName": step.display_name,
            "StepDescription": step.description,
            "StartTime": self.call.now,
            "Metadata": {},
        }
        return Document(
            kind=STEP.kind,
            account=self.execution.account,
            region=self.execution.region,
            name=name,
            parent=self.execution.name,
            rank=body["_begun"],
            created=self.call.now,
            body={member: value for member, value in shown.items() if value != ""},
        )

    def conclude(self) -> float | None:
        """Ends the execution when nothing runs and nothing more is to begin; gives when to look again."""
        if self.running:
            if self.changed:
                EXECUTION.save(self.call, self.execution)
            due = min((entry["due"] for entry in self.entries.values() if "due" in entry), default=math.inf)
            return 0.0 if self.more else min(LOOK_AGAIN_S, max(0.0, due - self.call.now))
        if self.execution.status == "Stopping":
            move_execution(self.call, self.execution, "Stopped")
        elif self.failed:
            move_execution(self.call, self.execution, "Failed", FailureReason=FAILED_STEPS)
        elif self.more:
            EXECUTION.save(self.call, self.execution)
            return 0.0
        else:
            move_execution(self.call, self.execution, "Succeeded")
        return None
