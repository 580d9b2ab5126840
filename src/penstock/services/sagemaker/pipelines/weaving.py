"""The lineage of an execution, entered when it has ended: what its jobs read and made, and the packages that it registered.

A job's trial component is what its image, inputs and models contributed to, and what produced its outputs. What is there already is
left as it is, so entering it twice is entering it once; an execution that is retried is entered again. A look enters a few jobs, and
keeps in the same change how far it came.

Source: docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-auto-creation.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import costs
from penstock.services.sagemaker.experiments.state import COMPONENT
from penstock.services.sagemaker.lineage import entities
from penstock.services.sagemaker.lineage.state import ACTION, CONTEXT
from penstock.services.sagemaker.nouns import FINAL
from penstock.services.sagemaker.pipelines import bills
from penstock.services.sagemaker.pipelines.experiments import SOURCES, SUFFIXES
from penstock.store.records import Document, Query, Ref, TagsPut

FEW = 10
"""So many jobs are entered within an engine step's 50 ms."""
TAG = "sagemaker:pipeline-execution-arn"
"""By which the SDK finds the execution of a training job."""
STATUSES = {"Completed": "Completed", "Failed": "Failed", "Stopped": "Stopped"}
PACKAGE, MODEL, TUNING = "sagemaker.model-package", "sagemaker.model", "sagemaker.tuning-job"
HYPERPARAMETERS = 200
NAME_MOST, VALUE_MOST = 256, 2500


@dataclass(frozen=True, slots=True)
class Place:
    """Something that a job read or made."""

    uri: str
    kind: str
    """ "DataSet", "Image", "Model" or "Checkpoint"."""
    name: str
    """Under which the trial component has it."""
    made: bool = False


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
                enter_package(call, document)
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
    others = (each for each in entries if each[0] not in bills.KINDS or not each[1].startswith(bills.prefix(execution)))
    return [(kind, "") for kind in bills.KINDS] + sorted(each for each in others if each[0] in (*bills.KINDS, TUNING, PACKAGE))


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
    """Enters one job: its trial component, and what it read and made."""
    component = _component(call, job)
    for place in places_of(call, job):
        artifact = entities.artifact(call, place.uri, place.kind, place.name if place.kind != "Image" else "")
        if place.made:
            entities.associate(call, component, artifact, "Produced")
        else:
            entities.associate(call, artifact, component, "ContributedTo")
    call.row(TagsPut(arn=job.arn, tags={TAG: execution.arn}))


def _component(call: Call, job: Document) -> Document:
    """The job's trial component, with its parameters and artifacts."""
    name = f"{job.name}-{SUFFIXES[job.kind]}"
    known = COMPONENT.find(call, name)
    start, end = (costs.TIMES.get(bills.KINDS[job.kind]) or ("TrainingStartTime", "TrainingEndTime"))[:2]
    body: dict[str, Any] = {"Status": {"PrimaryStatus": STATUSES[job.status]}, **_described(call, job)}
    body |= {shown: job.body[member] for shown, member in (("StartTime", start), ("EndTime", end)) if member in job.body}
    if known is not None:
        return COMPONENT.save(call, known, **{member: value for member, value in body.items() if member not in known.body})
    body |= {"DisplayName": name, "Source": {"SourceArn": job.arn, "SourceType": SOURCES[job.kind]}}
    return COMPONENT.create(call, name, body=body, parent=job.arn)


def _described(call: Call, job: Document) -> dict[str, Any]:
    """A job's parameters and artifacts, as a trial component has them."""
    parameters: dict[str, Any] = {}
    for use in costs.uses_of(bills.KINDS[job.kind], job.body)[:1]:
        parameters |= {"SageMaker.InstanceType": {"StringValue": use.instance_type}, "SageMaker.InstanceCount": {"NumberValue": use.count}}
    for name, value in list(job.body.get("HyperParameters", {}).items())[:HYPERPARAMETERS]:
        if len(name) <= NAME_MOST and len(value) <= VALUE_MOST:
            parameters[name] = {"StringValue": value}
    sides: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for place in places_of(call, job):
        sides[place.made].setdefault(place.name, {"Value": place.uri})
    found = {"Parameters": parameters, "InputArtifacts": sides[False], "OutputArtifacts": sides[True]}
    return {member: value for member, value in found.items() if value}


def places_of(call: Call, job: Document) -> list[Place]:
    """What a job read and, where it has completed, what it made."""
    reader = {"sagemaker.training-job": _training, "sagemaker.processing-job": _processing}.get(job.kind, _transform)
    found = [place for place in reader(call, job) if place.uri]
    return [place for place in found if not place.made or job.status == "Completed"]


def _training(call: Call, job: Document) -> Iterator[Place]:
    body = job.body
    yield Place(body.get("AlgorithmSpecification", {}).get("TrainingImage", ""), "Image", "SageMaker.ImageUri")
    for channel in body.get("InputDataConfig", []):
        uri = channel.get("DataSource", {}).get("S3DataSource", {}).get("S3Uri", "")
        yield Place(uri, "DataSet", channel["ChannelName"])
    yield Place(body.get("ModelArtifacts", {}).get("S3ModelArtifacts", ""), "Model", "SageMaker.ModelArtifact", True)
    yield Place(body.get("CheckpointConfig", {}).get("S3Uri", ""), "Checkpoint", "SageMaker.Checkpoint", True)


def _processing(call: Call, job: Document) -> Iterator[Place]:
    body = job.body
    yield Place(body.get("AppSpecification", {}).get("ImageUri", ""), "Image", "SageMaker.ImageUri")
    for given in body.get("ProcessingInputs", []):
        yield Place(given.get("S3Input", {}).get("S3Uri", ""), "DataSet", given["InputName"])
    for made in body.get("ProcessingOutputConfig", {}).get("Outputs", []):
        yield Place(made.get("S3Output", {}).get("S3Uri", ""), "DataSet", made["OutputName"], True)


def _transform(call: Call, job: Document) -> Iterator[Place]:
    body = job.body
    model = call.find(Ref(MODEL, job.account, job.region, body.get("ModelName", "")))
    shown = model.body if model is not None else {}
    for container in shown.get("Containers") or [shown.get("PrimaryContainer") or {}]:
        yield Place(container.get("Image", ""), "Image", "SageMaker.ImageUri")
        yield Place(container.get("ModelDataUrl", ""), "Model", "SageMaker.ModelArtifact")
    source = body.get("TransformInput", {}).get("DataSource", {}).get("S3DataSource", {})
    yield Place(source.get("S3Uri", ""), "DataSet", "SageMaker.TransformInput")
    yield Place(body.get("TransformOutput", {}).get("S3OutputPath", ""), "DataSet", "SageMaker.TransformOutput", True)


# --- packages
def enter_package(call: Call, package: Document) -> None:
    """Enters a model package: what it holds contributed to it, as its approval does; it is associated with its group."""
    model = entities.artifact(call, package.arn, "Model")
    for container in package.body.get("InferenceSpecification", {}).get("Containers", []):
        for member, kind in (("ModelDataUrl", "Model"), ("Image", "Image")):
            if container.get(member):
                entities.associate(call, entities.artifact(call, container[member], kind), model, "ContributedTo")
    group, stamp = package.body.get("ModelPackageGroupName"), int(package.created)
    if not group:
        return
    status, version = package.body.get("ModelApprovalStatus", ""), package.body.get("ModelPackageVersion", "")
    name = f"{group}-{version}-{status}-{stamp}-aws-model-package"
    approval = _named(call, ACTION, name, "Approval", {"SourceUri": package.arn, "SourceType": "ARN"}, Status="Completed")
    entities.associate(call, approval, model, "ContributedTo")
    entities.associate(call, model, _group(call, package, group), "AssociatedWith")


def _group(call: Call, package: Document, group: str) -> Document:
    """The context of a package's group."""
    found = call.find(Ref("sagemaker.model-package-group", package.account, package.region, group))
    stamp = int(found.created if found else package.created)
    uri = found.arn if found else package.arn.rpartition("/")[0].replace(":model-package/", ":model-package-group/")
    source = {"SourceUri": uri, "SourceType": "ARN"}
    return _named(call, CONTEXT, f"{group}-{stamp}-aws-model-package-group", "ModelGroup", source)


def _named(call: Call, resource: Any, name: str, kind: str, source: dict[str, str], **more: Any) -> Document:
    noun = resource.key.removesuffix("Name")
    given = {"Source": source, f"{noun}Type": kind, **{member: value for member, value in more.items() if value}}
    known: Document | None = resource.find(call, name)
    return known or entities.create(call, resource, name, given, kind)
