"""The operations on training jobs."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import invalid
from penstock.services.sagemaker import nouns, orders, results
from penstock.services.sagemaker.roles import require_role
from penstock.services.sagemaker.training import rules
from penstock.services.sagemaker.training.state import JOB, move_on


def create_training_job(call: Call) -> dict[str, Any]:
    """Checks what AWS checks at once (role, image, input prefixes), and has the job run.

    Differs: KMS keys, VpcConfig, debugger, profiler, warm pools, retries and TensorBoard are kept
    and shown, and change nothing. Managed spot training is interrupted by `penstock fault` alone; it bills the share of
    the time that `PENSTOCK_SPOT_SHARE` says; MaxRuntimeInSeconds counts the time before interruptions, too.
    Input mode Pipe and augmented manifests are refused; FastFile is File.
    Checkpoints go up within seconds of being written, and what is left of them at the end.
    """
    body = rules.complete(call.params)
    role = require_role(call, body["RoleArn"])
    document = JOB.create(call, body=body, status="InProgress")
    orders.check_image(call, body["AlgorithmSpecification"]["TrainingImage"])
    for channel in body.get("InputDataConfig", []):
        if source := channel.get("DataSource", {}).get("S3DataSource"):
            orders.check_source(call, results.plain_uri(source["S3Uri"]), role)
        elif "FileSystemDataSource" in channel.get("DataSource", {}):
            raise invalid(f"Channel {channel['ChannelName']}: file systems are not served; use S3.")
    move_on(document.body, "Starting", call.now)
    orders.begin(call, document)
    return {"TrainingJobArn": document.arn}


def describe_training_job(call: Call) -> dict[str, Any]:
    return JOB.describe(JOB.get(call))


def list_training_jobs(call: Call) -> dict[str, Any]:
    """Differs: WarmPoolStatusEquals and TrainingPlanArnEquals find nothing: there are no warm pools and no plans."""
    if call.params.get("WarmPoolStatusEquals") or call.params.get("TrainingPlanArnEquals"):
        return {"TrainingJobSummaries": []}
    return JOB.page(call, "TrainingJobSummaries")


def stop_training_job(call: Call) -> None:
    document = JOB.get(call)
    if document.status == "InProgress":
        move_on(document.body, "Stopping", call.now)
    orders.stop(call, JOB, document)


def update_training_job(call: Call) -> dict[str, Any]:
    """Differs: what is updated (profiler, debugging, warm pools) is kept and shown, and changes nothing."""
    document = JOB.get(call)
    given = {name: value for name, value in call.params.items() if name != "TrainingJobName"}
    if document.status in nouns.FINAL and set(given) - {"ResourceConfig"}:
        raise invalid(f"The request was rejected because the training job is in status {document.status}.")
    if "ResourceConfig" in given:
        given["ResourceConfig"] = {**document.body["ResourceConfig"], **given["ResourceConfig"]}
    JOB.save(call, document, **given)
    return {"TrainingJobArn": document.arn}


def delete_training_job(call: Call) -> None:
    orders.delete(call, JOB, JOB.get(call))
