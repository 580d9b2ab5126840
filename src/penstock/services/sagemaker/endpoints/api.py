"""Operations on endpoint configurations; endpoints are only looked for.

CreateEndpoint and its kin are not here, so they answer 501.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import invalid
from penstock.services.sagemaker.endpoints.state import CONFIG, ENDPOINT
from penstock.services.sagemaker.models.state import MODEL
from penstock.services.sagemaker.roles import require_role

MOST_VARIANTS = 10
SERVERLESS_MEMORY_MB = (1024, 2048, 3072, 4096, 5120, 6144)
COMPUTE = ("ServerlessConfig", "InstanceType", "InstancePools")


def create_endpoint_config(call: Call) -> dict[str, Any]:
    """Makes an endpoint configuration.

    Raises: ServiceError (ValidationException) for a taken name, a missing model or role, variants that do not
        hold together.
    """
    given = call.params
    if CONFIG.find(call, given["EndpointConfigName"]):
        raise CONFIG.error(CONFIG.exists, call, given["EndpointConfigName"])
    if role := given.get("ExecutionRoleArn"):
        require_role(call, role)
    variants, shadows = given["ProductionVariants"], given.get("ShadowProductionVariants", [])
    if len(variants) + len(shadows) > MOST_VARIANTS:
        raise invalid(f"An endpoint configuration can have at most {MOST_VARIANTS} variants.")
    names = [variant["VariantName"] for variant in [*variants, *shadows]]
    if len(set(names)) < len(names):
        raise invalid("Variant names must be unique within an endpoint configuration.")
    body = {**given, "ProductionVariants": [_checked(call, variant) for variant in variants]}
    if shadows:
        if len(variants) != 1 or len(shadows) != 1:
            raise invalid("Shadow variants need exactly one production variant and one shadow variant.")
        body["ShadowProductionVariants"] = [_checked(call, variant) for variant in shadows]
    return {"EndpointConfigArn": CONFIG.create(call, body=body).arn}


def describe_endpoint_config(call: Call) -> dict[str, Any]:
    return CONFIG.describe(CONFIG.get(call))


def list_endpoint_configs(call: Call) -> dict[str, Any]:
    return CONFIG.page(call, "EndpointConfigs")


def delete_endpoint_config(call: Call) -> None:
    CONFIG.delete(call)


def describe_endpoint(call: Call) -> dict[str, Any]:
    return ENDPOINT.describe(ENDPOINT.get(call))


def list_endpoints(call: Call) -> dict[str, Any]:
    return ENDPOINT.page(call, "Endpoints")


def delete_endpoint(call: Call) -> None:
    ENDPOINT.delete(call)


def _checked(call: Call, variant: dict[str, Any]) -> dict[str, Any]:
    """The variant, if it holds together."""
    name = variant["VariantName"]
    model = variant.get("ModelName")
    if model is not None:
        MODEL.get(call, model)
    compute = [member for member in COMPUTE if member in variant]
    if len(compute) != 1:
        raise invalid(f"Variant {name} must have exactly one of {', '.join(COMPUTE)}.")
    if "ServerlessConfig" in variant:
        if model is None:
            raise invalid(f"ModelName is required for the serverless variant {name}.")
        memory = variant["ServerlessConfig"].get("MemorySizeInMB")
        if memory not in SERVERLESS_MEMORY_MB:
            sizes = ", ".join(map(str, SERVERLESS_MEMORY_MB))
            raise invalid(
                f"1 validation error detected: Value '{memory}' at 'MemorySizeInMB' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{sizes}]"
            )
        if unfit := [
            member for member in ("InitialInstanceCount", "AcceleratorType", "VolumeSizeInGB") if member in variant
        ]:
            raise invalid(f"{unfit[0]} cannot be specified for the serverless variant {name}.")
    elif model is not None and "InitialInstanceCount" not in variant and "ManagedInstanceScaling" not in variant:
        raise invalid(f"InitialInstanceCount is required for variant {name}.")
    if model is None and not call.params.get("ExecutionRoleArn"):
        raise invalid("ExecutionRoleArn is required when a variant names no model.")
    return variant
