"""Why the steps of an execution hit the cache or missed it: what the engine noted when it began them."""

from __future__ import annotations

from typing import Any

from penstock.services.sagemaker.pipelines import cache, cachekeys
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.state import ATTEMPTS, ENDED, EXECUTION, STEP, VERSION, definition_of
from penstock.store.records import Document, Query, Ref


def find_execution(store: Any, of: str) -> Document | None:
    """The execution that an ARN or an id means; the id is unique. Takes: `store`, a Store."""
    if of.startswith("arn:"):
        found: Document | None = store.by_arn(of)
        return found if found is not None and found.kind == EXECUTION.kind else None
    query = Query(kind=EXECUTION.kind, name_prefix=of, order="name", limit=2)
    return next((execution for execution in store.page(query) if execution.name == of), None)


def explain(store: Any, execution: Document, only: str | None = None) -> list[dict[str, Any]]:
    """What the cache did for each step, in the order of the definition.

    Gives, a step: {"step", "type", "status", "outcome", "why"}, and where there is one "mode", "source", "differences"
    ([{"attribute", "before", "now"}]), "unkept" and "attempts" (those that failed and were followed by another).
    `outcome`: hit, first, changed, expired, refused or gone; off where caching is not on, none where the type is never
    cached, reused where the step was not selected, waiting where it was not begun,
    did not run where the execution has ended so.
    Raises: LookupError for a step that the definition does not have.
    """
    version = Ref(VERSION.kind, execution.account, execution.region, execution.body["_version"])
    definition = definition_of(store, version)
    if only is not None and only not in definition.steps:
        raise LookupError(only)
    return [_tell(store, execution, definition.steps[name]) for name in definition.order if only in (None, name)]


def _tell(store: Any, execution: Document, step: Step) -> dict[str, Any]:
    document = store.get(Ref(STEP.kind, execution.account, execution.region, f"{execution.name}/{step.name}"))
    told: dict[str, Any] = {"step": step.name, "type": step.type, "status": document.status if document else None}
    if document is not None and ATTEMPTS in document.body:
        told["attempts"] = document.body[ATTEMPTS]
    if document is not None and cache.NOTE in document.body:
        return {**told, **document.body[cache.NOTE]}
    if document is None and execution.status in ENDED:
        return told | {"outcome": "did not run", "why": "the execution ended without it"}
    if document is not None and "SelectiveExecutionResult" in document.body:
        return told | {"outcome": "reused", "why": "the step was not selected; its result is the source execution's"}
    if step.type not in cachekeys.KEYS:
        return told | {"outcome": "none", "why": f"steps of type {step.type} are never cached"}
    if not (step.raw.get("CacheConfig") or {}).get("Enabled"):
        return told | {"outcome": "off", "why": "the step's CacheConfig does not have Enabled: true"}
    if document is None:
        return told | {"outcome": "waiting", "why": "the step was not begun"}
    return told | {"outcome": "waiting", "why": "the step's arguments could not be resolved, so it has no key"}
