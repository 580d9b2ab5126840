"""The trial component of a training, processing or transform job: in a trial from its creation on, where the job names one."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.experiments import links
from penstock.services.sagemaker.experiments.state import COMPONENT, EXPERIMENT, TRIAL
from penstock.services.sagemaker.people import author
from penstock.store.records import Document

SUFFIXES = {
    "sagemaker.processing-job": "aws-processing-job",
    "sagemaker.training-job": "aws-training-job",
    "sagemaker.transform-job": "aws-transform-job",
}
SOURCES = {
    "sagemaker.processing-job": "SageMakerProcessingJob",
    "sagemaker.training-job": "SageMakerTrainingJob",
    "sagemaker.transform-job": "SageMakerTransformJob",
}


def component_name(job: Document) -> str:
    return f"{job.name}-{SUFFIXES[job.kind]}"


def begin(call: Call, job: Document) -> None:
    """Makes the component of a new job that names an experiment or a trial; the trial is made where only the experiment is named.

    Raises: ServiceError (ResourceNotFound) for an experiment or a trial that is not there.
    """
    config = job.body.get("ExperimentConfig") or {}
    if not config.get("ExperimentName") and not config.get("TrialName"):
        return
    trial = _trial(call, job, config)
    links.link(call, trial, put(call, job, Status={"PrimaryStatus": "InProgress"}, StartTime=call.now))


def _trial(call: Call, job: Document, config: dict[str, str]) -> Document:
    """The trial that a job belongs to."""
    experiment = EXPERIMENT.get(call, config["ExperimentName"]) if config.get("ExperimentName") else None
    if config.get("TrialName"):
        return TRIAL.get(call, config["TrialName"])
    assert experiment is not None
    body = {"DisplayName": job.name, "ExperimentName": experiment.name, "CreatedBy": author(call)}
    return TRIAL.find(call, job.name) or TRIAL.create(call, job.name, body=body, parent=experiment.name, tagged=False)


def end(call: Call, job: Document) -> None:
    """Ends the component of a job that named an experiment; without one it is made when the job's lineage is entered."""
    config = job.body.get("ExperimentConfig") or {}
    if config.get("ExperimentName") or config.get("TrialName"):
        put(call, job, Status={"PrimaryStatus": job.status}, EndTime=call.now)


def put(call: Call, job: Document, **members: Any) -> Document:
    """The component of a job, made where there is none, with some members set."""
    name = component_name(job)
    known = COMPONENT.find(call, name)
    source = {"SourceArn": job.arn, "SourceType": SOURCES[job.kind]}
    if known is not None:
        return COMPONENT.save(call, known, Source=source, **members)
    shown = (job.body.get("ExperimentConfig") or {}).get("TrialComponentDisplayName") or name
    body = {"DisplayName": shown, "Source": source, "CreatedBy": author(call), **members}
    return COMPONENT.create(call, name, body=body, parent=job.arn, tagged=False)
