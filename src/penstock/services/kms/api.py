"""Operations on keys: their life, policies, tags and rotation."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from penstock.kernel import jsontext, pages, tags
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.kms import rules
from penstock.services.kms.state import KEY, PAGES, alive, invalid, key_of, usable
from penstock.store.records import Document, TagsGone, TagsPut

DAY_S = 86_400.0
WAITING_DAYS = (7, 30)
SYMMETRIC = "SYMMETRIC_DEFAULT"
POLICY_BYTES = 32_768


# --- life
def create_key(call: Call) -> dict[str, Any]:
    """Makes a symmetric key.

    Raises: ServiceError with 501 for the kinds of keys that are not served.
    Differs: there are no asymmetric keys, HMAC keys, custom key stores, imported material and replicas.
    """
    given = call.params
    spec = given.get("KeySpec", given.get("CustomerMasterKeySpec", SYMMETRIC))
    if spec != SYMMETRIC or given.get("Origin", "AWS_KMS") != "AWS_KMS" or given.get("MultiRegion"):
        raise ServiceError("NotImplemented", f"Penstock does not serve kms:CreateKey of this kind ({spec}) (yet).", 501)
    usage = given.get("KeyUsage", "ENCRYPT_DECRYPT")
    if usage != "ENCRYPT_DECRYPT":
        raise invalid(f"The operation failed because the KeyUsage value of {usage} is not compatible with {spec}.")
    parsed = _tags(given.get("Tags", []))
    body = {
        "AWSAccountId": call.account,
        "Enabled": True,
        "Description": given.get("Description", ""),
        "KeyUsage": usage,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "KeySpec": spec,
        "CustomerMasterKeySpec": spec,
        "EncryptionAlgorithms": [spec],
        "MultiRegion": False,
        "_policy": _policy(given["Policy"]) if given.get("Policy") else _default_policy(call.account),
        "_material": base64.b64encode(rules.make_material()).decode(),
    }
    # the tags are KMS's own: TagKey, TagValue
    made = KEY.create(_untagged(call), str(uuid.uuid4()), body=body, status="Enabled")
    if parsed:
        call.row(TagsPut(arn=made.arn, tags=parsed))
    return {"KeyMetadata": KEY.describe(made)}


def _untagged(call: Call) -> Call:
    call.params = {name: value for name, value in call.params.items() if name != "Tags"}
    return call


def describe_key(call: Call) -> dict[str, Any]:
    return {"KeyMetadata": KEY.describe(key_of(call, aliases=True))}


def list_keys(call: Call) -> dict[str, Any]:
    return KEY.page(
        call, "Keys", order="name", descending=False, show=lambda key: {"KeyId": key.name, "KeyArn": key.arn}
    )


def enable_key(call: Call) -> None:
    KEY.move(call, alive(key_of(call)), "Enabled", Enabled=True)


def disable_key(call: Call) -> None:
    KEY.move(call, alive(key_of(call)), "Disabled", Enabled=False)


def schedule_key_deletion(call: Call) -> dict[str, Any]:
    """Has the key deleted after the days that its owner waits, and with it all that only it can decrypt."""
    key, days = alive(key_of(call)), call.params.get("PendingWindowInDays", WAITING_DAYS[1])
    if not WAITING_DAYS[0] <= days <= WAITING_DAYS[1]:
        raise invalid(f"PendingWindowInDays must be between {WAITING_DAYS[0]} and {WAITING_DAYS[1]}.")
    date = call.now + days * DAY_S
    KEY.move(call, key, "PendingDeletion", Enabled=False, DeletionDate=date)
    call.wake(key.ref, date)
    return {"KeyId": key.arn, "DeletionDate": date, "KeyState": "PendingDeletion", "PendingWindowInDays": days}


def cancel_key_deletion(call: Call) -> dict[str, Any]:
    """Lets the key live; it is disabled until somebody enables it."""
    key = key_of(call)
    if key.status != "PendingDeletion":
        raise ServiceError("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
    KEY.move(call, key, "Disabled", Enabled=False, DeletionDate=None)
    return {"KeyId": key.arn}


def update_key_description(call: Call) -> None:
    KEY.save(call, alive(key_of(call)), Description=call.params["Description"])


# --- policies
def get_key_policy(call: Call) -> dict[str, Any]:
    key = key_of(call)
    _check_name(call)
    return {"Policy": key.body["_policy"], "PolicyName": "default"}


def put_key_policy(call: Call) -> None:
    """Keeps a policy.

    Differs: policies are not enforced, so one that locks its owner out is taken.
    """
    key = alive(key_of(call))
    _check_name(call)
    KEY.save(call, key, _policy=_policy(call.params["Policy"]))


def list_key_policies(call: Call) -> dict[str, Any]:
    key_of(call)
    return pages.cut(call, "PolicyNames", ["default"], lambda name: name, paging=PAGES)


def _check_name(call: Call) -> None:
    if call.params.get("PolicyName", "default") != "default":
        raise ServiceError("NotFoundException", "No such policy exists")


def _policy(text: str) -> str:
    if len(text.encode()) > POLICY_BYTES:
        raise ServiceError("LimitExceededException", "The policy is too long.")
    try:
        document = jsontext.read(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ServiceError("MalformedPolicyDocumentException", "The new key policy is no valid JSON.")
    return text


def _default_policy(account: str) -> str:
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]})


# --- tags
def tag_resource(call: Call) -> None:
    key = alive(key_of(call))
    given = _tags(call.params["Tags"])
    tags.check_count({**call.app.store.tags(key.arn), **given}, "LimitExceededException")
    call.row(TagsPut(arn=key.arn, tags=given))


def untag_resource(call: Call) -> None:
    call.row(TagsGone(arn=alive(key_of(call)).arn, keys=call.params["TagKeys"]))


def list_resource_tags(call: Call) -> dict[str, Any]:
    listed = sorted(call.app.store.tags(key_of(call).arn).items())
    return pages.cut(
        call, "Tags", listed, lambda one: one[0], paging=PAGES, show=lambda one: {"TagKey": one[0], "TagValue": one[1]}
    )


def _tags(given: list[dict[str, str]]) -> dict[str, str]:
    return tags.parse([{"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in given], "TagException")


# --- rotation
def enable_key_rotation(call: Call) -> None:
    """Notes that the key is to be rotated.

    Differs: it is not: one material serves a key for its life.
    """
    KEY.save(call, usable(key_of(call)), _rotation=call.params.get("RotationPeriodInDays", 365))


def disable_key_rotation(call: Call) -> None:
    KEY.save(call, usable(key_of(call)), _rotation=None)


def get_key_rotation_status(call: Call) -> dict[str, Any]:
    key = alive(key_of(call))
    days = key.body.get("_rotation")
    answer: dict[str, Any] = {"KeyId": key.name, "KeyRotationEnabled": days is not None}
    return answer | ({"RotationPeriodInDays": days, "NextRotationDate": _next(call, key, days)} if days else {})


def _next(call: Call, key: Document, days: int) -> float:
    lived = int((call.now - key.created) // (days * DAY_S))
    return key.created + (lived + 1) * days * DAY_S
