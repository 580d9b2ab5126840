"""What AWS would have billed for an execution, step by step: the jobs that it made, failed attempts included.

A step whose result was found by the cache, or reused, made no job and costs nothing.
"""

from __future__ import annotations

import math
from typing import Any

from penstock.services.sagemaker import costs
from penstock.services.sagemaker.pipelines.jobs import OUTCOMES
from penstock.services.sagemaker.pipelines.state import STEP
from penstock.store.records import Document, Query, Ref

TRIALS = 100_000


def bill(store: Any, execution: Document) -> dict[str, Any]:
    """What AWS would have billed. Takes: `store`, a Store.

    Gives {"execution", "status", "prices", "usd" (what is known of it), "unknown" (types without a price), "steps"}; a step is
    {"step", "status", "usd" (None where not all is known), "jobs": [{"job", "status", "uses"}]}, a use
    {"instance_type", "instances", "billable_s", "ran_s", "usd"}.
    """
    query = Query(kind=STEP.kind, account=execution.account, region=execution.region, parent=execution.name, order="rank", limit=10_000)
    made = made_by(store, execution)
    told = [_step(store, execution, document, made) for document in store.page(query)]
    uses = [use for step in told for job in step["jobs"] for use in job["uses"]]
    return {
        "execution": execution.arn,
        "status": execution.status,
        "prices": costs.prices().header(execution.region),
        "usd": math.fsum(use["usd"] or 0.0 for use in uses),
        "unknown": sorted({use["instance_type"] for use in uses if use["usd"] is None and use["instance_type"]}),
        "steps": told,
    }


def _step(store: Any, execution: Document, step: Document, made: dict[str, list[Document]]) -> dict[str, Any]:
    jobs = [job for job in jobs_of(store, execution, step.body["StepName"], made) if OUTCOMES.get(job.status)]
    shown: list[dict[str, Any]] = [
        {"job": job.arn, "status": job.status, "uses": [show(use) for use in costs.billed(costs.KINDS[job.kind], job.body)]}
        for job in jobs
    ]
    known = [use["usd"] for job in shown for use in job["uses"]]
    usd = None if None in known else math.fsum(known)
    cached = "CacheHitResult" in step.body or "SelectiveExecutionResult" in step.body
    return {"step": step.body["StepName"], "status": step.status, "cached": cached, "usd": usd, "jobs": shown}


def show(use: costs.Use) -> dict[str, Any]:
    return {
        "instance_type": use.instance_type, "instances": use.count, "billable_s": use.billable_s, "ran_s": use.ran_s,
        "usd": use.usd,
    }  # fmt: skip


def prefix(execution: Document) -> str:
    """What the names of an execution's jobs begin with, where its definition says nothing else."""
    return f"pipelines-{execution.name}-"


def made_by(store: Any, execution: Document) -> dict[str, list[Document]]:
    """The jobs with instances that bear an execution's name, by their steps: of all attempts, read once for all steps."""
    maker = [execution.account, execution.region, execution.name]
    found: dict[str, list[Document]] = {}
    for kind in costs.KINDS:
        query = Query(
            kind=kind, account=execution.account, region=execution.region, name_prefix=prefix(execution), order="name", limit=10_000
        )
        for job in store.page(query):
            if job.body.get("_execution") == maker:
                found.setdefault(job.body.get("_step", ""), []).append(job)
    return found


def jobs_of(store: Any, execution: Document, step: str, made: dict[str, list[Document]]) -> list[Document]:
    """The jobs with instances that an execution made for a step: of all its attempts, of a tuning job its trials.

    Takes: `made`, what `made_by` found.
    """
    entry = execution.body["_steps"].get(step, {}).get("job")
    last = store.get(Ref(entry[0], execution.account, execution.region, entry[1])) if entry else None
    found = {job.arn: job for job in made.get(step, [])}
    if last is not None and last.body.get("_execution") == [execution.account, execution.region, execution.name]:
        if last.kind == "sagemaker.tuning-job":
            return _trials(store, last)
        found[last.arn] = last
    return sorted((job for job in found.values() if job.kind in costs.KINDS), key=lambda job: job.created)


def _trials(store: Any, tuning: Document) -> list[Document]:
    query = Query(kind="sagemaker.training-job", account=tuning.account, region=tuning.region, parent=tuning.name, limit=TRIALS)
    return [trial for trial in store.page(query) if trial.body.get("_tuning") == [tuning.account, tuning.region, tuning.name]]
