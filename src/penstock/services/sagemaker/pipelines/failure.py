"""The end of an execution that cannot be advanced: its look raises, whatever is done."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.pipelines import callbacks, jobs, lambdas
from penstock.services.sagemaker.pipelines.events import move_execution, tell_step
from penstock.services.sagemaker.pipelines.state import ENDED, RUNNING, STEP
from penstock.store.records import Document, Ref

KINDS = {maker.metadata: kind for kind, maker in jobs.MAKERS.items()} | {
    callbacks.TYPE: callbacks.TYPE, lambdas.TYPE: lambdas.TYPE
}  # fmt: skip
"""The type of a step, by what its metadata names."""
STOPPABLE = {maker.kind: maker for maker in jobs.MAKERS.values() if maker.stoppable}


def give_up(call: Call, execution: Document) -> float | None:
    """Ends an execution as failed: its running steps with it, and their jobs are asked to stop."""
    if execution.status in ENDED:
        return None
    for name, entry in execution.body["_steps"].items():
        if entry["status"] in RUNNING:
            _end_step(call, execution, f"{execution.name}/{name}")
            entry["status"] = "Failed"
            _stop_job(call, entry)
    move_execution(call, execution, "Failed", FailureReason=contract.INTERNAL_REASON)
    return None


def _end_step(call: Call, execution: Document, name: str) -> None:
    step = call.find(Ref(STEP.kind, execution.account, execution.region, name))
    if step is None:
        return
    previous, metadata = step.status, step.body.get("Metadata") or {}
    step.status = step.body["StepStatus"] = "Failed"
    step.body |= {"EndTime": call.now, "FailureReason": contract.INTERNAL_REASON}
    call.put(step)
    tell_step(call, execution, step, KINDS.get(next(iter(metadata), ""), ""), previous)


def _stop_job(call: Call, entry: dict[str, Any]) -> None:
    kind, name = entry.get("job") or ("", "")
    maker = STOPPABLE.get(kind)
    if maker is not None:
        jobs.attempt(call, f"Stop{maker.noun}", **{maker.name: name})
