"""SageMaker's operations that belong to no one noun: tags, and Search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.kernel import pages, tags
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError, invalid
from penstock.services.sagemaker import search as searching
from penstock.services.sagemaker.experiments import links
from penstock.services.sagemaker.experiments.state import COMPONENT, EXPERIMENT, TRIAL
from penstock.store.records import Document, Query, TagsGone, TagsPut

TAG_PAGES = pages.Paging(default=50)

RECORDS: dict[str, tuple[str, str, str, str]] = {
    "TrainingJob": ("sagemaker.training-job", "TrainingJob", "TrainingJobName", ""),
    "HyperParameterTuningJob": ("sagemaker.tuning-job", "HyperParameterTuningJob", "HyperParameterTuningJobName", ""),
    "Experiment": ("sagemaker.experiment", "Experiment", "ExperimentName", ""),
    "ExperimentTrial": ("sagemaker.trial", "Trial", "TrialName", "ExperimentName"),
    "ExperimentTrialComponent": ("sagemaker.trial-component", "TrialComponent", "TrialComponentName", ""),
    "Endpoint": ("sagemaker.endpoint", "Endpoint", "EndpointName", ""),
    "ModelPackage": ("sagemaker.model-package", "ModelPackage", "ModelPackageName", "ModelPackageGroupName"),
    "ModelPackageGroup": ("sagemaker.model-package-group", "ModelPackageGroup", "ModelPackageGroupName", ""),
    "Pipeline": ("sagemaker.pipeline", "Pipeline", "PipelineName", ""),
    "PipelineExecution": ("sagemaker.pipeline-execution", "PipelineExecution", "", ""),
}
"""What Search looks through: a Resource's kind, and the member of a result that holds the record.

Then the members of the record that are the document's name and its parent, where there are such: a search for one of
these is a question to the store.
"""
FOLDED = {resource.kind for resource in (EXPERIMENT, TRIAL, COMPONENT) if resource.folded}
JOBS = {"training-job": "TrainingJob", "processing-job": "ProcessingJob", "transform-job": "TransformJob"}
BATCH = 500


# --- tags
def add_tags(call: Call) -> dict[str, Any]:
    """Adds tags to any resource of SageMaker's.

    Raises: ServiceError (ValidationException) for a resource that is not there, a bad key, or more than 50.
    """
    arn, given = _tagged(call), tags.parse(call.params["Tags"])
    merged = {**call.app.store.tags(arn), **given}
    tags.check_count(merged)
    call.row(TagsPut(arn=arn, tags=given))
    return {"Tags": tags.listed(merged)}


def list_tags(call: Call) -> dict[str, Any]:
    listed = tags.listed(call.app.store.tags(_tagged(call)))
    return pages.cut(call, "Tags", listed, lambda tag: tag["Key"], paging=TAG_PAGES)


def delete_tags(call: Call) -> None:
    call.row(TagsGone(arn=_tagged(call), keys=call.params["TagKeys"]))


def _tagged(call: Call) -> str:
    """The ARN asked for, if something of the account's and region's has it."""
    arn: str = call.params["ResourceArn"]
    found = next((put for put in call.change.puts if put.arn == arn), None) or call.app.store.by_arn(arn)
    ours = found is not None and found.kind.startswith("sagemaker.")
    if found is None or not ours or (found.account, found.region) != (call.account, call.region):
        raise invalid("Resource does not exist.")
    return arn


# --- search
@slow
def search(call: Call) -> dict[str, Any]:
    """Finds resources by what Describe shows of them and by their tags.

    Raises: ServiceError with 501 for a kind of resource that is not served.
    Differs: NotEquals also finds records that lack the property.
    """
    given = call.params
    if given["Resource"] not in RECORDS:
        raise ServiceError(
            "NotImplemented", f"Penstock does not serve sagemaker:Search of {given['Resource']} (yet).", 501
        )
    kind, member, named, parent = RECORDS[given["Resource"]]
    expression = _visible(given)
    query = Query(kind=kind, account=call.account, region=call.region, order="name", limit=BATCH)
    query.name_prefix, query.parent = (_asked(kind, searching.demanded(expression, each)) for each in (named, parent))
    found = [(name, record) for name, record in _records(call, query) if searching.matches(record, expression)]
    order = given.get("SortBy", "LastModifiedTime")
    descending = given.get("SortOrder", "Descending") == "Descending"
    answer = pages.cut(
        call,
        "Results",
        found,
        lambda one: [*searching.sort_key(one[1], order, "CreationTime"), one[0]],
        descending=descending,
        show=lambda one: {member: one[1]},
    )
    return {**answer, "TotalHits": {"Value": len(found), "Relation": "EqualTo"}}


def _asked(kind: str, name: str | None) -> str | None:
    """The name that the store is asked for; none with capitals of a kind whose documents have them folded."""
    return None if name and kind in FOLDED and name != name.lower() else name


def _visible(given: dict[str, Any]) -> dict[str, Any]:
    """The expression, and with it the conditions of visibility."""
    expression: dict[str, Any] = given.get("SearchExpression", {})
    visible = given.get("VisibilityConditions")
    if not visible:
        return expression
    if any(not {"Key", "Value"} <= one.keys() for one in visible):
        raise invalid("A visibility condition needs a key and a value.")
    filters = [{"Name": one["Key"], "Operator": "Equals", "Value": one["Value"]} for one in visible]
    return {"SubExpressions": [expression, {"Filters": filters}]}


def _records(call: Call, query: Query) -> list[tuple[str, dict[str, Any]]]:
    """The name and the record of each resource that the query lets through."""
    show = SHOWN.get(query.kind, _shown)
    records: list[tuple[str, dict[str, Any]]] = []
    while True:
        documents = call.app.store.page(query)
        records += ((document.name, show(call, document)) for document in documents)
        if len(documents) < BATCH:
            return records
        query.after = (documents[-1].name, documents[-1].name)


def _shown(call: Call, document: Document) -> dict[str, Any]:
    shown = {name: value for name, value in document.body.items() if name[0] != "_"}
    known = call.app.store.tags(document.arn) if document.arn else {}
    return {**shown, "Tags": tags.listed(known)} if known else shown


def _shown_component(call: Call, document: Document) -> dict[str, Any]:
    """A trial component, with the trials it is in and the job it came from."""
    shown = links.completed(call, document, _shown(call, document))
    if parents := links.parents_of(call, document.name):
        shown["Parents"] = parents
    source = shown.get("Source", {}).get("SourceArn", "")
    if source:
        shown["SourceDetail"] = {"SourceArn": source}
        job = call.app.store.by_arn(source)
        if job and (job.account, job.region) == (call.account, call.region) and (member := JOBS.get(job.kind.removeprefix("sagemaker."))):
            shown["SourceDetail"][member] = _shown(call, job)
    return shown


SHOWN: dict[str, Callable[[Call, Document], dict[str, Any]]] = {"sagemaker.trial-component": _shown_component}
