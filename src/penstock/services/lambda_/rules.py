"""What a function's configuration may be, and what its program finds in its environment. Pure functions.

Source: docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html, configuration-envvars.html, lambda-runtimes.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.state import refused

RUNTIMES = tuple(f"python3.{minor}" for minor in range(8, 15))
RETIRED = frozenset({
    "python2.7", "python3.6", "python3.7", "nodejs", "nodejs4.3", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x", "nodejs14.x",
    "java8", "dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1", "dotnet5.0", "ruby2.5", "ruby2.7", "go1.x", "provided",
})  # fmt: skip
"""Runtimes that AWS itself no longer makes functions for."""
IMAGE = "public.ecr.aws/lambda/python"
RESERVED = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
})  # fmt: skip
ENVIRONMENT_BYTES = 4096
TIMEOUT_S, MEMORY_MB = 900, 10_240
LAYERS = 5
DEFAULTS: Mapping[str, Any] = {
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "PackageType": "Zip",
    "Architectures": ["x86_64"],
    "EphemeralStorage": {"Size": 512},
    "TracingConfig": {"Mode": "PassThrough"},
}
SETTABLE = (
    "Role", "Handler", "Description", "Timeout", "MemorySize", "Environment", "Runtime", "DeadLetterConfig", "KMSKeyArn",
    "TracingConfig", "FileSystemConfigs", "EphemeralStorage",
)  # fmt: skip
"""What Create and UpdateFunctionConfiguration take, and Get shows as it is."""
SYNC_BYTES, ASYNC_BYTES = 6_291_456, 262_144


def image_of(runtime: str) -> str:
    """The image whose environment a runtime is here."""
    return f"{IMAGE}:{runtime.removeprefix('python')}"


def check(given: Mapping[str, Any]) -> None:
    """Raises: ServiceError for what no function's configuration can be."""
    runtime = given.get("Runtime")
    if runtime in RETIRED:
        raise refused(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. We recommend "
            "you use a supported runtime while creating or updating functions."
        )
    if runtime is not None and runtime not in RUNTIMES:
        raise refused(
            f"The runtime {runtime} is not run here: Penstock runs the runtimes {', '.join(RUNTIMES)}. Use one of them."
        )
    for member, most in (("Timeout", TIMEOUT_S), ("MemorySize", MEMORY_MB)):
        if given.get(member) is not None and given[member] > most:
            name = member[:1].lower() + member[1:]
            raise refused(
                f"1 validation error detected: Value '{given[member]}' at '{name}' failed to satisfy constraint: Member must "
                f"have value less than or equal to {most}"
            )
    if "Handler" in given and "\0" in str(given["Handler"]):
        raise refused("The handler must not contain a NUL character.")
    check_environment((given.get("Environment") or {}).get("Variables") or {})


def check_environment(variables: Mapping[str, str]) -> None:
    """Raises: ServiceError."""
    start = "Lambda was unable to configure your environment variables because the environment variables you have provided"
    reserved = [name for name in variables if name in RESERVED]
    if reserved:
        raise refused(
            f"{start} contains reserved keys that are currently not supported for modification. Reserved keys used in this "
            f"request: {', '.join(reserved)}"
        )
    for name, value in variables.items():
        if not re.fullmatch(r"[a-zA-Z]([a-zA-Z0-9_])+", name) or "\0" in value:
            raise refused(f"{start} contains the key '{name}', which (or whose value) is none: [a-zA-Z]([a-zA-Z0-9_])+")
    measured = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode("utf-8", "surrogatepass")) > ENVIRONMENT_BYTES:
        raise refused(f"{start} exceeded the 4KB limit. String measured: {measured[:200]}")


def set_members(body: dict[str, Any], given: Mapping[str, Any], name: str) -> None:
    """Puts what was given into a configuration."""
    body.update({member: given[member] for member in SETTABLE if given.get(member) is not None})
    if not (body.get("Environment") or {}).get("Variables"):
        body.pop("Environment", None)
    for member in ("DeadLetterConfig", "FileSystemConfigs"):
        if not body.get(member) or body[member] == {"TargetArn": ""}:
            body.pop(member, None)
    if not body.get("KMSKeyArn"):
        body.pop("KMSKeyArn", None)
    if given.get("VpcConfig") is not None:
        body["VpcConfig"] = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", **given["VpcConfig"]}
    if given.get("SnapStart") is not None or "SnapStart" not in body:
        applied = (given.get("SnapStart") or {}).get("ApplyOn", "None")
        body["SnapStart"] = {"ApplyOn": applied, "OptimizationStatus": "Off"}
    if given.get("LoggingConfig") is not None or "LoggingConfig" not in body:
        body["LoggingConfig"] = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}", **(given.get("LoggingConfig") or {})}


def check_payload(payload: bytes, most: int, operation: str) -> None:
    """Raises: ServiceError for a payload that is too large, or no JSON."""
    if len(payload) > most:
        raise ServiceError(
            "RequestTooLargeException", f"Request must be smaller than {most} bytes for the {operation} operation", 413,
            Type="User",
        )  # fmt: skip
    if payload:
        try:
            json.loads(payload.decode("utf-8"))
        except (ValueError, RecursionError) as why:
            raise ServiceError(
                "InvalidRequestContentException", f"Could not parse request body into json: {why}", 400, Type="User"
            ) from None
