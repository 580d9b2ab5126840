"""The engine of executions: each look sees what ended, begins what is ready, and says how the whole stands.

A look makes its jobs in the same change in which it notes them, so a step is begun once or not at all. Jobs wake their
execution whenever their status changes (their document's `_execution`).
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.pipelines.beginning import begin, try_again
from penstock.services.sagemaker.pipelines.events import move_execution
from penstock.services.sagemaker.pipelines.failure import give_up
from penstock.services.sagemaker.pipelines.following import follow, stop
from penstock.services.sagemaker.pipelines.look import Look
from penstock.services.sagemaker.pipelines.state import ENDED, EXECUTION, VERSION, definition_of
from penstock.services.sagemaker.pipelines.weaving import weave
from penstock.store.records import Document, Ref


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
    follow(look)
    if execution.status == "Stopping":
        stop(look)
    else:
        try_again(look)
        if not look.failed:
            begin(look)
    again = look.conclude()
    return 0.0 if execution.status in ENDED else again


STEPS = {EXECUTION.kind: advance}
GIVE_UP = {EXECUTION.kind: give_up}
