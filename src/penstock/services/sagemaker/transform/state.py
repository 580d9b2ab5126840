"""The noun: a transform job and its statuses."""

from __future__ import annotations

from penstock.kernel.resource import Resource

JOB = Resource(
    kind="sagemaker.transform-job",
    key="TransformJobName",
    path="transform-job/{name}",
    arn="TransformJobArn",
    status="TransformJobStatus",
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
GROUP = "/aws/sagemaker/TransformJobs"
