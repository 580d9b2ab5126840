"""One look at one execution: its steps' entries, and how what is found and done is written."""

from __future__ import annotations

import math
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.pipelines import retries
from penstock.services.sagemaker.pipelines.cache import Cache, Verdict
from penstock.services.sagemaker.pipelines.definition import Definition, Step
from penstock.services.sagemaker.pipelines.events import move_execution, tell_step
from penstock.services.sagemaker.pipelines.state import ATTEMPTS, ENDED, EXECUTION, RUNNING, STEP
from penstock.store.records import Document, Ref

LOOK_AGAIN_S = 60.0
"""Jobs wake their execution; this is for the case that one did not."""
FAILED_STEPS = "Step failure: One or multiple steps failed."
REASON_MOST = 1024


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

    # --- writing
    def end(self, name: str, status: str, reason: str) -> None:
        self.write(name, status, reason=reason)

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
