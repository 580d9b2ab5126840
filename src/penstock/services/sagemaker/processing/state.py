"""The noun: a processing job and its statuses."""

from __future__ import annotations

from penstock.kernel.resource import Resource

JOB = Resource(
    kind="sagemaker.processing-job",
    key="ProcessingJobName",
    path="processing-job/{name}",
    arn="ProcessingJobArn",
    status="ProcessingJobStatus",
    moves={
        "InProgress": {"Completed", "Failed", "Stopping", "Stopped"},
        "Stopping": {"Completed", "Failed", "Stopped"},
    },
    missing=("ValidationException", "Could not find requested job with name: {name}"),
    exists=(
        "ResourceInUse",
        "Job name must be unique within an AWS account and region, and a job with this name already exists ({arn})",
    ),
)
FINAL = frozenset({"Completed", "Failed", "Stopped"})
GROUP = "/aws/sagemaker/ProcessingJobs"
