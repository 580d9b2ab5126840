"""The noun: a tuning job, its statuses, and what it remembers of its trials.

A trial is an entry of the document's `_trials`, in the order of their making: its training job's name, which of the
definitions it has, the values it was given, what its training job's status is, and its objective. The search is handed
these entries and keeps nothing else, so it goes on after any death of the engine.
"""

from __future__ import annotations

from penstock.kernel.resource import Resource

JOB = Resource(
    kind="sagemaker.tuning-job",
    key="HyperParameterTuningJobName",
    path="hyper-parameter-tuning-job/{name}",
    arn="HyperParameterTuningJobArn",
    status="HyperParameterTuningJobStatus",
    moves={
        "InProgress": {"Completed", "Failed", "Stopping"},
        "Stopping": {"Stopped", "Completed", "Failed"},
    },
    missing=("ResourceNotFound", "Amazon SageMaker can't find a tuning job with the name {name}. Check its name and the Region."),
    exists=("ResourceInUse", "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})"),
)
