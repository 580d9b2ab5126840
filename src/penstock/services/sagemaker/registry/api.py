"""Operations on model package groups and model packages."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError, invalid
from penstock.services.sagemaker.models.state import MODEL
from penstock.services.sagemaker.people import author
from penstock.services.sagemaker.registry import rules
from penstock.services.sagemaker.registry.state import COMPLETED, GROUP, PACKAGE, PENDING
from penstock.store.records import Document, Query, Stale


# --- groups
def create_model_package_group(call: Call) -> dict[str, Any]:
    body = {**call.params, "CreatedBy": author(call)}
    group = GROUP.create(call, body=body, status=COMPLETED)
    group.body["_last"] = 0
    return {"ModelPackageGroupArn": group.arn}


def describe_model_package_group(call: Call) -> dict[str, Any]:
    return GROUP.describe(GROUP.get(call))


def list_model_package_groups(call: Call) -> dict[str, Any]:
    if call.params.get("CrossAccountFilterOption") == "CrossAccount":
        return {"ModelPackageGroupSummaryList": []}
    return GROUP.page(call, "ModelPackageGroupSummaryList")


def delete_model_package_group(call: Call) -> None:
    """Raises: ServiceError (ConflictException) while it has versions."""
    group = GROUP.get(call)
    put = any(one.kind == PACKAGE.kind and one.parent == group.name for one in call.change.puts)
    versions = Query(kind=PACKAGE.kind, account=group.account, region=group.region, parent=group.name)
    if put or call.app.store.count(versions):
        raise ServiceError(
            "ConflictException", f"Model Package Group {group.arn} cannot be deleted while it has model packages."
        )
    GROUP.delete(call, group.name)


def put_model_package_group_policy(call: Call) -> dict[str, Any]:
    group = GROUP.get(call)
    group.body["_policy"] = call.params["ResourcePolicy"]
    call.put(group)
    return {"ModelPackageGroupArn": group.arn}


def get_model_package_group_policy(call: Call) -> dict[str, Any]:
    """Raises: ServiceError (ValidationException) where there is none."""
    return {"ResourcePolicy": _policied(call).body["_policy"]}


def delete_model_package_group_policy(call: Call) -> None:
    """Raises: ServiceError (ValidationException) where there is none."""
    group = _policied(call)
    del group.body["_policy"]
    call.put(group)


def _policied(call: Call) -> Document:
    group = GROUP.get(call)
    if "_policy" not in group.body:
        raise invalid(f"Cannot find resource policy for: {group.arn}")
    return group


# --- packages
def create_model_package(call: Call) -> dict[str, Any]:
    """Registers a version in a group, or an unversioned package.

    Raises: ServiceError (ValidationException) for a missing group, a taken name, members that exclude each other.
    Differs: no validation profile is run and no image scanned; the package is Completed at once.
    """
    given = call.params
    group_name, name = given.get("ModelPackageGroupName"), given.get("ModelPackageName")
    if group_name and name:
        raise invalid(
            "Both ModelPackageName and ModelPackageGroupName are provided in the input. "
            "Cannot determine which one to use."
        )
    if not group_name and not name:
        raise invalid("Missing ARN.")
    body = _registered(call)
    if group_name:
        package = _create_version(call, GROUP.get(call, group_name), body)
    else:
        package = PACKAGE.create(call, body=body, status=COMPLETED, label=given.get("ModelApprovalStatus", ""))
    _tell(call, package, [])
    call.wake(package.ref)  # its lineage
    return {"ModelPackageArn": package.arn}


def describe_model_package(call: Call) -> dict[str, Any]:
    return PACKAGE.describe(PACKAGE.get(call))


def batch_describe_model_package(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {}
    missing: dict[str, Any] = {}
    for arn in call.params["ModelPackageArnList"]:
        package = PACKAGE.find(call, arn)
        if package:
            found[arn] = PACKAGE.describe(package)
        else:
            fault = PACKAGE.error(PACKAGE.missing, call, arn)
            missing[arn] = {"ErrorCode": fault.code, "ErrorResponse": fault.message}
    return {"ModelPackageSummaries": found, **({"BatchDescribeModelPackageErrorMap": missing} if missing else {})}


def list_model_packages(call: Call) -> dict[str, Any]:
    """Lists a group's versions, or by default the unversioned packages.

    Source: the SDK asks for the versions of a group that is not there yet, and is answered that there are none.
    """
    given = call.params
    parent, keep = None, None
    if group := given.get("ModelPackageGroupName"):
        found = GROUP.find(call, group)
        if found is None:
            return {"ModelPackageSummaryList": []}
        parent = found.name
    elif given.get("ModelPackageType", "Unversioned") == "Unversioned":
        parent = ""
    elif given["ModelPackageType"] == "Versioned":
        keep = _is_version
    label = given.get("ModelApprovalStatus")
    return PACKAGE.page(call, "ModelPackageSummaryList", parent=parent, label=label, keep=keep)


def update_model_package(call: Call) -> dict[str, Any]:
    """Changes a package: its approval, above all; the event says what is different.

    Raises: ServiceError (ValidationException) for a missing package, or members that exclude each other.
    """
    given = call.params
    package = PACKAGE.get(call, given["ModelPackageArn"])
    if "SourceUri" in given and "InferenceSpecification" in given:
        raise invalid("SourceUri and InferenceSpecification cannot be specified together.")
    updated = rules.update(package.body, given)
    package.label = package.body.get("ModelApprovalStatus", "")
    PACKAGE.save(call, package, LastModifiedBy=author(call))
    if updated:
        _tell(call, package, updated)
        call.wake(package.ref)  # its lineage
    return {"ModelPackageArn": package.arn}


def delete_model_package(call: Call) -> None:
    PACKAGE.delete(call)


def _create_version(call: Call, group: Document, body: dict[str, Any]) -> Document:
    if call.params.get("Tags"):
        raise invalid("Tags cannot be given to a versioned model package; it has those of its model package group.")
    group.body["_last"] = version = group.body["_last"] + 1
    call.put(group)  # counted by compare-and-set: two at once get two versions
    approval = call.params.get("ModelApprovalStatus", PENDING)
    body |= {"ModelPackageGroupName": group.name, "ModelPackageVersion": version, "ModelApprovalStatus": approval}
    name, rank = f"{group.name}/{version}", float(version)
    try:
        return PACKAGE.create(call, name, body=body, status=COMPLETED, parent=group.name, label=approval, rank=rank)
    except ServiceError:
        raise Stale(group.ref) from None  # taken since the group was read: read it again


def _registered(call: Call) -> dict[str, Any]:
    """Create's members as Describe shows them."""
    given = call.params
    body = {"CertifyForMarketplace": False, "SkipModelValidation": "None", **given, "CreatedBy": author(call)}
    body["ModelPackageStatusDetails"] = {"ValidationStatuses": [], "ImageScanStatuses": []}
    source = given.get("SourceUri", "")
    if "InferenceSpecification" in given and ":sagemaker:" in source:
        raise invalid("SourceUri and InferenceSpecification cannot be specified together.")
    if ":model/" in source and source.startswith("arn:"):
        body["InferenceSpecification"] = {"Containers": _model_containers(MODEL.get(call, source))}
    elif ":model-package/" in source and source.startswith("arn:"):
        cloned = PACKAGE.get(call, source)
        for member in ("InferenceSpecification", "AdditionalInferenceSpecifications", "ModelMetrics", "Domain", "Task"):
            if member in cloned.body:
                body.setdefault(member, cloned.body[member])
    return body


def _model_containers(model: Document) -> list[dict[str, Any]]:
    held = model.body.get("Containers") or [model.body["PrimaryContainer"]]
    names = ("ContainerHostname", "Image", "ModelDataUrl", "ModelDataSource", "Environment")
    return [{name: container[name] for name in names if name in container} for container in held]


def _is_version(package: Document) -> bool:
    return package.parent != ""


def _tell(call: Call, package: Document, updated: list[str]) -> None:
    detail = rules.event_detail(package.body, updated)
    call.emit("aws.sagemaker", "SageMaker Model Package State Change", detail, [package.arn])
