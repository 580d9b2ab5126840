"""The lineage of a model package, entered by the look that its registration and each change of its approval ask for.

Source: docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-auto-creation.html.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.services.sagemaker.lineage import entities
from penstock.services.sagemaker.lineage.state import ACTION, CONTEXT
from penstock.store.records import Document, Ref


def enter(call: Call, package: Document) -> None:
    """Enters a package and its approval as it is now: what it holds contributed to it, as the approval does; its group has it.

    What is there already is left as it is.
    """
    model = entities.artifact(call, package.arn, "Model")
    for container in package.body.get("InferenceSpecification", {}).get("Containers", []):
        for member, kind in (("ModelDataUrl", "Model"), ("Image", "Image")):
            if container.get(member):
                entities.associate(call, entities.artifact(call, container[member], kind), model, "ContributedTo")
    group, stamp = package.body.get("ModelPackageGroupName"), int(package.created)
    if not group:
        return
    status, version = package.body.get("ModelApprovalStatus", ""), package.body.get("ModelPackageVersion", "")
    name = f"{group}-{version}-{status}-{stamp}-aws-model-package"
    approval = _named(call, ACTION, name, "Approval", {"SourceUri": package.arn, "SourceType": "ARN"}, Status="Completed")
    entities.associate(call, approval, model, "ContributedTo")
    entities.associate(call, model, _group(call, package, group), "AssociatedWith")


def _group(call: Call, package: Document, group: str) -> Document:
    """The context of a package's group."""
    found = call.find(Ref("sagemaker.model-package-group", package.account, package.region, group))
    stamp = int(found.created if found else package.created)
    uri = found.arn if found else package.arn.rpartition("/")[0].replace(":model-package/", ":model-package-group/")
    source = {"SourceUri": uri, "SourceType": "ARN"}
    return _named(call, CONTEXT, f"{group}-{stamp}-aws-model-package-group", "ModelGroup", source)


def _named(call: Call, resource: Any, name: str, kind: str, source: dict[str, str], **more: Any) -> Document:
    noun = resource.key.removesuffix("Name")
    given = {"Source": source, f"{noun}Type": kind, **{member: value for member, value in more.items() if value}}
    known: Document | None = resource.find(call, name)
    return known or entities.create(call, resource, name, given, kind)
