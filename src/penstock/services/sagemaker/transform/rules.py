"""Pure functions of transform jobs: what is shown, what the driver is told, names of answers, why a job failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.kernel.errors import invalid
from penstock.runs.base import RunState
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.contract import Host

OPT = "/opt/ml"
MODEL = f"{OPT}/model"
FAILURE = f"{OPT}/output/failure"
PLACE = "/opt/penstock/transform"
CONFIG, DATA, ANSWERS = f"{PLACE}/config.json", f"{PLACE}/data", f"{PLACE}/answers"
OUT = ".out"
RUNTIME_S = 5 * 86400
MOST_MB = 100
TIMEOUT_S, RETRIES = 600, 3
STRATEGIES = {"SingleRecord": "SINGLE_RECORD", "MultiRecord": "MULTI_RECORD"}
PROCESSED = ("text/csv", "application/json", "application/jsonlines", "application/x-jsonlines")


# --- what is shown


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Create's members as Describe shows them: with the defaults that AWS fills in.

    Raises: ServiceError for sizes that are too large, and for data that cannot be processed as asked.
    """
    body = dict(given)
    body.pop("Tags", None)
    body["TransformInput"] = {"CompressionType": "None", "SplitType": "None", **given["TransformInput"]}
    body["TransformOutput"] = {"AssembleWith": "None", **given["TransformOutput"]}
    body["DataProcessing"] = {
        "InputFilter": "$", "OutputFilter": "$", "JoinSource": "None", **given.get("DataProcessing", {}),
    }  # fmt: skip
    payload_mb, concurrent = given.get("MaxPayloadInMB"), given.get("MaxConcurrentTransforms") or 1
    if payload_mb is not None and payload_mb > MOST_MB:
        raise invalid(f"MaxPayloadInMB must not be greater than {MOST_MB}; it is {payload_mb}.")
    if (payload_mb or 1) * concurrent > MOST_MB:
        raise invalid(
            f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {MOST_MB} MB; it is {(payload_mb or 1) * concurrent}."
        )
    _check_processing(body)
    return body


def _check_processing(body: Mapping[str, Any]) -> None:
    """Refuses filters and joins of data that has no records to filter, as far as the request tells."""
    asked = body["DataProcessing"]
    if (asked["InputFilter"], asked["OutputFilter"], asked["JoinSource"]) == ("$", "$", "None"):
        return
    if body.get("MaxPayloadInMB") == 0:
        raise invalid("DataProcessing needs a MaxPayloadInMB: an object that is streamed has no records.")
    for member, value in (
        ("TransformInput.ContentType", body["TransformInput"].get("ContentType")),
        ("TransformOutput.Accept", body["TransformOutput"].get("Accept")),
    ):
        plain = (value or "").split(";")[0].strip().lower()
        if plain not in PROCESSED and (plain or member.startswith("TransformInput")):
            raise invalid(f"DataProcessing needs {member} to be one of {', '.join(PROCESSED[:3])}; it is {value}.")
    if body["TransformInput"]["SplitType"] in ("RecordIO", "TFRecord"):
        raise invalid("DataProcessing needs the SplitType Line or None.")


def model_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a job keeps of its model: it runs as it was when the job was created.

    Raises: ServiceError for a multi-model container.
    """
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    for container in containers:
        if container.get("Mode") == "MultiModel":
            raise invalid("Batch transform does not support models of multi-model containers.")
    return {
        "containers": containers,
        "isolated": bool(model.get("EnableNetworkIsolation")),
    }


def hosts_of(body: Mapping[str, Any]) -> list[Host]:
    return contract.hosts_of(body["TransformResources"])


# --- names


def answer_name(key: str, prefix: str) -> str:
    """An object's answer below the output path: what follows the prefix, and `.out`.

    A prefix that ends within a name counts up to its last slash.
    """
    rest = key[len(prefix) :]
    if rest.startswith("/"):
        rest = rest[1:]
    elif prefix and not prefix.endswith("/"):
        rest = key[prefix.rfind("/") + 1 :]
    return rest + OUT


def model_dir(number: int) -> str:
    """Where the model of a pipeline's container lies."""
    return MODEL if not number else f"{MODEL}-{number + 1}"


# --- what the driver is told


def job_config(body: Mapping[str, Any], cpus: int) -> dict[str, Any]:
    """The driver's configuration, but for containers and objects."""
    given, client = body["TransformInput"], body.get("ModelClientConfig", {})
    return {
        "content_type": given.get("ContentType", ""),
        "accept": body["TransformOutput"].get("Accept", ""),
        "split": given["SplitType"],
        "compression": given["CompressionType"],
        "assemble": body["TransformOutput"]["AssembleWith"],
        "strategy": body.get("BatchStrategy", ""),
        "payload_mb": body.get("MaxPayloadInMB"),
        "concurrent": body.get("MaxConcurrentTransforms") or 0,
        "processing": body["DataProcessing"],
        "timeout_s": client.get("InvocationsTimeoutInSeconds") or TIMEOUT_S,
        "retries": client.get("InvocationsMaxRetries", RETRIES),
        "cpus": cpus,
        "folder": f"{PLACE}/written",
        "failure": FAILURE,
    }


def container_environment(body: Mapping[str, Any], container: Mapping[str, Any], number: int) -> dict[str, str]:
    """What AWS sets in every container of a transform job, the model's variables, and the job's."""
    found = {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BATCH_STRATEGY": STRATEGIES[body.get("BatchStrategy", "MultiRecord")],
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(body.get("MaxPayloadInMB", 6)),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": str(body.get("MaxConcurrentTransforms") or 1),
        "SM_MODEL_DIR": model_dir(number),
    }
    return {**found, **container.get("Environment", {}), **body.get("Environment", {})}


def model_source(container: Mapping[str, Any]) -> tuple[str, bool]:
    """The S3 URI of a container's model data, and whether it is an archive; an empty URI where there is none.

    Raises: ServiceError for a source that is not in S3.
    """
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if not source:
        return container.get("ModelDataUrl", ""), True
    return source["S3Uri"], source.get("CompressionType", "None") == "Gzip"


# --- why it failed


def failure_reason(state: RunState, name: str, group: str) -> str:
    """FailureReason of a run that failed: the driver's sentence and the log's place, else the last lines of the log."""
    if known := contract.common_reason(state):
        return known
    end = f" See job logs for more information: {group}, {name}/"
    if state.message:
        return contract.reason("", state.message.rstrip(".") + ".", end)
    head = "AlgorithmError: "
    limit = contract.REASON_CHARS - len(head) - len(end)
    return head + contract.last_words(state.tail, limit) + end
