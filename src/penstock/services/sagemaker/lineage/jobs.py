"""The lineage of a job that has ended: what it read contributed to its trial component, which produced what it made.

What is there already is left as it is, so entering a job twice is entering it once.

Source: docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-auto-creation.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import costs
from penstock.services.sagemaker.experiments import jobs as components
from penstock.services.sagemaker.experiments.state import COMPONENT
from penstock.services.sagemaker.lineage import entities
from penstock.store.records import Document, Ref

MODEL = "sagemaker.model"
HYPERPARAMETERS = 200
NAME_MOST, VALUE_MOST = 256, 2500
DUE, ENTERED = "due", "entered"
"""What a job's `_lineage` says: that the engine's next look enters it, or that it has."""


@dataclass(frozen=True, slots=True)
class Place:
    """Something that a job read or made."""

    uri: str
    kind: str
    """ "DataSet", "Image", "Model" or "Checkpoint"."""
    name: str
    """Under which the trial component has it."""
    made: bool = False


def owe(call: Call, job: Document) -> float | None:
    """Has an ended job's lineage entered by the next look; an execution enters that of its jobs itself when it has ended.

    Gives: the seconds until that look.
    """
    components.end(call, job)
    if "_execution" in job.body:
        return None
    job.body["_lineage"] = DUE
    return 0.0


def settle(call: Call, job: Document) -> None:
    """Enters an ended job, if that is still to be done."""
    if job.body.get("_lineage") == DUE:
        enter(call, job)
        job.body["_lineage"] = ENTERED
        call.put(job)


def enter(call: Call, job: Document) -> None:
    """Enters one job: its trial component, and what it read and made."""
    if job.body.get("_lineage") == ENTERED:
        return
    places = places_of(call, job)
    component = _component(call, job, places)
    for place in places:
        artifact = entities.artifact(call, place.uri, place.kind, place.name if place.kind != "Image" else "")
        if place.made:
            entities.associate(call, component, artifact, "Produced")
        else:
            entities.associate(call, artifact, component, "ContributedTo")


def _component(call: Call, job: Document, places: list[Place]) -> Document:
    """The job's trial component, with its parameters and artifacts."""
    known = COMPONENT.find(call, components.component_name(job))
    start, end = costs.times_of(costs.KINDS[job.kind])
    body: dict[str, Any] = {"Status": {"PrimaryStatus": job.status}, **_described(job, places)}
    body |= {shown: job.body[member] for shown, member in (("StartTime", start), ("EndTime", end)) if member in job.body}
    have = known.body.keys() - {"Status"} if known is not None else ()
    return components.put(call, job, **{member: value for member, value in body.items() if member not in have})


def _described(job: Document, places: list[Place]) -> dict[str, Any]:
    """A job's parameters and artifacts, as a trial component has them."""
    parameters: dict[str, Any] = {}
    for use in costs.uses_of(costs.KINDS[job.kind], job.body)[:1]:
        parameters |= {"SageMaker.InstanceType": {"StringValue": use.instance_type}, "SageMaker.InstanceCount": {"NumberValue": use.count}}
    for name, value in list(job.body.get("HyperParameters", {}).items())[:HYPERPARAMETERS]:
        if len(name) <= NAME_MOST and len(value) <= VALUE_MOST:
            parameters[name] = {"StringValue": value}
    sides: dict[bool, dict[str, Any]] = {False: {}, True: {}}
    for place in places:
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
