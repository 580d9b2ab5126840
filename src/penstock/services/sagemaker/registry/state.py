"""The declarations of model package groups and model packages.

A version is a document "<group>/<version>" with its group as parent, its number as rank and its approval as label; an
unversioned package has no parent. The group's `_last` is the highest version ever given.

Differs: a version's ModelPackageName is "<group>/<version>", by which it is found again; AWS leaves it out of lists.
"""

from __future__ import annotations

from penstock.kernel.resource import Resource

GROUP = Resource(
    "sagemaker.model-package-group",
    key="ModelPackageGroupName",
    path="model-package-group/{name}",
    arn="ModelPackageGroupArn",
    status="ModelPackageGroupStatus",
    updated="",
    missing=("ValidationException", "ModelPackageGroup {arn} does not exist."),
    exists=("ValidationException", "Model Package Group already exists: {arn}"),
)
PACKAGE = Resource(
    "sagemaker.model-package",
    key="ModelPackageName",
    path="model-package/{name}",
    arn="ModelPackageArn",
    status="ModelPackageStatus",
    missing=("ValidationException", "ModelPackage {arn} does not exist."),
    exists=("ValidationException", "ModelPackage already exists: {arn}"),
)
PENDING = "PendingManualApproval"
COMPLETED = "Completed"
