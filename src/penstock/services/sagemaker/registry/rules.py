"""The registry's pure parts: what an update changes, and what the event of a package says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

SHOWN_IN_EVENTS = (
    "ModelPackageGroupName", "ModelPackageName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription",
    "InferenceSpecification", "SourceAlgorithmSpecification", "ValidationSpecification", "ModelPackageStatus",
    "ModelPackageStatusDetails", "CertifyForMarketplace", "ModelApprovalStatus", "MetadataProperties", "ModelMetrics",
    "ApprovalDescription", "Domain", "Task", "SamplePayloadUrl", "CustomerMetadataProperties", "DriftCheckBaselines",
    "AdditionalInferenceSpecifications", "SkipModelValidation", "SourceUri", "ModelLifeCycle",
)  # fmt: skip
REPLACED = (
    "ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelLifeCycle",
    "ModelPackageRegistrationType",
)  # fmt: skip
"""Members that an update puts in the place of what was there."""


def update(body: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """Changes a package's body as an update asks; gives the names of the members that are now different."""
    before = {
        name: body.get(name) for name in (*REPLACED, "ModelCard", "CustomerMetadataProperties", "AdditionalInferenceSpecifications")
    }
    for name in REPLACED:
        if name in given:
            body[name] = given[name]
    if card := given.get("ModelCard"):
        body["ModelCard"] = {**body.get("ModelCard", {}), **card}  # its content and its status are updated one by one
    properties = {**body.get("CustomerMetadataProperties", {}), **given.get("CustomerMetadataProperties", {})}
    for key in given.get("CustomerMetadataPropertiesToRemove", []):
        properties.pop(key, None)
    if properties:
        body["CustomerMetadataProperties"] = properties
    else:
        body.pop("CustomerMetadataProperties", None)
    if added := given.get("AdditionalInferenceSpecificationsToAdd"):
        names = {specification["Name"] for specification in added}
        kept = [one for one in body.get("AdditionalInferenceSpecifications", []) if one["Name"] not in names]
        body["AdditionalInferenceSpecifications"] = kept + added
    return [name for name, value in before.items() if body.get(name) != value]


def event_detail(body: dict[str, Any], updated: list[str]) -> dict[str, Any]:
    """The detail of "SageMaker Model Package State Change".

    Source: the developer guide's page on EventBridge; moments are ISO 8601 in whole seconds.
    """
    detail = {name: body[name] for name in SHOWN_IN_EVENTS if name in body}
    detail |= {name: iso(body[name]) for name in ("CreationTime", "LastModifiedTime") if name in body}
    return {**detail, "UpdatedModelPackageFields": updated} if updated else detail


def iso(moment: float) -> str:
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
