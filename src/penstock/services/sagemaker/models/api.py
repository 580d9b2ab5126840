"""Operations on models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import invalid
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.models.state import MODEL
from penstock.services.sagemaker.registry.state import PACKAGE
from penstock.services.sagemaker.roles import require_role
from penstock.store.records import Document

MOST_CONTAINERS = 15


def create_model(call: Call) -> dict[str, Any]:
    """Makes a model of containers, or of what model packages hold.

    Raises: ServiceError (ValidationException) for a taken name, a missing image, role or package, a package that is
        not approved.
    Differs: whether the model data is there is seen when the model runs.
    """
    given = call.params
    contract.refuse_nul(given)
    if MODEL.find(call, given["ModelName"]):
        raise MODEL.error(MODEL.exists, call, given["ModelName"])
    if role := given.get("ExecutionRoleArn"):
        require_role(call, role)
    primary, several = given.get("PrimaryContainer"), given.get("Containers")
    if (primary is None) == (not several):
        raise invalid("Exactly one of PrimaryContainer and Containers must be specified.")
    containers = [container for one in several or [primary] for container in _resolved(call, one)]
    if len(containers) > MOST_CONTAINERS:
        raise invalid(f"A model can have at most {MOST_CONTAINERS} containers.")
    hostnames = [container["ContainerHostname"] for container in containers if "ContainerHostname" in container]
    if len(set(hostnames)) < len(hostnames):
        raise invalid("Container hostnames must be unique within a model.")
    body = {name: value for name, value in given.items() if name not in ("PrimaryContainer", "Containers")}
    body.setdefault("EnableNetworkIsolation", False)
    single = primary is not None and len(containers) == 1
    body["PrimaryContainer" if single else "Containers"] = containers[0] if single else containers
    return {"ModelArn": MODEL.create(call, body=body).arn}


def describe_model(call: Call) -> dict[str, Any]:
    return MODEL.describe(MODEL.get(call))


def list_models(call: Call) -> dict[str, Any]:
    return MODEL.page(call, "Models")


def delete_model(call: Call) -> None:
    MODEL.delete(call)


def _resolved(call: Call, container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The container as Describe shows it: what its model package holds, under what it says itself."""
    named = container.get("ModelPackageName")
    if named is None:
        if not container.get("Image"):
            raise invalid("Container Image must be specified when no ModelPackageName is given.")
        yield {"Mode": "SingleModel", **container}
        return
    package = PACKAGE.get(call, named)
    if package.label not in ("", "Approved"):
        raise invalid(
            f"Model package {package.arn} cannot be used to create a model: its approval status is {package.label}."
        )
    for held in _specification(package, container.get("InferenceSpecificationName")).get("Containers", []):
        merged = {
            name: held[name]
            for name in ("ContainerHostname", "Image", "ModelDataUrl", "ModelDataSource")
            if name in held
        }
        environment = {**held.get("Environment", {}), **container.get("Environment", {})}
        merged = {"Mode": "SingleModel", **merged, **container}
        yield {**merged, "Environment": environment} if environment else merged


def _specification(package: Document, name: str | None) -> dict[str, Any]:
    """The package's inference specification, or the additional one of that name."""
    if name is None:
        held: dict[str, Any] = package.body.get("InferenceSpecification", {})
        if not held.get("Containers"):
            raise invalid(f"Model package {package.arn} has no inference specification to create a model of.")
        return held
    for additional in package.body.get("AdditionalInferenceSpecifications", []):
        if additional["Name"] == name:
            return dict(additional)
    raise invalid(f"Model package {package.arn} has no inference specification named {name}.")
