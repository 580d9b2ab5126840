"""What must be true of one step, whatever the others are: its form, its arguments, its policies, its property files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.kernel.shapes import misfits
from penstock.services.sagemaker.pipelines.expressions import function_of


class Malformed(Exception):
    """A fault of a definition, or of the parameters of a start: the sentence is for the client."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of parameter: whether a JSON value fits it, and what a text given at the start means (None: nothing)."""

    fits: Callable[[Any], bool]
    read: Callable[[str], Any]


def _read_float(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


LARGEST = (1 << 63) - 1


PARAMETER_TYPES = {
    "String": Kind(lambda value: isinstance(value, str), str),
    "Integer": Kind(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST,
        lambda text: int(text) if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII) and abs(int(text)) <= LARGEST else None,
    ),
    "Float": Kind(lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), _read_float),
    "Boolean": Kind(
        lambda value: isinstance(value, bool), lambda text: {"true": True, "false": False}.get(text.lower())
    ),
}

MAX_DEPTH = 100
EXECUTED = frozenset({
    "Processing", "Training", "Tuning", "Transform", "Model", "RegisterModel", "EndpointConfig", "Callback", "Lambda", "Condition",
    "Fail", "Lineage",
})  # fmt: skip
TYPES = EXECUTED | {
    "QualityCheck", "ClarifyCheck", "EMR", "EMRServerless", "AutoML", "Endpoint",
    "InferenceComponent", "BedrockCustomModel", "BedrockCustomModelDeployment",
    "BedrockModelImport", "BedrockProvisionedModelThroughput", "NotebookJob", "Job", "Athena", "Cleanup",
    "ForEach", "HubContent",
}  # fmt: skip

FOREIGN = {
    "EMR": "Amazon EMR", "EMRServerless": "Amazon EMR Serverless", "AutoML": "SageMaker Autopilot", "Athena": "Amazon Athena",
    "BedrockCustomModel": "Amazon Bedrock", "BedrockCustomModelDeployment": "Amazon Bedrock",
    "BedrockModelImport": "Amazon Bedrock", "BedrockProvisionedModelThroughput": "Amazon Bedrock", "HubContent": "SageMaker JumpStart",
}  # fmt: skip
"""Types of steps that are taken in a definition, as at AWS, and need a service that only AWS has."""

NOT_YET = {
    "QualityCheck": "its engine comes with model monitoring", "ClarifyCheck": "its engine comes with model monitoring",
    "Endpoint": "Penstock serves no endpoints yet", "InferenceComponent": "Penstock serves no endpoints yet",
}  # fmt: skip
"""Types of steps that are to come, and what they wait for."""
LINEAGE = frozenset({"Actions", "Artifacts", "Contexts", "Associations"})
"""What a Lineage step may ask for."""
BARE = frozenset({"Callback", "Lambda"})
"""Types of steps that may do without arguments."""
CHECK_TYPES = {
    "QualityCheck": ("DATA_QUALITY", "MODEL_QUALITY"),
    "ClarifyCheck": ("DATA_BIAS", "MODEL_BIAS", "MODEL_EXPLAINABILITY"),
}
TRIGGERS = ("Completed", "Failed", "Stopped", "Any")
"""What must have become of a step that another depends on; without one it must have succeeded."""
OUTPUT_TYPES = ("String", "Integer", "Boolean", "Float")
MOST_OUTPUTS = 50

JOB_OF_CHECK = ("ProcessingResources.ClusterConfig", "AppSpecification.ImageUri", "RoleArn")
REQUIRED: dict[str, tuple[str, ...]] = {
    "QualityCheck": JOB_OF_CHECK,
    "ClarifyCheck": JOB_OF_CHECK,
    "EndpointConfig": ("ProductionVariants",),
    "Processing": ("ProcessingResources.ClusterConfig", "AppSpecification.ImageUri", "RoleArn"),
    "Training": ("AlgorithmSpecification", "OutputDataConfig.S3OutputPath", "RoleArn"),
    "Transform": ("ModelName", "TransformInput", "TransformOutput", "TransformResources"),
    "Tuning": ("HyperParameterTuningJobConfig",),
}
MOST: dict[str, tuple[tuple[str, int], ...]] = {
    "Processing": (("ProcessingInputs", 10), ("ProcessingOutputConfig.Outputs", 10), ("Environment", 100)),
    "Training": (("InputDataConfig", 20), ("HyperParameters", 100), ("AlgorithmSpecification.MetricDefinitions", 40)),
}
CREATED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "Processing": ("CreateProcessingJob", ("ProcessingJobName",)),
    "Training": ("CreateTrainingJob", ("TrainingJobName",)),
    "Transform": ("CreateTransformJob", ("TransformJobName",)),
    "Model": ("CreateModel", ("ModelName",)),
    "RegisterModel": ("CreateModelPackage", ("ModelPackageName",)),
    "EndpointConfig": ("CreateEndpointConfig", ("EndpointConfigName",)),
}
"""The operation that takes a step's arguments, and the members that the engine adds."""
DURATION = re.compile(r"P?(?=.)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?", re.IGNORECASE)
RETRIED = frozenset({
    "Step.SERVICE_FAULT", "Step.THROTTLING", "SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT", "Emr.RESOURCE_LIMIT",
})  # fmt: skip


def check_depth(raw: Any) -> None:
    """Refuses what is nested more deeply than MAX_DEPTH: expressions are resolved by recursion."""
    level = [raw]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise Malformed("Malformed JSON: it is nested too deeply.")


def check_metadata(raw: Any) -> None:
    """Refuses metadata whose keys or values are too long."""
    if raw is None:
        return
    if not isinstance(raw, dict):
        raise Malformed("'Metadata' must be an object.")
    for key, value in raw.items():
        if len(key) > 128 or not isinstance(value, str) or len(value) > 1024:
            raise Malformed(
                f"The metadata '{key[:128]}' must be a text of at most 1024 characters under a key of at most 128."
            )


def check_form(raw: Any, where: str) -> None:
    """Refuses what is no step: without a proper name and a known type."""
    if not isinstance(raw, dict):
        raise Malformed(f"A step in {where} is no object: {json.dumps(raw)[:100]}.")
    name, kind = raw.get("Name"), raw.get("Type")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9\-_]{1,64}", name):
        raise Malformed(
            f"Invalid step name '{name}' in {where}: it must match [A-Za-z0-9\\-_]* and have 1 to 64 characters."
        )
    if kind not in TYPES:
        raise Malformed(f"Step '{name}' has the unknown type '{kind}'; the types are {', '.join(sorted(TYPES))}.")
    arguments = raw.get("Arguments")
    if not isinstance(arguments, dict) and (kind in EXECUTED - BARE or arguments is not None):
        raise Malformed(
            f"Step '{name}' is missing its 'Arguments'."
            if arguments is None
            else f"The 'Arguments' of step '{name}' must be an object."
        )
    check_members(name, kind, raw)
    if kind == "Condition" and not isinstance(raw["Arguments"].get("Conditions", []), list):
        raise Malformed(f"The 'Conditions' of step '{name}' must be a list.")
    for member, most in (("DisplayName", 256), ("Description", 3072)):
        text = raw.get(member) or ""
        if not isinstance(text, str) or len(text) > most:
            raise Malformed(f"The {member} of step '{name}' must be a text of at most {most} characters.")


def check_members(name: str, kind: str, raw: dict[str, Any]) -> None:
    """Refuses what stands beside a step's arguments and means nothing: a queue, a function, declared outputs, a type of check."""
    if kind == "Callback" and not (isinstance(raw.get("SqsQueueUrl"), str) or function_of(raw.get("SqsQueueUrl"))):
        raise Malformed(f"Step '{name}' is missing its 'SqsQueueUrl'.")
    if kind == "Lambda" and not (isinstance(raw.get("FunctionArn"), str) or function_of(raw.get("FunctionArn"))):
        raise Malformed(f"Step '{name}' is missing its 'FunctionArn'.")
    if kind in CHECK_TYPES and raw.get("CheckType") not in CHECK_TYPES[kind]:
        raise Malformed(
            f"Step '{name}' has the CheckType '{raw.get('CheckType')}'; it must be one of {', '.join(CHECK_TYPES[kind])}."
        )
    outputs = raw.get("OutputParameters") or []
    if not isinstance(outputs, list) or len(outputs) > MOST_OUTPUTS:
        raise Malformed(f"The OutputParameters of step '{name}' must be a list of at most {MOST_OUTPUTS}.")
    seen: set[str] = set()
    for output in outputs:
        named = output.get("OutputName") if isinstance(output, dict) else None
        if not isinstance(named, str) or not named or output.get("OutputType") not in OUTPUT_TYPES:
            raise Malformed(
                f"An output parameter of step '{name}' needs an 'OutputName' and an 'OutputType', one of {', '.join(OUTPUT_TYPES)}."
            )
        if named in seen:
            raise Malformed(f"Step '{name}' has two output parameters '{named}'.")
        seen.add(named)


def check_arguments(name: str, kind: str, arguments: dict[str, Any]) -> None:
    """Refuses arguments that the step's job could never be made of."""
    for path in REQUIRED.get(kind, ()):
        if _member(arguments, path) is None:
            raise Malformed(f"Step '{name}' is missing the required argument '{path}'.")
    if kind == "Lineage" and not (arguments and set(arguments) <= LINEAGE):
        raise Malformed(f"The arguments of step '{name}' must be some of {', '.join(sorted(LINEAGE))}, and nothing else.")
    if kind == "Model" and not (arguments.get("PrimaryContainer") or arguments.get("Containers")):
        raise Malformed(f"Step '{name}' is missing the required argument 'PrimaryContainer' or 'Containers'.")
    if kind == "RegisterModel" and not (
        arguments.get("ModelPackageGroupName")
        or arguments.get("ModelPackageName")
        or arguments.get("InferenceSpecification")
    ):
        raise Malformed(f"Step '{name}' is missing the required argument 'ModelPackageGroupName'.")
    for path, most in MOST.get(kind, ()):
        value = _member(arguments, path)
        if isinstance(value, (list, dict)) and function_of(value) is None and len(value) > most:
            raise Malformed(f"Step '{name}' has {len(value)} {path}; the maximum is {most}.")
    if kind in CREATED_BY:
        operation, named = CREATED_BY[kind]
        for misfit in misfits("sagemaker", operation, arguments, lambda value: function_of(value) is not None, named):
            raise Malformed(f"Model Validation failed in step '{name}': {misfit}.")


def read_depends(name: str, raw: dict[str, Any]) -> dict[str, str]:
    """The steps that a step names in its DependsOn, and what must have become of each.

    Raises: Malformed.
    """
    depends = raw.get("DependsOn") or []
    read: dict[str, str] = {}
    for item in depends if isinstance(depends, list) else [None]:
        given = {"Step": item, "Trigger": TRIGGERS[0]} if isinstance(item, str) else item
        if not isinstance(given, dict) or not isinstance(given.get("Step"), str) or given.get("Trigger") not in TRIGGERS:
            raise Malformed(
                f"The DependsOn of step '{name}' must be a list of step names, or of a 'Step' and a 'Trigger', one of "
                f"{', '.join(TRIGGERS)}."
            )
        read[given["Step"]] = given["Trigger"]
    return read


def outside_of_each(value: Any) -> Any:
    """What a ForEach step says without what only has a value within its body: the current item, a body step's outputs."""
    if isinstance(value, dict):
        get = value.get("Get")
        if len(value) == 1 and isinstance(get, str) and get.startswith(("ForEach.", "IterationOutput.")):
            return None
        return {name: outside_of_each(inner) for name, inner in value.items()}
    return [outside_of_each(inner) for inner in value] if isinstance(value, list) else value


def names_in_each(raw: dict[str, Any]) -> set[str]:
    """The names of the steps in a ForEach step's body."""
    body = (raw.get("Arguments") or {}).get("ForEachBody")
    return {str(step.get("Name")) for step in body if isinstance(step, dict)} if isinstance(body, list) else set()


def check_policies(name: str, raw: dict[str, Any]) -> None:
    """Refuses cache settings and retry policies that mean nothing."""
    cache = raw.get("CacheConfig")
    if cache is not None:
        if not isinstance(cache, dict) or not isinstance(cache.get("Enabled"), bool):
            raise Malformed(f"The CacheConfig of step '{name}' needs 'Enabled', true or false.")
        expires = cache.get("ExpireAfter")
        if expires is not None and not (isinstance(expires, str) and expires and DURATION.fullmatch(expires)):
            raise Malformed(
                f"The CacheConfig of step '{name}' has the ExpireAfter '{expires}', which is no ISO 8601 duration."
            )
    policies = raw.get("RetryPolicies")
    if policies is not None and not isinstance(policies, list):
        raise Malformed(f"The RetryPolicies of step '{name}' must be a list.")
    for policy in policies or []:
        _check_policy(name, policy)


def read_files(name: str, raw: dict[str, Any], arguments: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The step's property files: by name, the output and the path in it.

    Raises: Malformed for a file of an output that the step does not have.
    """
    files: dict[str, tuple[str, str]] = {}
    for item in raw.get("PropertyFiles") or []:
        if not isinstance(item, dict) or not all(
            isinstance(item.get(m), str) for m in ("PropertyFileName", "OutputName", "FilePath")
        ):
            raise Malformed(f"A property file of step '{name}' needs 'PropertyFileName', 'OutputName' and 'FilePath'.")
        outputs = _member(arguments, "ProcessingOutputConfig.Outputs")
        names = (
            [output.get("OutputName") for output in outputs if isinstance(output, dict)]
            if isinstance(outputs, list)
            else []
        )
        if item["OutputName"] not in names:
            raise Malformed(
                f"Processing output name '{item['OutputName']}' of property file '{item['PropertyFileName']}' "
                f"not found in step '{name}'; "
                f"its outputs are [{', '.join(map(str, names))}]."
            )
        if item["PropertyFileName"] in files:
            raise Malformed(f"Step '{name}' has two property files '{item['PropertyFileName']}'.")
        files[item["PropertyFileName"]] = (item["OutputName"], item["FilePath"])
    return files


def _check_policy(name: str, policy: Any) -> None:
    if not isinstance(policy, dict):
        raise Malformed(f"A retry policy of step '{name}' is no object.")
    if policy.get("MaxAttempts") is not None and policy.get("ExpireAfterMin") is not None:
        raise Malformed(
            f"A retry policy of step '{name}' has both 'MaxAttempts' and 'ExpireAfterMin'; give only one of them."
        )
    for member, least, most in (
        ("MaxAttempts", 0, 20),
        ("ExpireAfterMin", 0, 14_400),
        ("IntervalSeconds", 0, 43_200),
        ("BackoffRate", 0, 1000),
    ):
        value = policy.get(member)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most
        ):
            raise Malformed(
                f"A retry policy of step '{name}' has the {member} {json.dumps(value)}; "
                f"it must be between {least} and {most}."
            )
    types = policy.get("ExceptionType")
    for kind in types if isinstance(types, list) else [types]:
        if kind not in RETRIED:
            raise Malformed(
                f"A retry policy of step '{name}' has the unknown ExceptionType '{kind}'; "
                f"the types are {', '.join(sorted(RETRIED))}."
            )


def _member(value: Any, path: str) -> Any:
    """The member at a dotted path; an expression on the way stands for whatever is asked."""
    for part in path.split("."):
        if function_of(value):
            return value
        value = value.get(part) if isinstance(value, dict) else None
    return value
