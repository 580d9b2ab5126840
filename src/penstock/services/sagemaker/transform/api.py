"""The operations on transform jobs."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker import orders
from penstock.services.sagemaker.models.state import MODEL
from penstock.services.sagemaker.transform import rules
from penstock.services.sagemaker.transform.state import JOB


def create_transform_job(call: Call) -> dict[str, Any]:
    """Takes the model as it is now, and has the job run; model data and inputs are looked for when it starts.

    Raises: ServiceError (ValidationException) for a model that is not there or that batch transform cannot run.
    Differs: KMS keys and DataCaptureConfig are kept and shown, and change nothing. The containers of a
    pipeline share one sandbox: the second one's model is in /opt/ml/model-2, and so on; the model server is told so,
    a program that names /opt/ml/model itself finds the first one's; only the first may be of an image that was built
    from a Dockerfile. There is one log stream an instance, and what AWS
    writes to its data-log is in it.
    """
    body = rules.complete(call.params)
    model = MODEL.get(call, body["ModelName"])
    body |= {"_model": rules.model_of(model.body), "_role": model.body.get("ExecutionRoleArn", "")}
    document = JOB.create(call, body=body, status="InProgress")
    for container in body["_model"]["containers"]:
        orders.check_image(call, container["Image"])
    orders.begin(call, document)
    return {"TransformJobArn": document.arn}


def describe_transform_job(call: Call) -> dict[str, Any]:
    return JOB.describe(JOB.get(call))


def list_transform_jobs(call: Call) -> dict[str, Any]:
    return JOB.page(call, "TransformJobSummaries")


def stop_transform_job(call: Call) -> None:
    orders.stop(call, JOB, JOB.get(call))
