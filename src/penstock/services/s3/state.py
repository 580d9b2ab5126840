"""The nouns of S3: buckets, objects (rows), multipart uploads; and who owns them."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from penstock.kernel.buckets import KIND as BUCKET
from penstock.kernel.buckets import new_version_id, open_bucket, ref_of, use_bucket, versioning
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules
from penstock.store.records import GLOBAL, Document, ObjectMeta, ObjectRow, Ref, Seen

UPLOAD = "s3.upload"
"""A multipart upload: its bucket as `parent`, its key as `label`; its parts are rows."""
COLLECTOR = Ref("s3.collector", GLOBAL, GLOBAL, "collector")
"""The one document whose engine step gives blobs and forgotten uploads back."""

SHOWN = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires", "Metadata",
    "StorageClass", "WebsiteRedirectLocation", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled",
)  # fmt: skip
"""The members of a put that HeadObject shows again."""
REFUSED = {
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
    "SSECustomerKey": "x-amz-server-side-encryption-customer-key",
    "CopySourceSSECustomerAlgorithm": "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "CopySourceSSECustomerKey": "x-amz-copy-source-server-side-encryption-customer-key",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
    "WriteOffsetBytes": "x-amz-write-offset-bytes",
}
"""The members that promise something which is not there, and their headers."""
UNIMPLEMENTED = "A header you provided implies functionality that is not implemented"

__all__ = ["BUCKET", "COLLECTOR", "UPLOAD", "bucket_of", "new_version_id", "open_bucket", "ref_of", "versioning"]


def bucket_of(call: Call) -> Document:
    """The bucket that the call names, for reading. Raises: ServiceError NoSuchBucket, AccessDenied, NotImplemented."""
    refuse_promises(call)
    return open_bucket(call, call.params["Bucket"], call.params.get("ExpectedBucketOwner"))


def writable_bucket(call: Call) -> Document:
    """The bucket that the call names, for writing. Raises: ServiceError NoSuchBucket, AccessDenied, NotImplemented."""
    refuse_promises(call)
    return use_bucket(call, call.params["Bucket"], call.params.get("ExpectedBucketOwner"))


def refuse_promises(call: Call) -> None:
    """Raises: ServiceError NotImplemented for SSE-C, Object Lock and appending, by the header that asks for it."""
    params = call.params
    for member, header in REFUSED.items():
        if member in params and params[member] is not None:
            raise ServiceError("NotImplemented", UNIMPLEMENTED, 501, Header=header)


def find_row(call: Call, bucket: Document) -> ObjectRow:
    """The version that a call means by its Key and VersionId.

    Raises: ServiceError NoSuchKey, NoSuchVersion; MethodNotAllowed for a delete marker named by its id.
    """
    return row_of(call, bucket, call.params["Key"], call.params.get("VersionId"))


def row_of(call: Call, bucket: Document, key: str, version_id: str | None) -> ObjectRow:
    """One version of a key, or the latest.

    Raises: ServiceError NoSuchKey, NoSuchVersion; MethodNotAllowed for a delete marker named by its id.
    """
    row = call.app.store.object(bucket.name, key, version_id)
    if row is None and version_id is not None:
        rules.check_version_id(version_id)
        known = {"Key": key, "VersionId": version_id}
        raise ServiceError("NoSuchVersion", "The specified version does not exist.", 404, **known)
    if row is None:
        raise no_such_key(key)
    if row.marker:
        told = {"x-amz-delete-marker": "true"} | ({"x-amz-version-id": row.version_id} if versioning(bucket) else {})
        if version_id is None:
            raise no_such_key(key, _headers=told)
        sentence = "The specified method is not allowed against this resource."
        method = next((word for word in ("Put", "Delete") if call.operation.startswith(word)), "Get").upper()
        known = {"Method": method, "ResourceType": "DeleteMarker"}
        raise ServiceError("MethodNotAllowed", sentence, 405, **known, _headers=told | {"allow": "DELETE"})
    return row


def said_anew(row: ObjectRow, meta: dict[str, Any]) -> ObjectMeta:
    """What sets the meta of a version in its place, while nobody else has."""
    return ObjectMeta(bucket=row.bucket, key=row.key, seen=Seen.of(row), meta=meta)


def owner_of(account: str) -> dict[str, str]:
    """An account as S3 shows it: by a canonical id."""
    return {"ID": hashlib.sha256(f"penstock canonical user {account}".encode()).hexdigest()}


def seconds(moment: float) -> float:
    """A moment as S3 tells it everywhere: in whole seconds."""
    return float(math.floor(moment))


def meta_of(params: dict[str, Any]) -> dict[str, Any]:
    """What a put says about its object."""
    meta = {member: params[member] for member in SHOWN if params.get(member) not in (None, {})}
    if "aws-chunked" in meta.get("ContentEncoding", ""):  # a word between client and server
        left = [word.strip() for word in meta.pop("ContentEncoding").split(",")]
        if left := [word for word in left if word != "aws-chunked"]:
            meta["ContentEncoding"] = ",".join(left)
    if "Metadata" in meta:
        meta["Metadata"] = rules.read_metadata(meta["Metadata"])
    meta.setdefault("ContentType", "binary/octet-stream")
    if meta.get("StorageClass") == "STANDARD":
        del meta["StorageClass"]
    return meta


def shown_version(bucket: Document, row: ObjectRow) -> dict[str, Any]:
    """The VersionId member, where the bucket has (had) versions."""
    return {"VersionId": row.version_id} if versioning(bucket) else {}


def made_version(bucket: Document, row: ObjectRow) -> dict[str, Any]:
    """The VersionId member of a write's answer: S3 tells it where versions are made, not where they are suspended."""
    return {"VersionId": row.version_id} if versioning(bucket) == "Enabled" else {}


def upload_ref(upload_id: str) -> Ref:
    """Names the document of an upload."""
    return Ref(UPLOAD, GLOBAL, GLOBAL, upload_id)


def no_such_key(key: str, **members: Any) -> ServiceError:
    """The answer for a key that is not there."""
    return ServiceError("NoSuchKey", "The specified key does not exist.", 404, Key=key, **members)


def no_such_upload(upload_id: str) -> ServiceError:
    """The answer for an upload that is not there (any more)."""
    sentence = (
        "The specified upload does not exist. The upload ID may be invalid, "
        "or the upload may have been aborted or completed."
    )
    return ServiceError("NoSuchUpload", sentence, 404, UploadId=upload_id)
