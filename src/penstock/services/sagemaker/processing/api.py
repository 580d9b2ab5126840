"""The operations on processing jobs."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import orders
from penstock.services.sagemaker.processing import rules
from penstock.services.sagemaker.processing.state import JOB
from penstock.services.sagemaker.roles import require_role


def create_processing_job(call: Call) -> dict[str, Any]:
    """Checks role and image, and has the job run; inputs are looked for when it starts.

    Differs: KMS keys and VpcConfig are kept and shown, and change nothing. Files of an output with
    S3UploadMode Continuous go up a few seconds after they were written, and, unlike others, after a failure too.
    S3InputMode Pipe is refused; a job whose input is a query to Athena or Redshift, or whose output goes to the Feature
    Store, fails when it starts. A job may leave 100,000 output files and make 65,536 files a GiB of its volume.
    """
    body = rules.complete(call.params)
    require_role(call, body["RoleArn"])
    document = JOB.create(call, body=body, status="InProgress")
    orders.check_image(call, body["AppSpecification"]["ImageUri"])
    orders.begin(call, document)
    return {"ProcessingJobArn": document.arn}


def describe_processing_job(call: Call) -> dict[str, Any]:
    return JOB.describe(JOB.get(call))


def list_processing_jobs(call: Call) -> dict[str, Any]:
    return JOB.page(call, "ProcessingJobSummaries")


def stop_processing_job(call: Call) -> None:
    orders.stop(call, JOB, JOB.get(call))


def delete_processing_job(call: Call) -> None:
    orders.delete(call, JOB, JOB.get(call))
