"""The lineage of an execution, entered when it has ended: what its jobs read and made, and then the packages that it registered.

An execution that is retried is entered again. A look enters a few jobs, and keeps in the same change how far it came.

Source: docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-auto-creation.html.
"""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.services.sagemaker import costs
from penstock.services.sagemaker.lineage import jobs as lineage
from penstock.services.sagemaker.lineage import packages
from penstock.services.sagemaker.nouns import FINAL
from penstock.services.sagemaker.pipelines import bills
from penstock.store.records import Document, Query, Ref, TagsPut

FEW = 10
"""So many jobs are entered within an engine step's 50 ms."""
TAG = "sagemaker:pipeline-execution-arn"
"""By which the SDK finds the execution of a training job."""
PACKAGE, TUNING = "sagemaker.model-package", "sagemaker.tuning-job"


def weave(call: Call, execution: Document) -> float | None:
    """Enters some of the lineage of an execution that has ended; a cached or reused result has been entered by its own.

    Gives: 0.0 while there is more to enter.
    """
    attempt, sources = execution.body.get("_attempt", 0), _sources(execution)
    entered, number, after = execution.body.get("_woven") or (attempt, 0, "")
    if entered != attempt:
        number, after = 0, ""
    if number >= len(sources):
        return None
    left = FEW
    while left > 0 and number < len(sources):
        found, more = _read(call, execution, sources[number], after, left)
        for document in found:
            if document.kind == PACKAGE:
                packages.enter(call, document)
            elif document.status in FINAL:
                enter_job(call, execution, document)
        left -= max(1, len(found))
        number, after = (number, more) if more else (number + 1, "")
    execution.body["_woven"] = [attempt, number, after]
    call.put(execution)
    return 0.0 if number < len(sources) else None


def _sources(execution: Document) -> list[tuple[str, str]]:
    """Where the jobs are found, in one order always: kinds, by the beginning of their names; then what steps made otherwise."""
    entries = {(entry["job"][0], entry["job"][1]) for entry in execution.body["_steps"].values() if "job" in entry}
    others = (each for each in entries if each[0] not in costs.KINDS or not each[1].startswith(bills.prefix(execution)))
    return [(kind, "") for kind in costs.KINDS] + sorted(each for each in others if each[0] in (*costs.KINDS, TUNING, PACKAGE))


def _read(call: Call, execution: Document, source: tuple[str, str], after: str, limit: int) -> tuple[list[Document], str]:
    """Some of a source's jobs, in the order of their names; and the name that the next ones come after, where there may be more."""
    kind, name = source
    maker = [execution.account, execution.region, execution.name]
    query = Query(
        kind=kind, account=execution.account, region=execution.region, order="name", limit=limit, after=(after, after) if after else None,
        name_prefix=bills.prefix(execution),
    )  # fmt: skip
    member = "_execution"
    if name:
        found = call.find(Ref(kind, execution.account, execution.region, name))
        if found is None or (kind != PACKAGE and found.body.get("_execution") != maker):
            return [], ""
        if kind != TUNING:
            return [found], ""
        query.kind, query.parent, query.name_prefix = "sagemaker.training-job", name, None
        member, maker = "_tuning", [execution.account, execution.region, name]
    page = call.app.store.page(query)
    return [job for job in page if job.body.get(member) == maker], page[-1].name if len(page) == limit else ""


# --- jobs
def enter_job(call: Call, execution: Document, job: Document) -> None:
    """Enters one job, and tags it with its execution."""
    lineage.enter(call, job)
    call.row(TagsPut(arn=job.arn, tags={TAG: execution.arn}))
