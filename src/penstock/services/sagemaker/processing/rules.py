"""Pure functions of processing jobs: what is shown, what the program finds, why it failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.kernel.errors import ServiceError, invalid
from penstock.runs.base import RunState
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.contract import Host

CONFIG = "/opt/ml/config"
MESSAGE = "/opt/ml/output/message"
EXIT_MESSAGE = "_exit_message"
"""The output that is no output of the user's: what the program says of its end, good or bad."""
DEFAULT_RUNTIME_S = 86400
SHOWN = (
    "ProcessingJobArn", "ProcessingJobName", "AppSpecification", "Environment", "ProcessingInputs",
    "ProcessingOutputConfig", "ProcessingResources", "RoleArn", "NetworkConfig", "StoppingCondition",
)  # fmt: skip
"""What processingjobconfig.json holds."""


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Create's members as Describe shows them: with the defaults that AWS fills in.

    Raises: ServiceError for what is not served, and for names and places that are taken twice.
    """
    body = dict(given)
    body["StoppingCondition"] = {"MaxRuntimeInSeconds": DEFAULT_RUNTIME_S, **given.get("StoppingCondition", {})}
    inputs = [{"AppManaged": False, **entry} for entry in given.get("ProcessingInputs", [])]
    for entry in inputs:
        if source := entry.get("S3Input"):
            if source.get("S3InputMode") == "Pipe":
                raise invalid(f"Input {entry['InputName']}: S3InputMode Pipe is not served by Penstock; use File.")
            entry["S3Input"] = {"S3DataDistributionType": "FullyReplicated", **source}
    _check_once([entry["InputName"] for entry in inputs], "InputName")
    _check_once(
        [entry["S3Input"]["LocalPath"] for entry in inputs if entry.get("S3Input", {}).get("LocalPath")], "LocalPath"
    )
    if inputs:
        body["ProcessingInputs"] = inputs
    if outputs := given.get("ProcessingOutputConfig", {}).get("Outputs"):
        shown = [{"AppManaged": False, **entry} for entry in outputs]
        _check_once([entry["OutputName"] for entry in shown], "OutputName")
        body["ProcessingOutputConfig"] = {**given["ProcessingOutputConfig"], "Outputs": shown}
    return body


def _check_once(names: list[str], member: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise invalid(f"{member} must be unique within a processing job; given twice: {', '.join(twice)}.")


def hosts_of(body: Mapping[str, Any]) -> list[Host]:
    return contract.hosts_of(body["ProcessingResources"]["ClusterConfig"])


def outputs_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The outputs that the platform uploads.

    Raises: ServiceError for one that goes to the Feature Store, which is not there yet.
    """
    entries = body.get("ProcessingOutputConfig", {}).get("Outputs", [])
    if feature := next((entry for entry in entries if "FeatureStoreOutput" in entry), None):
        name = feature["OutputName"]
        raise ServiceError("ClientError", f"Output {name} goes to the Feature Store, which is not served: use S3Output.")
    return [entry for entry in entries if entry.get("S3Output") and not entry.get("AppManaged")]


def inputs_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs that the platform lays out.

    Raises: ServiceError for one that is a query: there is nothing here that could answer it.
    """
    for entry in body.get("ProcessingInputs", []):
        if "DatasetDefinition" in entry:
            engine = "Amazon Redshift" if "RedshiftDatasetDefinition" in entry["DatasetDefinition"] else "Amazon Athena"
            raise ServiceError(
                "ClientError",
                f"Input {entry['InputName']} is a query to {engine}, which is not on this machine: use S3Input.",
            )
    return [entry for entry in body.get("ProcessingInputs", []) if entry.get("S3Input") and not entry.get("AppManaged")]


def job_config(body: Mapping[str, Any]) -> dict[str, Any]:
    """processingjobconfig.json."""
    return {name: body[name] for name in SHOWN if name in body}


def job_environment(body: Mapping[str, Any]) -> dict[str, str]:
    return {"PROCESSING_JOB_ARN": body["ProcessingJobArn"], "PROCESSING_JOB_NAME": body["ProcessingJobName"]}


def failure_reason(state: RunState) -> str:
    """FailureReason of a run that failed: AWS's sentence, the exit code, and the last lines of the log."""
    if known := contract.common_reason(state):
        return known
    code = state.exit_code if state.exit_code is not None else 1
    head = f"AlgorithmError: See job logs for more information, exit code: {code}\n"
    return head + contract.last_words(state.tail, contract.REASON_CHARS - len(head))
