"""Access control lists: of buckets whose owner turned them on, kept and shown; elsewhere refused as S3 refuses them.

Grants lie in `_acl` of the bucket's body or the object's meta; nothing there means the owner's full control.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from penstock.kernel import notices
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import policies, state
from penstock.services.s3.checks import invalid, malformed
from penstock.store.records import Document

GROUPS = "http://acs.amazonaws.com/groups/"
ALL, AUTHENTICATED = f"{GROUPS}global/AllUsers", f"{GROUPS}global/AuthenticatedUsers"
LOGGERS = f"{GROUPS}s3/LogDelivery"
CANNED = {
    "private": (), "bucket-owner-full-control": (), "bucket-owner-read": (), "aws-exec-read": (),
    "public-read": ((ALL, "READ"),), "public-read-write": ((ALL, "READ"), (ALL, "WRITE")),
    "authenticated-read": ((AUTHENTICATED, "READ"),),
    "log-delivery-write": ((LOGGERS, "WRITE"), (LOGGERS, "READ_ACP")),
}  # fmt: skip
"""What a canned ACL gives beside the owner's full control."""
HEADERS = {
    "GrantFullControl": "FULL_CONTROL", "GrantRead": "READ", "GrantReadACP": "READ_ACP", "GrantWrite": "WRITE",
    "GrantWriteACP": "WRITE_ACP",
}  # fmt: skip
PERMISSIONS = frozenset(HEADERS.values())
MAX_GRANTS = 100
_GRANTEE = re.compile(r'\s*(id|uri|emailaddress)\s*=\s*"?([^",]+)"?\s*', re.IGNORECASE)


def ownership(bucket: Document) -> str:
    """How a bucket's objects are owned; BucketOwnerEnforced, where nobody said otherwise, turns ACLs off."""
    settings = bucket.body.get("_settings") or {}
    given = settings.get("OwnershipControls", {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    return str(given["Rules"][0]["ObjectOwnership"]) if given else "ObjectWriter"


def asked(call: Call, bucket: Document) -> list[dict[str, Any]] | None:
    """The grants that a request's ACL, grant headers or body ask for; None where it asks for nothing beyond the owner's.

    Raises: ServiceError AccessControlListNotSupported, AccessDenied, InvalidArgument, InvalidRequest, MalformedACLError.
    """
    params = call.params
    headers = [name for name in HEADERS if params.get(name)]
    body = params.get("AccessControlPolicy")
    if body is None and not headers and params.get("ACL") in (None, "private"):
        return None
    if params.get("ACL") and headers:
        raise ServiceError("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if body and (params.get("ACL") or headers):
        raise ServiceError("UnexpectedContent", "This request does not support content")
    if params.get("ACL") is not None and params["ACL"] not in CANNED:
        raise invalid("", ArgumentName="x-amz-acl", ArgumentValue=params["ACL"])
    if body is not None:
        grants = _of_body(bucket, body)
    elif headers:
        grants = [grant for name in headers for grant in _of_header(params[name], HEADERS[name])]
    else:
        grants = _of_canned(bucket, params.get("ACL") or "private")
    return _allowed(bucket, grants)


def _allowed(bucket: Document, grants: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The grants, where the bucket's settings let them be."""
    if grants == owners(bucket):
        return None
    if ownership(bucket) == "BucketOwnerEnforced":
        raise ServiceError("AccessControlListNotSupported", "The bucket does not allow ACLs")
    public = any(grant["Grantee"].get("URI") in (ALL, AUTHENTICATED) for grant in grants)
    if public and policies.blocked(bucket, "BlockPublicAcls"):
        raise ServiceError("AccessDenied", "Access Denied", 403)
    return grants


def owners(bucket: Document) -> list[dict[str, Any]]:
    """What an owner has."""
    return [{"Grantee": {"Type": "CanonicalUser", **state.owner_of(bucket.parent)}, "Permission": "FULL_CONTROL"}]


def _of_canned(bucket: Document, name: str) -> list[dict[str, Any]]:
    more = [{"Grantee": {"Type": "Group", "URI": uri}, "Permission": permission} for uri, permission in CANNED[name]]
    return owners(bucket) + more


def _of_header(text: str, permission: str) -> list[dict[str, Any]]:
    """The grants of `id="…", uri="…"`."""
    grants = []
    for each in text.split(","):
        found = _GRANTEE.fullmatch(each)
        if found is None:
            raise invalid("Argument format not recognized", ArgumentName="x-amz-grant", ArgumentValue=each.strip())
        kind, value = found[1].lower(), found[2].strip()
        member = {"id": "ID", "uri": "URI", "emailaddress": "EmailAddress"}[kind]
        grantee = {"Type": {"ID": "CanonicalUser", "URI": "Group"}.get(member, "AmazonCustomerByEmail"), member: value}
        grants.append(_checked({"Grantee": grantee, "Permission": permission}))
    return grants


def _of_body(bucket: Document, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    grants = body.get("Grants")
    owner = (body.get("Owner") or {}).get("ID")
    if owner is None or grants is None or len(grants) > MAX_GRANTS:
        raise ServiceError("MalformedACLError", malformed().message)
    if owner != state.owner_of(bucket.parent)["ID"]:
        raise ServiceError("AccessDenied", "Access Denied", 403)
    for grant in grants:
        if grant.get("Permission") not in PERMISSIONS or not (grant.get("Grantee") or {}).get("Type"):
            raise ServiceError("MalformedACLError", malformed().message)
        grant["Grantee"].pop("DisplayName", None)
    return [_checked(grant) for grant in grants]


def _checked(grant: dict[str, Any]) -> dict[str, Any]:
    """A grant to somebody who can be. Differs: an account is not known by an e-mail address."""
    grantee = grant["Grantee"]
    if grantee.get("EmailAddress"):
        sentence = "The e-mail address you provided does not match any account on record."
        raise ServiceError("UnresolvableGrantByEmailAddress", sentence)
    if "URI" in grantee and grantee["URI"] not in (ALL, AUTHENTICATED, LOGGERS):
        raise invalid("Invalid group uri", ArgumentName="uri", ArgumentValue=grantee["URI"])
    if grantee.get("Type") == "CanonicalUser" and not re.fullmatch(r"[0-9a-f]{64}", grantee.get("ID") or ""):
        raise invalid("Invalid id", ArgumentName="CanonicalUser/ID", ArgumentValue=grantee.get("ID") or "")
    return grant


# --- operations --------------------------------------------------------------------------------------------------------


def _shown(bucket: Document, grants: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {"Owner": state.owner_of(bucket.parent), "Grants": grants or owners(bucket)}


def get_bucket_acl(call: Call) -> dict[str, Any]:
    """Shows the bucket's grants."""
    bucket = state.bucket_of(call)
    return _shown(bucket, bucket.body.get("_acl"))


def put_bucket_acl(call: Call) -> None:
    """Sets the bucket's grants.

    Raises: ServiceError AccessControlListNotSupported, where the bucket's ownership (as it is by default) has no ACLs.
    Differs: grants are kept and shown; another account gets nothing by them.
    """
    bucket = state.bucket_of(call)
    _need_something(call)
    bucket.body["_acl"] = asked(call, bucket)
    call.put(bucket)


def get_object_acl(call: Call) -> dict[str, Any]:
    """Shows the object's grants."""
    bucket = state.bucket_of(call)
    return _shown(bucket, state.find_row(call, bucket).meta.get("_acl"))


def put_object_acl(call: Call) -> None:
    """Sets the object's grants. Raises: ServiceError AccessControlListNotSupported."""
    bucket = state.writable_bucket(call)
    row = state.find_row(call, bucket)
    _need_something(call)
    meta = {name: value for name, value in row.meta.items() if name != "_acl"}
    if grants := asked(call, bucket):
        meta["_acl"] = grants
    call.row(state.said_anew(row, meta))
    notices.notice(call, bucket, "ObjectAcl:Put", row, "PutObjectAcl")


def _need_something(call: Call) -> None:
    names = ("ACL", "AccessControlPolicy", *HEADERS)
    if all(call.params.get(name) is None for name in names):
        sentence = "Your request was missing a required header"
        raise ServiceError("MissingSecurityHeader", sentence, 400, MissingHeaderName="x-amz-acl")
