"""The experiment, trial and trial components of a run, where its definition has a PipelineExperimentConfig.

Differs: a component has status and source while its job runs; parameters and artifacts when the execution has ended. Metrics are
not copied.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.pipelines.definition import Step
from penstock.services.sagemaker.pipelines.jobs import attempt, clean
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
STATUSES = {"Succeeded": "Completed", "Failed": "Failed", "Stopped": "Stopped"}
NAMED = ("ExperimentName", "TrialName")
NAME_MOST = 120


def configure(call: Call, execution: Document, step: Step, arguments: dict[str, Any]) -> None:
    """Puts the run's experiment into a job's arguments; makes it first, when it is the run's first job."""
    config = execution.body.get("PipelineExperimentConfig")
    if not config or step.type not in ("Processing", "Training", "Transform"):
        return
    if "_experiment" not in execution.body:
        execution.body["_experiment"] = _prepare(call, config)
    if execution.body["_experiment"]:
        named = {name: config[name] for name in NAMED if name in config}
        arguments["ExperimentConfig"] = {
            "TrialComponentDisplayName": clean(step.name, NAME_MOST),  # a step's name may hold underscores
            **(arguments.get("ExperimentConfig") or {}),
            **named,
        }


def note_start(call: Call, execution: Document, step: Step, job: Document) -> None:
    """Makes the trial component of a job."""
    if not execution.body.get("_experiment") or job.kind not in SUFFIXES:
        return
    made = attempt(
        call,
        "CreateTrialComponent",
        TrialComponentName=_component(job),
        DisplayName=job.body.get("ExperimentConfig", {}).get("TrialComponentDisplayName", step.name),
        Status={"PrimaryStatus": "InProgress"},
        StartTime=call.now,
    )
    if made is None:
        return
    component = next(put for put in reversed(call.change.puts) if put.arn == made["TrialComponentArn"])
    component.parent = job.arn
    component.body["Source"] = {"SourceArn": job.arn, "SourceType": SOURCES[job.kind]}
    trial = execution.body["PipelineExperimentConfig"].get("TrialName")
    if trial:
        attempt(call, "AssociateTrialComponent", TrialComponentName=component.name, TrialName=trial)


def note_end(call: Call, execution: Document, job: Document, outcome: str) -> None:
    """Ends the trial component of a job."""
    if execution.body.get("_experiment") and job.kind in SUFFIXES:
        status = {"PrimaryStatus": STATUSES[outcome]}
        attempt(call, "UpdateTrialComponent", TrialComponentName=_component(job), Status=status, EndTime=call.now)


def _component(job: Document) -> str:
    return f"{job.name}-{SUFFIXES[job.kind]}"


def _prepare(call: Call, config: dict[str, str]) -> bool:
    """Makes the experiment and the trial where they are missing; gives whether they are there now."""
    experiment, trial = config.get("ExperimentName"), config.get("TrialName")
    if not experiment:
        return False
    known = attempt(call, "DescribeExperiment", ExperimentName=experiment)
    if known is None and attempt(call, "CreateExperiment", ExperimentName=experiment) is None:
        return False
    if not trial or attempt(call, "DescribeTrial", TrialName=trial) is not None:
        return True
    return attempt(call, "CreateTrial", TrialName=trial, ExperimentName=experiment) is not None
