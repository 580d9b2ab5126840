"""What roles and users have in common: inline policies, attached policies, a boundary, tags.

A holder's document keeps its inline policies as `_inline` (name to text) and the ARNs of attached ones as `_attached`.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel import ids, pages, tags
from penstock.kernel.call import Call
from penstock.kernel.resource import Resource
from penstock.services.iam.managed import find_policy
from penstock.services.iam.rules import check_policy, encoded
from penstock.services.iam.state import conflict, nothing
from penstock.store.records import Document, TagsGone, TagsPut


def create_holder(call: Call, resource: Resource, prefix: str, id_member: str, **members: Any) -> Document:
    """A new role or user.

    Raises: ServiceError EntityAlreadyExists.
    """
    name, path = call.params[resource.key], call.params.get("Path", "/")
    body = {**call.params, "Path": path, id_member: prefix + ids.word(17, ids.UPPER), **members}
    document = resource.create(call, body=body, arn=resource.arn_of(call, path + name), label=path)
    document.body |= {"_inline": {}, "_attached": []}
    if boundary := call.params.get("PermissionsBoundary"):
        put_boundary(call, document, boundary)
    return document


def page_holders(call: Call, resource: Resource, output: str) -> dict[str, Any]:
    """A List operation, by name, under a path prefix; lists leave out tags and boundaries."""
    prefix = call.params.get("PathPrefix", "/")

    def show(document: Document) -> dict[str, Any]:
        shown = resource.describe(document)
        shown.pop("PermissionsBoundary", None)
        return shown

    keep = None if prefix == "/" else lambda document: document.label.startswith(prefix)
    return resource.page(call, output, order="name", descending=False, keep=keep, show=show)


def delete_holder(call: Call, resource: Resource) -> None:
    """Raises: ServiceError DeleteConflict while it has policies."""
    document = resource.get(call)
    if document.body["_attached"]:
        raise conflict("Cannot delete entity, must detach all policies first.")
    if document.body["_inline"]:
        raise conflict("Cannot delete entity, must delete policies first.")
    resource.delete(call)


def show_tagged(call: Call, resource: Resource, document: Document) -> dict[str, Any]:
    """The Get answer: with its tags, where it has any."""
    shown = resource.describe(document)
    known = call.app.store.tags(document.arn)
    return {**shown, "Tags": tags.listed(known)} if known else shown


# --- inline policies
def put_inline(call: Call, resource: Resource) -> None:
    document = resource.get(call)
    document.body["_inline"][call.params["PolicyName"]] = check_policy(call.params["PolicyDocument"])
    call.put(document)


def get_inline(call: Call, resource: Resource) -> dict[str, Any]:
    """Raises: ServiceError NoSuchEntity."""
    document = resource.get(call)
    text = _inline(document, resource, call.params["PolicyName"])
    return {resource.key: document.name, "PolicyName": call.params["PolicyName"], "PolicyDocument": encoded(text)}


def delete_inline(call: Call, resource: Resource) -> None:
    """Raises: ServiceError NoSuchEntity."""
    document = resource.get(call)
    _inline(document, resource, call.params["PolicyName"])
    del document.body["_inline"][call.params["PolicyName"]]
    call.put(document)


def page_inline(call: Call, resource: Resource) -> dict[str, Any]:
    return pages.cut(call, "PolicyNames", list(resource.get(call).body["_inline"]), str, paging=pages.MARKERS)


def _inline(document: Document, resource: Resource, name: str) -> str:
    text = document.body["_inline"].get(name)
    if text is None:
        noun = resource.kind.partition(".")[2]
        raise nothing(f"The {noun} policy with name {name} cannot be found.")
    return str(text)


# --- attached policies
def attach(call: Call, resource: Resource) -> None:
    """Raises: ServiceError NoSuchEntity for a policy that is not there."""
    document, arn = resource.get(call), call.params["PolicyArn"]
    policy = find_policy(call, arn, "Policy {name} does not exist or is not attachable.")
    if arn not in document.body["_attached"]:
        if policy.version:
            call.change.reads.append(policy)
        document.body["_attached"].append(arn)
        call.put(document)


def detach(call: Call, resource: Resource) -> None:
    """Raises: ServiceError NoSuchEntity for a policy that is not attached."""
    document, arn = resource.get(call), call.params["PolicyArn"]
    if arn not in document.body["_attached"]:
        raise nothing(f"Policy {arn} was not found.")
    document.body["_attached"].remove(arn)
    call.put(document)


def page_attached(call: Call, resource: Resource) -> dict[str, Any]:
    prefix = call.params.get("PathPrefix", "/")
    arns = [arn for arn in resource.get(call).body["_attached"] if arn.partition(":policy")[2].startswith(prefix)]
    return pages.cut(
        call,
        "AttachedPolicies",
        arns,
        str,
        paging=pages.MARKERS,
        show=lambda arn: {"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn},
    )


# --- boundary
def put_boundary(call: Call, document: Document, arn: str) -> None:
    """Raises: ServiceError NoSuchEntity for a policy that is not there."""
    find_policy(call, arn)
    document.body["PermissionsBoundary"] = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn}
    call.put(document)


def delete_boundary(call: Call, document: Document) -> None:
    """Raises: ServiceError NoSuchEntity where there is none."""
    if document.body.pop("PermissionsBoundary", None) is None:
        raise nothing(f"{document.name} does not have a permission boundary")
    call.put(document)


# --- tags
def put_tags(call: Call, document: Document) -> None:
    """Raises: ServiceError InvalidInput, or LimitExceeded above 50."""
    given = tags.parse(call.params["Tags"], "InvalidInput", folded=True)
    tags.check_count({**call.app.store.tags(document.arn), **given}, "LimitExceeded", 409)
    call.row(TagsPut(arn=document.arn, tags=given))


def delete_tags(call: Call, document: Document) -> None:
    call.row(TagsGone(arn=document.arn, keys=call.params["TagKeys"]))


def page_tags(call: Call, document: Document) -> dict[str, Any]:
    listed = tags.listed(call.app.store.tags(document.arn))
    return pages.cut(call, "Tags", listed, lambda tag: tag["Key"], paging=pages.MARKERS)
