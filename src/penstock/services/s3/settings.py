"""What a bucket keeps and shows, one mechanism for all: the value of one Put's member in the bucket's document.

Of these only versioning and the lifecycle's AbortIncompleteMultipartUpload are acted upon.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules, state
from penstock.services.s3.objects import check_acl, find_row
from penstock.store.records import Document


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a bucket: `put`, `get` and `delete` are its operations.

    Takes:
        member: Put's member that holds the value.
        missing: (code, sentence, status) where there is none; None: an empty answer.
        flat: Get answers the value's members instead of the value under `member`.
        default: what a bucket has before anybody puts or deletes it.
    """

    member: str
    missing: tuple[str, str, int] | None = None
    flat: bool = False
    default: dict[str, Any] = field(default_factory=dict)

    def put(self, call: Call) -> None:
        """Keeps the setting."""
        bucket = state.bucket_of(call)
        bucket.body.setdefault("_settings", {})[self.member] = call.params[self.member]
        call.put(bucket)

    def get(self, call: Call) -> dict[str, Any]:
        """Shows the setting. Raises: ServiceError `missing`."""
        bucket = state.bucket_of(call)
        value = self.value(bucket)
        if value is None or (not value and self.missing):
            if self.missing is None:
                return {}
            code, sentence, status = self.missing
            raise ServiceError(code, sentence, status, BucketName=bucket.name)
        return dict(value) if self.flat else {self.member: value}

    def delete(self, call: Call) -> None:
        """Takes the setting away; one that is not there is no error."""
        bucket = state.bucket_of(call)
        bucket.body.setdefault("_settings", {})[self.member] = None
        call.put(bucket)

    def value(self, bucket: Document) -> Any:
        """The value that the bucket has."""
        return bucket.body.get("_settings", {}).get(self.member, self.default)


def _missing(code: str, sentence: str, status: int = 404) -> tuple[str, str, int]:
    return code, sentence, status


_AES256 = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}
_CLOSED = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
_ENFORCED = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}

POLICY = Setting("Policy", _missing("NoSuchBucketPolicy", "The bucket policy does not exist"))
CORS = Setting(
    "CORSConfiguration", _missing("NoSuchCORSConfiguration", "The CORS configuration does not exist"), flat=True
)
ENCRYPTION = Setting(
    "ServerSideEncryptionConfiguration",
    _missing(
        "ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found"
    ),
    default=_AES256,
)
PUBLIC_ACCESS = Setting(
    "PublicAccessBlockConfiguration",
    _missing("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"),
    default=_CLOSED,
)
LIFECYCLE = Setting(
    "LifecycleConfiguration",
    _missing("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    flat=True,
)
OWNERSHIP = Setting(
    "OwnershipControls",
    _missing("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
    default=_ENFORCED,
)
WEBSITE = Setting(
    "WebsiteConfiguration",
    _missing("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
    flat=True,
)
REPLICATION = Setting(
    "ReplicationConfiguration",
    _missing("ReplicationConfigurationNotFoundError", "The replication configuration was not found"),
)
TAGGING = Setting("Tagging", _missing("NoSuchTagSet", "The TagSet does not exist"), flat=True)
VERSIONING = Setting("VersioningConfiguration", flat=True)
NOTIFICATION = Setting("NotificationConfiguration", flat=True)
LOGGING = Setting("BucketLoggingStatus", flat=True)
ACCELERATE = Setting("AccelerateConfiguration", flat=True)
REQUEST_PAYMENT = Setting("RequestPaymentConfiguration", flat=True, default={"Payer": "BucketOwner"})

# Differs: settings of buckets are kept and shown, not acted upon, but for versioning and what the package's docstring names.
get_bucket_policy, delete_bucket_policy = POLICY.get, POLICY.delete
put_bucket_cors, get_bucket_cors, delete_bucket_cors = CORS.put, CORS.get, CORS.delete
put_bucket_encryption, get_bucket_encryption = ENCRYPTION.put, ENCRYPTION.get
put_public_access_block, get_public_access_block = PUBLIC_ACCESS.put, PUBLIC_ACCESS.get
delete_public_access_block = PUBLIC_ACCESS.delete
put_bucket_lifecycle_configuration, get_bucket_lifecycle_configuration = LIFECYCLE.put, LIFECYCLE.get
delete_bucket_lifecycle = LIFECYCLE.delete
put_bucket_ownership_controls, get_bucket_ownership_controls = OWNERSHIP.put, OWNERSHIP.get
delete_bucket_ownership_controls = OWNERSHIP.delete
put_bucket_website, get_bucket_website, delete_bucket_website = WEBSITE.put, WEBSITE.get, WEBSITE.delete
put_bucket_replication, get_bucket_replication = REPLICATION.put, REPLICATION.get
delete_bucket_replication = REPLICATION.delete
get_bucket_tagging, delete_bucket_tagging = TAGGING.get, TAGGING.delete
put_bucket_versioning, get_bucket_versioning = VERSIONING.put, VERSIONING.get
put_bucket_notification_configuration = NOTIFICATION.put
get_bucket_notification_configuration = NOTIFICATION.get
put_bucket_logging, get_bucket_logging = LOGGING.put, LOGGING.get
put_bucket_accelerate_configuration, get_bucket_accelerate_configuration = ACCELERATE.put, ACCELERATE.get
put_bucket_request_payment, get_bucket_request_payment = REQUEST_PAYMENT.put, REQUEST_PAYMENT.get


def put_bucket_policy(call: Call) -> None:
    """Keeps a bucket's policy, if it is JSON.

    Raises: ServiceError MalformedPolicy.
    Differs: a policy is kept, not enforced.
    """
    try:
        known = isinstance(json.loads(call.params["Policy"]), dict)
    except ValueError:
        known = False
    if not known:
        raise ServiceError("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'")
    POLICY.put(call)


def get_bucket_policy_status(call: Call) -> dict[str, Any]:
    """Tells whether the bucket is public: never, since no policy opens it."""
    POLICY.get(call)
    return {"PolicyStatus": {"IsPublic": False}}


def put_bucket_tagging(call: Call) -> None:
    """Sets the bucket's tags in place of those it had. Raises: ServiceError InvalidTag, BadRequest."""
    rules.tags_of(call.params["Tagging"]["TagSet"], 50)
    TAGGING.put(call)


def delete_bucket_encryption(call: Call) -> None:
    """Sets the encryption back to S3's own: no bucket is without."""
    bucket = state.bucket_of(call)
    bucket.body.setdefault("_settings", {}).pop(ENCRYPTION.member, None)
    call.put(bucket)


# --- access control lists


def _acl(account: str) -> dict[str, Any]:
    owner = state.owner_of(account)
    return {"Owner": owner, "Grants": [{"Grantee": {"Type": "CanonicalUser", **owner}, "Permission": "FULL_CONTROL"}]}


def get_bucket_acl(call: Call) -> dict[str, Any]:
    """Shows the owner's full control, all there is under BucketOwnerEnforced."""
    return _acl(state.bucket_of(call).parent)


def get_object_acl(call: Call) -> dict[str, Any]:
    """Shows the owner's full control, all there is under BucketOwnerEnforced."""
    bucket = state.bucket_of(call)
    find_row(call, bucket, call.params["Key"], call.params.get("VersionId"))
    return _acl(bucket.parent)


def put_bucket_acl(call: Call) -> None:
    """Takes what gives the owner alone full control. Raises: ServiceError AccessControlListNotSupported."""
    _check_acl(call, state.bucket_of(call))


def put_object_acl(call: Call) -> None:
    """Takes what gives the owner alone full control. Raises: ServiceError AccessControlListNotSupported."""
    bucket = state.bucket_of(call)
    find_row(call, bucket, call.params["Key"], call.params.get("VersionId"))
    _check_acl(call, bucket)


def _check_acl(call: Call, bucket: Document) -> None:
    check_acl(call.params)
    given = call.params.get("AccessControlPolicy") or {}
    owner = state.owner_of(bucket.parent)["ID"]
    if any(grant.get("Grantee", {}).get("ID") != owner for grant in given.get("Grants") or []):
        raise ServiceError("AccessControlListNotSupported", "The bucket does not allow ACLs")
