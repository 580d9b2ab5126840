"""What a bucket keeps and shows, one mechanism for all: the value of one Put's member in the bucket's document.

Of these, versioning, CORS, notifications, default encryption, object ownership, the public-access block (for what is put)
and the lifecycle's AbortIncompleteMultipartUpload are acted upon.

Differs: policies, ACLs, lifecycles (but for AbortIncompleteMultipartUpload), websites, logging, replication, acceleration,
    request payment, analytics, inventory, metrics and tiering configurations are checked, kept and shown, not acted upon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import checks, policies, state
from penstock.store.records import Document


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a bucket: `put`, `get` and `delete` are its operations.

    Takes:
        member: Put's member that holds the value.
        missing: (code, sentence) where there is none; None: an empty answer.
        flat: Get answers the value's members instead of the value under `member`.
        default: what a bucket has before anybody puts or deletes it.
        check: gives what is kept of a value, or raises what S3 says of it.
        status: of Put's answer.
    """

    member: str
    missing: tuple[str, str] | None = None
    flat: bool = False
    default: Any = field(default_factory=dict)
    check: checks.Check | None = None
    status: int = 200

    def put(self, call: Call) -> dict[str, Any]:
        """Keeps the setting.

        Raises: ServiceError (MalformedXML) where there is none: the model does not demand all of them.
        """
        bucket = state.bucket_of(call)
        value = call.params.get(self.member)
        if value is None:
            raise checks.malformed()
        if self.check is not None:
            value = self.check(call, bucket, value)
        bucket.body.setdefault("_settings", {})[self.member] = value
        call.put(bucket)
        return {"_status": self.status}

    def get(self, call: Call) -> dict[str, Any]:
        """Shows the setting. Raises: ServiceError `missing`."""
        bucket = state.bucket_of(call)
        value = self.value(bucket)
        if value is None or (not value and self.missing):
            if self.missing is None:
                return {}
            raise ServiceError(*self.missing, 404, BucketName=bucket.name)
        return dict(value) if self.flat else {self.member: value}

    def delete(self, call: Call) -> None:
        """Takes the setting away; one that is not there is no error."""
        bucket = state.bucket_of(call)
        bucket.body.setdefault("_settings", {})[self.member] = None
        call.put(bucket)

    def reset(self, call: Call) -> None:
        """Sets the setting back to what a new bucket has."""
        bucket = state.bucket_of(call)
        bucket.body.setdefault("_settings", {}).pop(self.member, None)
        call.put(bucket)

    def value(self, bucket: Document) -> Any:
        """The value that the bucket has."""
        return bucket.body.get("_settings", {}).get(self.member, self.default)


_AES256 = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}
_CLOSED = dict.fromkeys(policies.BLOCKS, True)
_ENFORCED = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


def _blocks(call: Call, bucket: Document, value: dict[str, Any]) -> dict[str, Any]:
    return {name: bool(value.get(name)) for name in policies.BLOCKS}


POLICY = Setting(
    "Policy", ("NoSuchBucketPolicy", "The bucket policy does not exist"), default="", check=policies.check_policy, status=204
)
CORS = Setting(
    "CORSConfiguration", ("NoSuchCORSConfiguration", "The CORS configuration does not exist"), flat=True,
    check=checks.cors,
)  # fmt: skip
ENCRYPTION = Setting(
    "ServerSideEncryptionConfiguration",
    ("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found"),
    default=_AES256, check=checks.encryption,
)  # fmt: skip
PUBLIC_ACCESS = Setting(
    "PublicAccessBlockConfiguration",
    ("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"), default=_CLOSED,
    check=_blocks,
)  # fmt: skip
LIFECYCLE = Setting(
    "LifecycleConfiguration", ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"), flat=True,
    check=checks.lifecycle,
)  # fmt: skip
OWNERSHIP = Setting(
    "OwnershipControls", ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
    default=_ENFORCED, check=checks.ownership,
)  # fmt: skip
WEBSITE = Setting(
    "WebsiteConfiguration",
    ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"), flat=True,
    check=checks.website,
)  # fmt: skip
REPLICATION = Setting(
    "ReplicationConfiguration",
    ("ReplicationConfigurationNotFoundError", "The replication configuration was not found"), check=checks.replication,
)  # fmt: skip
TAGGING = Setting("Tagging", ("NoSuchTagSet", "The TagSet does not exist"), flat=True, check=checks.tagging, status=204)
VERSIONING = Setting("VersioningConfiguration", flat=True, check=checks.versioning)
NOTIFICATION = Setting("NotificationConfiguration", flat=True, check=checks.notification)
LOGGING = Setting("BucketLoggingStatus", flat=True, check=checks.logging)
ACCELERATE = Setting("AccelerateConfiguration", flat=True, check=checks.acceleration)
REQUEST_PAYMENT = Setting(
    "RequestPaymentConfiguration", flat=True, default={"Payer": "BucketOwner"}, check=checks.payment
)

put_bucket_policy, get_bucket_policy, delete_bucket_policy = POLICY.put, POLICY.get, POLICY.delete
put_bucket_cors, get_bucket_cors, delete_bucket_cors = CORS.put, CORS.get, CORS.delete
put_bucket_encryption, get_bucket_encryption = ENCRYPTION.put, ENCRYPTION.get
delete_bucket_encryption = ENCRYPTION.reset
put_public_access_block, get_public_access_block = PUBLIC_ACCESS.put, PUBLIC_ACCESS.get
delete_public_access_block = PUBLIC_ACCESS.delete
put_bucket_lifecycle_configuration, get_bucket_lifecycle_configuration = LIFECYCLE.put, LIFECYCLE.get
delete_bucket_lifecycle = LIFECYCLE.delete
put_bucket_ownership_controls, get_bucket_ownership_controls = OWNERSHIP.put, OWNERSHIP.get
delete_bucket_ownership_controls = OWNERSHIP.delete
put_bucket_website, get_bucket_website, delete_bucket_website = WEBSITE.put, WEBSITE.get, WEBSITE.delete
put_bucket_replication, get_bucket_replication = REPLICATION.put, REPLICATION.get
delete_bucket_replication = REPLICATION.delete
put_bucket_tagging, get_bucket_tagging, delete_bucket_tagging = TAGGING.put, TAGGING.get, TAGGING.delete
put_bucket_versioning, get_bucket_versioning = VERSIONING.put, VERSIONING.get
put_bucket_notification_configuration = NOTIFICATION.put
get_bucket_notification_configuration = NOTIFICATION.get
put_bucket_logging, get_bucket_logging = LOGGING.put, LOGGING.get
put_bucket_accelerate_configuration, get_bucket_accelerate_configuration = ACCELERATE.put, ACCELERATE.get
put_bucket_request_payment, get_bucket_request_payment = REQUEST_PAYMENT.put, REQUEST_PAYMENT.get


def get_bucket_policy_status(call: Call) -> dict[str, Any]:
    """Tells whether the bucket's policy allows something to everybody."""
    text = POLICY.get(call)["Policy"]
    public = any(policies.is_public(statement) for statement in policies.read_statements(text))
    return {"PolicyStatus": {"IsPublic": public}}
