"""Pure functions of training jobs: what is shown, what the script finds in its environment, why it failed."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.kernel.errors import invalid
from penstock.runs.base import RunState
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.contract import Host

OPT = "/opt/ml"
DATA = f"{OPT}/input/data"
CONFIG = f"{OPT}/input/config"
CODE = f"{OPT}/code"
OUTPUT_DATA = f"{OPT}/output/data"
FAILURE = f"{OPT}/output/failure"
CHECKPOINTS = f"{OPT}/checkpoints"
SOURCE = "/opt/penstock/source"
"""Where the script's archive lies until it is unpacked."""
INVOKING = "Invoking script with the following command:"
"""What containers/training/entry.py prints, followed by an empty line, the command, and an empty line."""
DEFAULT_RUNTIME_S = 86400
DEEPEST = 200
"""How deeply a hyperparameter's JSON may be nested to be read as such."""
PREFIX = "sagemaker_"
OWN = ("_tuning_objective_metric", "default_user_module_name")
"""Hyperparameters that are SageMaker's own without the prefix."""
KNOWN = frozenset(
    PREFIX + name
    for name in (
        "program",
        "submit_directory",
        "enable_cloudwatch_metrics",
        "region",
        "container_log_level",
        "job_name",
        "s3_output",
    )
)


# --- what is shown


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Create's members as Describe shows them: with the defaults that AWS fills in.

    Raises: ServiceError for a job without an image.
    """
    algorithm = given.get("AlgorithmSpecification", {})
    if given.get("ServerlessJobConfig"):
        raise invalid("Serverless training jobs are not served; name an AlgorithmSpecification and a ResourceConfig.")
    if not algorithm.get("TrainingImage"):
        if algorithm.get("AlgorithmName"):
            raise invalid(f"Could not find algorithm {algorithm['AlgorithmName']}: algorithm resources are not served.")
        raise invalid("You must provide either a training image or an algorithm name.")
    if not given.get("ResourceConfig"):
        raise invalid("You must provide a ResourceConfig.")
    body = dict(given)
    body["StoppingCondition"] = {"MaxRuntimeInSeconds": DEFAULT_RUNTIME_S, **given.get("StoppingCondition", {})}
    check_spot(given)
    for flag in ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"):
        body.setdefault(flag, False)
    body["InputDataConfig"] = [
        {"CompressionType": "None", "RecordWrapperType": "None", **channel}
        for channel in given.get("InputDataConfig", [])
    ]
    if not body["InputDataConfig"]:
        del body["InputDataConfig"]
    for channel in body.get("InputDataConfig", []):
        _check_channel(body, channel)
    names = [channel["ChannelName"] for channel in body.get("InputDataConfig", [])]
    if len(names) != len(set(names)):
        raise invalid("Channel names in the InputDataConfig must be unique.")
    return body


def check_spot(given: Mapping[str, Any]) -> None:
    """Refuses a time to wait that does not go with managed spot training.

    Raises: ServiceError.
    """
    limits = given.get("StoppingCondition", {})
    wait_s, spot = limits.get("MaxWaitTimeInSeconds"), given.get("EnableManagedSpotTraining")
    if wait_s is not None and not spot:
        raise invalid("Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true")
    if spot and (wait_s is None or wait_s < limits.get("MaxRuntimeInSeconds", DEFAULT_RUNTIME_S)):
        raise invalid(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )


def wait_until(body: Mapping[str, Any]) -> float:
    """Until when a spot job may wait and run; for ever where it is none."""
    if not body.get("EnableManagedSpotTraining"):
        return math.inf
    return float(body["CreationTime"] + body["StoppingCondition"].get("MaxWaitTimeInSeconds", math.inf))


def runtime_left_s(body: Mapping[str, Any]) -> float:
    """How long the program may still run; what it ran before interruptions counts."""
    return float(body["StoppingCondition"]["MaxRuntimeInSeconds"] - body.get("_spent", 0.0))


def exceeded(body: Mapping[str, Any], started: float) -> str:
    """Which limit a job met whose time was over (`started` 0: while it waited)."""
    waits = not started or wait_until(body) < started + runtime_left_s(body)
    return "MaxWaitTimeExceeded" if waits and body.get("EnableManagedSpotTraining") else "MaxRuntimeExceeded"


def _check_channel(body: Mapping[str, Any], channel: Mapping[str, Any]) -> None:
    name, source = channel["ChannelName"], channel.get("DataSource", {}).get("S3DataSource", {})
    if input_mode(body, channel) == "Pipe":
        raise invalid(f"Channel {name}: input mode Pipe is not served by Penstock; use File or FastFile.")
    if source.get("S3DataType") == "AugmentedManifestFile":
        raise invalid(f"Channel {name}: AugmentedManifestFile is not served by Penstock; use S3Prefix or ManifestFile.")


def artifacts_uri(body: Mapping[str, Any]) -> str:
    """The folder in S3 that a job's artifacts go to."""
    return f"{body['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{body['TrainingJobName']}/output"


def model_uri(body: Mapping[str, Any]) -> str:
    """Where the model goes: an archive, or a folder of files."""
    plain = body["OutputDataConfig"].get("CompressionType") == "NONE"
    return f"{artifacts_uri(body)}/model" + ("/" if plain else ".tar.gz")


def hosts_of(body: Mapping[str, Any]) -> list[Host]:
    return contract.hosts_of(body["ResourceConfig"])


# --- hyperparameters


def decode(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Hyperparameters as script mode reads them: JSON, or text where they are none (or nested deeper than could be written)."""
    decoded = {}
    for name, text in hyperparameters.items():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # brackets a thousand deep are no JSON that Python reads
            value = text
        decoded[name] = text if _is_deep(value) else value
    return decoded


def _is_deep(value: Any) -> bool:
    """Whether a value is nested so deeply that writing it, inside the variables that hold it, could raise RecursionError."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _parts(each)]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def split(decoded: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The script's own hyperparameters, and SageMaker's."""
    own = {name: value for name, value in decoded.items() if name.startswith(PREFIX) or name in OWN}
    return {name: value for name, value in decoded.items() if name not in own}, own


def arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Hyperparameters as a command line: `--name value`, by name."""
    words: list[str] = []
    for name in sorted(hyperparameters):
        value = hyperparameters[name]
        if isinstance(value, dict):
            value = ",".join(f"{key}={inner}" for key, inner in sorted(value.items()))
        words += [f"--{name}" if len(name) > 1 else f"-{name}", "" if value is None else str(value)]
    return words


def program_of(body: Mapping[str, Any], decoded: Mapping[str, Any]) -> tuple[str | None, str]:
    """The entry point of a job in script mode (None: not in script mode), and where its code is."""
    env = body.get("Environment", {})
    program = decoded.get("sagemaker_program") or env.get("SAGEMAKER_PROGRAM")
    source = decoded.get("sagemaker_submit_directory") or env.get("SAGEMAKER_SUBMIT_DIRECTORY") or CODE
    return (str(program) if program else None), str(source)


# --- what the program finds


def input_data_config(body: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """inputdataconfig.json."""
    config = {}
    for channel in body.get("InputDataConfig", []):
        source = channel.get("DataSource", {}).get("S3DataSource", {})
        entry = {
            "TrainingInputMode": input_mode(body, channel),
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        if channel.get("ContentType"):
            entry["ContentType"] = channel["ContentType"]
        config[channel["ChannelName"]] = entry
    return config


def input_mode(body: Mapping[str, Any], channel: Mapping[str, Any]) -> str:
    return str(channel.get("InputMode") or body["AlgorithmSpecification"].get("TrainingInputMode") or "File")


def job_environment(body: Mapping[str, Any], region: str) -> dict[str, str]:
    """What every training container has in its environment."""
    return {
        "TRAINING_JOB_NAME": body["TrainingJobName"],
        "TRAINING_JOB_ARN": body["TrainingJobArn"],
        "SAGEMAKER_REGION": region,
        "SAGEMAKER_JOB_NAME": body["TrainingJobName"],
        "SM_INPUT_TRAINING_CONFIG_FILE": f"{CONFIG}/hyperparameters.json",
        "SM_INPUT_DATA_CONFIG_FILE": f"{CONFIG}/inputdataconfig.json",
        "SM_CHECKPOINT_CONFIG_FILE": f"{CONFIG}/checkpointconfig.json",
    }


def toolkit_environment(body: Mapping[str, Any], hosts: Sequence[Host], current: Host, cpus: int) -> dict[str, str]:
    """The SM_* variables of one host, as the training toolkit sets them for scripts."""
    script, own = split(decode(body.get("HyperParameters", {})))
    program, source = program_of(body, own)
    extra = {name: value for name, value in own.items() if name not in KNOWN and name not in OWN}
    resources = contract.resource_config(hosts, current)
    channels = input_data_config(body)
    groups = {group["instance_group_name"]: group for group in resources["instance_groups"]}
    distributed = (
        [current.group] if any(name.endswith("_enabled") and value is True for name, value in extra.items()) else []
    )
    level = own.get("sagemaker_container_log_level", 20)
    module = program.removesuffix(".py") if program else None
    basics: dict[str, Any] = {
        "channel_input_dirs": {name: f"{DATA}/{name}" for name in channels},
        "current_host": current.name,
        "current_instance_group": current.group,
        "current_instance_group_hosts": groups[current.group]["hosts"],
        "current_instance_type": current.instance_type,
        "distribution_hosts": [],
        "distribution_instance_groups": extra.get("sagemaker_distribution_instance_groups", distributed),
        "framework_module": None,
        "hosts": [host.name for host in hosts],
        "hyperparameters": script,
        "input_config_dir": CONFIG,
        "input_data_config": channels,
        "input_dir": f"{OPT}/input",
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "is_hetero": len(groups) > 1,
        "is_master": current is hosts[0],
        "job_name": body["TrainingJobName"],
        "log_level": level,
        "master_hostname": hosts[0].name,
        "model_dir": f"{OPT}/model",
        "module_dir": source,
        "module_name": module,
        "network_interface_name": "eth0",
        "num_cpus": cpus,
        "num_gpus": 0,
        "num_neurons": 0,
        "output_data_dir": OUTPUT_DATA,
        "output_dir": f"{OPT}/output",
        "output_intermediate_dir": f"{OPT}/output/intermediate",
        "resource_config": resources,
        "user_entry_point": program,
    }
    whole = basics | {"additional_framework_parameters": extra}
    shown = {name: value for name, value in basics.items() if name not in _UNSHOWN}
    shown |= {
        "channels": sorted(channels),
        "framework_params": extra,
        "hps": script,
        "training_env": whole,
        "user_args": arguments(script),
        **{f"channel_{name}": f"{DATA}/{name}" for name in channels},
        **{f"hp_{name}": value for name, value in script.items()},
    }
    return {"CURRENT_HOST": current.name, **{f"SM_{name.upper()}": as_text(value) for name, value in shown.items()}}


_UNSHOWN = frozenset(
    {"channel_input_dirs", "distribution_hosts", "hyperparameters", "is_master", "job_name", "master_hostname"}
)  # fmt: skip
"""What is in SM_TRAINING_ENV, and no variable of its own."""


def as_text(value: Any) -> str:
    """A value as an environment variable: text as it is, nothing as empty, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


# --- why it failed


def failure_reason(body: Mapping[str, Any], state: RunState, python: str = "python") -> str:
    """FailureReason of a run that failed: what the program left in its failure file, else the last lines of its log."""
    if known := contract.common_reason(state):
        return known
    code = state.exit_code if state.exit_code is not None else 1
    end = f", exit code: {code}"
    if state.message:
        return contract.reason("AlgorithmError: ", state.message, end)
    script, own = split(decode(body.get("HyperParameters", {})))
    program, _ = program_of(body, own)
    if program and not body["AlgorithmSpecification"].get("ContainerEntrypoint"):
        words = contract.clip(shlex.join([python, program, *arguments(script)]), 300)
        end = f'"\nCommand "{words}"{end}'
        head = f'AlgorithmError: ExecuteUserScriptError:\nExitCode {code}\nErrorMessage "'
    else:
        head = "AlgorithmError: "
    limit = contract.REASON_CHARS - len(head) - len(end)
    return head + contract.last_words(_of_the_script(state.tail), limit) + end


def _of_the_script(tail: list[str]) -> list[str]:
    """What was printed after the entry point had named the script's command."""
    return tail[tail.index(INVOKING) + 4 :] if INVOKING in tail else tail
