"""The nouns of KMS, how a request names a key, and the sentences of its errors."""

from __future__ import annotations

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.kernel.pages import Paging
from penstock.kernel.resource import Resource
from penstock.store.records import Document

PAGES = Paging(
    sizes=("Limit",), following="NextMarker", asked="Marker", more="Truncated", default=100,
    code="InvalidMarkerException",
)  # fmt: skip

KEY = Resource(
    "kms.key",
    key="KeyId",
    path="key/{name}",
    arn="Arn",
    status="KeyState",
    moves={
        "Enabled": {"Disabled", "PendingDeletion"},
        "Disabled": {"Enabled", "PendingDeletion"},
        "PendingDeletion": {"Disabled"},
    },
    missing=("NotFoundException", "Key '{arn}' does not exist"),
    created="CreationDate",
    updated="",
    paging=PAGES,
)
ALIAS = Resource(
    "kms.alias",
    key="AliasName",
    path="{name}",
    arn="AliasArn",
    missing=("NotFoundException", "Alias {arn} is not found."),
    exists=("AlreadyExistsException", "An alias with the name {arn} already exists"),
    created="CreationDate",
    updated="LastUpdatedDate",
    paging=PAGES,
)
GRANT = Resource(
    "kms.grant",
    key="GrantId",
    path="grant/{name}",
    arn="_arn",
    missing=("NotFoundException", "Grant ID {name} not found"),
    created="CreationDate",
    updated="",
    paging=PAGES,
)


def key_of(call: Call, named: str | None = None, aliases: bool = False) -> Document:
    """The key that a request names: by id or ARN, and where `aliases` are taken by one of those or its ARN.

    Raises: ServiceError NotFoundException.
    """
    given = str(call.params["KeyId"] if named is None else named)
    start = f"arn:aws:kms:{call.region}:{call.account}:"
    bare = given.removeprefix(start)
    if bare.startswith("alias/") and aliases:
        return KEY.get(call, ALIAS.get(call, bare).body["TargetKeyId"])
    if given.startswith("arn:") and bare == given:
        raise ServiceError("NotFoundException", f"Invalid arn {given.split(':')[3] if given.count(':') > 3 else given}")
    if bare.startswith("alias/"):
        raise ServiceError("NotFoundException", f"Invalid keyId '{given}'")
    return KEY.get(call, bare.removeprefix("key/"))


def usable(key: Document) -> Document:
    """The key, if it serves now.

    Raises: ServiceError DisabledException, KMSInvalidStateException.
    """
    if key.status == "Disabled":
        raise ServiceError("DisabledException", f"{key.arn} is disabled.")
    return alive(key)


def alive(key: Document) -> Document:
    """The key, if it does not wait for its deletion.

    Raises: ServiceError KMSInvalidStateException.
    """
    if key.status == "PendingDeletion":
        raise ServiceError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    return key


def invalid(sentence: str) -> ServiceError:
    return ServiceError("ValidationException", sentence)
