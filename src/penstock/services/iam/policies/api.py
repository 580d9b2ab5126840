"""Operations on managed policies."""

from __future__ import annotations

from collections import Counter
from typing import Any

from penstock.kernel import ids, pages
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.iam import holders, managed
from penstock.services.iam.managed import find_policy
from penstock.services.iam.rules import check_policy, encoded
from penstock.services.iam.state import POLICY, conflict, nothing
from penstock.store.records import Document, Query

MOST_VERSIONS = 5


def create_policy(call: Call) -> dict[str, Any]:
    """Makes a managed policy. Raises: ServiceError EntityAlreadyExists, MalformedPolicyDocument."""
    name, path = call.params["PolicyName"], call.params.get("Path", "/")
    version = {
        "VersionId": "v1",
        "IsDefaultVersion": True,
        "CreateDate": call.now,
        "Document": check_policy(call.params["PolicyDocument"]),
    }
    body = {
        **call.params,
        "Path": path,
        "PolicyId": "ANPA" + ids.word(17, ids.UPPER),
        "DefaultVersionId": "v1",
        "_versions": [version],
        "_made": 1,
    }
    policy = POLICY.create(call, body=body, arn=POLICY.arn_of(call, path + name), label=path)
    shown = _listed(policy, Counter(), Counter())
    return {"Policy": {**shown, "Tags": call.params["Tags"]} if call.params.get("Tags") else shown}


def get_policy(call: Call) -> dict[str, Any]:
    policy = find_policy(call, call.params["PolicyArn"])
    shown = {"Tags": [], **holders.show_tagged(call, POLICY, policy)}
    return {"Policy": {**shown, **_shown(policy, *managed.attachments(call))}}


def list_policies(call: Call) -> dict[str, Any]:
    """Lists the account's policies and those of AWS's that are known or attached."""
    given = call.params
    counts = managed.attachments(call)
    scope, prefix = given.get("Scope", "All"), given.get("PathPrefix", "/")
    found: list[Document] = []
    if scope != "AWS":
        found += call.app.store.page(Query(kind=POLICY.kind, account=call.account, order="name", limit=10_000))
    if scope != "Local":
        used = (arn.removeprefix(managed.AWS) for count in counts for arn in count if arn.startswith(managed.AWS))
        found += [managed.aws_policy(name) for name in sorted({*managed.NAMES, *used})]
    counted = counts[1] if given.get("PolicyUsageFilter") == "PermissionsBoundary" else counts[0]
    found = [
        one for one in found if one.label.startswith(prefix) and (not given.get("OnlyAttached") or counted[one.arn])
    ]
    return pages.cut(
        call, "Policies", found, lambda one: one.arn, paging=pages.MARKERS, show=lambda one: _listed(one, *counts)
    )


def delete_policy(call: Call) -> None:
    """Raises: ServiceError DeleteConflict while it is attached or has several versions."""
    policy = _own(call)
    attached, bounding = managed.attachments(call)
    if attached[policy.arn] or bounding[policy.arn]:
        raise conflict("Cannot delete a policy attached to entities.")
    if len(policy.body["_versions"]) > 1:
        raise conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy."
        )
    POLICY.delete(call, policy.arn)


def list_entities_for_policy(call: Call) -> dict[str, Any]:
    """Lists the roles and users that have a policy; groups are not there."""
    policy, given = find_policy(call, call.params["PolicyArn"]), call.params
    filtered, prefix = given.get("EntityFilter"), given.get("PathPrefix", "/")
    bounding = given.get("PolicyUsageFilter") == "PermissionsBoundary"
    names = {"iam.role": "Role", "iam.user": "User"}
    found = [
        one
        for one in managed.holders(call)
        if filtered in (None, names[one.kind]) and one.label.startswith(prefix) and policy.arn in _arns(one, bounding)
    ]
    answer = pages.cut(call, "_found", found, lambda one: [one.kind, one.name], paging=pages.MARKERS)
    page = answer.pop("_found")
    roles = [{"RoleName": one.name, "RoleId": one.body["RoleId"]} for one in page if one.kind == "iam.role"]
    users = [{"UserName": one.name, "UserId": one.body["UserId"]} for one in page if one.kind == "iam.user"]
    return {**answer, "PolicyGroups": [], "PolicyRoles": roles, "PolicyUsers": users}


def _arns(holder: Document, bounding: bool) -> list[str]:
    boundary = holder.body.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    return [boundary] if bounding else holder.body["_attached"]


# --- versions
def create_policy_version(call: Call) -> dict[str, Any]:
    """Adds a version. Raises: ServiceError LimitExceeded for a sixth."""
    policy = _own(call)
    versions = policy.body["_versions"]
    if len(versions) >= MOST_VERSIONS:
        raise ServiceError(
            "LimitExceeded",
            "A managed policy can have up to 5 versions. "
            "Before you create a new version, you must delete an existing version.",
            409,
        )
    policy.body["_made"] += 1
    version = {
        "VersionId": f"v{policy.body['_made']}",
        "IsDefaultVersion": False,
        "CreateDate": call.now,
        "Document": check_policy(call.params["PolicyDocument"]),
    }
    versions.append(version)
    if call.params.get("SetAsDefault"):
        _set_default(policy, version)
    POLICY.save(call, policy)
    return {"PolicyVersion": {name: value for name, value in version.items() if name != "Document"}}


def get_policy_version(call: Call) -> dict[str, Any]:
    """Raises: ServiceError with 501 for a policy of AWS's whose text is not here."""
    policy = find_policy(call, call.params["PolicyArn"])
    version = _version(policy, call.params["VersionId"])
    if version["Document"] is None:
        raise ServiceError("NotImplemented", f"Penstock does not hold the text of {policy.arn}.", 501)
    return {"PolicyVersion": {**version, "Document": encoded(version["Document"])}}


def list_policy_versions(call: Call) -> dict[str, Any]:
    versions = find_policy(call, call.params["PolicyArn"]).body["_versions"]
    return pages.cut(
        call,
        "Versions",
        versions,
        lambda version: int(version["VersionId"][1:]),
        paging=pages.MARKERS,
        descending=True,
        show=lambda version: {name: value for name, value in version.items() if name != "Document"},
    )


def set_default_policy_version(call: Call) -> None:
    policy = _own(call)
    _set_default(policy, _version(policy, call.params["VersionId"]))
    POLICY.save(call, policy)


def delete_policy_version(call: Call) -> None:
    """Raises: ServiceError DeleteConflict for the default version."""
    policy = _own(call)
    version = _version(policy, call.params["VersionId"])
    if version["IsDefaultVersion"]:
        raise conflict("Cannot delete the default version of a policy.")
    policy.body["_versions"].remove(version)
    POLICY.save(call, policy)


# --- tags
def tag_policy(call: Call) -> None:
    holders.put_tags(call, _own(call))


def untag_policy(call: Call) -> None:
    holders.delete_tags(call, _own(call))


def list_policy_tags(call: Call) -> dict[str, Any]:
    return holders.page_tags(call, find_policy(call, call.params["PolicyArn"]))


def _own(call: Call) -> Document:
    arn = call.params["PolicyArn"]
    if arn.startswith(managed.AWS + "/"):
        raise ServiceError(
            "AccessDenied", f"User: {call.caller.arn} is not authorized to change the AWS managed policy {arn}", 403
        )
    return POLICY.get(call, arn)


def _version(policy: Document, version_id: str) -> dict[str, Any]:
    found = next((version for version in policy.body["_versions"] if version["VersionId"] == version_id), None)
    if found is None:
        raise nothing(f"Policy {policy.arn} version {version_id} does not exist or is not attachable.")
    return dict(found) if policy.version == 0 else found


def _set_default(policy: Document, chosen: dict[str, Any]) -> None:
    for version in policy.body["_versions"]:
        version["IsDefaultVersion"] = version is chosen
    policy.body["DefaultVersionId"] = chosen["VersionId"]


def _shown(policy: Document, attached: Counter[str], bounding: Counter[str]) -> dict[str, Any]:
    counts = {"AttachmentCount": attached[policy.arn], "PermissionsBoundaryUsageCount": bounding[policy.arn]}
    return {**POLICY.describe(policy), **counts, "IsAttachable": True}


def _listed(policy: Document, attached: Counter[str], bounding: Counter[str]) -> dict[str, Any]:
    """The same without the description, which is told by GetPolicy only."""
    shown = _shown(policy, attached, bounding)
    return {member: value for member, value in shown.items() if member != "Description"}
