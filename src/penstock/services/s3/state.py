"""The nouns of S3: buckets, objects (rows), multipart uploads; and who owns them."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from penstock.kernel.buckets import KIND as BUCKET
from penstock.kernel.buckets import new_version_id, open_bucket, ref_of, use_bucket, versioning
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Document, ObjectRow, Ref

UPLOAD = "s3.upload"
"""A multipart upload: its bucket as `parent`, its key as `label`; its parts are rows."""
COLLECTOR = Ref("s3.collector", GLOBAL, GLOBAL, "collector")
"""The one document whose engine step gives blobs and forgotten uploads back."""

SHOWN = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires", "Metadata",
    "StorageClass", "WebsiteRedirectLocation", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled",
)  # fmt: skip
"""The members of a put that HeadObject shows again."""
REFUSED = (
    "SSECustomerAlgorithm", "SSECustomerKey", "CopySourceSSECustomerKey", "ObjectLockMode", "ObjectLockRetainUntilDate",
    "ObjectLockLegalHoldStatus", "ObjectLockEventHold", "WriteOffsetBytes",
)  # fmt: skip
"""The members that promise something which is not there."""

__all__ = ["BUCKET", "COLLECTOR", "UPLOAD", "bucket_of", "new_version_id", "open_bucket", "ref_of", "versioning"]


def bucket_of(call: Call) -> Document:
    """The bucket that the call names, for reading. Raises: ServiceError NoSuchBucket, AccessDenied."""
    return open_bucket(call, call.params["Bucket"], call.params.get("ExpectedBucketOwner"))


def writable_bucket(call: Call) -> Document:
    """The bucket that the call names, for writing. Raises: ServiceError NoSuchBucket, AccessDenied, NotImplemented."""
    for member in REFUSED:
        if call.params.get(member) is not None:
            sentence = "A header you provided implies functionality that is not implemented"
            raise ServiceError("NotImplemented", sentence, 501, Header=member)
    return use_bucket(call, call.params["Bucket"], call.params.get("ExpectedBucketOwner"))


def owner_of(account: str) -> dict[str, str]:
    """An account as S3 shows it: by a canonical id."""
    return {"ID": hashlib.sha256(f"penstock canonical user {account}".encode()).hexdigest()}


def seconds(moment: float) -> float:
    """A moment as S3 tells it everywhere: in whole seconds."""
    return float(math.floor(moment))


def meta_of(params: dict[str, Any]) -> dict[str, Any]:
    """What a put says about its object."""
    meta = {member: params[member] for member in SHOWN if params.get(member) not in (None, {})}
    meta.setdefault("ContentType", "binary/octet-stream")
    if meta.get("StorageClass") == "STANDARD":
        del meta["StorageClass"]
    return meta


def shown_version(bucket: Document, row: ObjectRow) -> dict[str, Any]:
    """The VersionId member, where the bucket has (had) versions."""
    return {"VersionId": row.version_id} if versioning(bucket) else {}


def upload_ref(upload_id: str) -> Ref:
    """Names the document of an upload."""
    return Ref(UPLOAD, GLOBAL, GLOBAL, upload_id)


def no_such_key(key: str) -> ServiceError:
    """The answer for a key that is not there."""
    return ServiceError("NoSuchKey", "The specified key does not exist.", 404, Key=key)


def no_such_upload(upload_id: str) -> ServiceError:
    """The answer for an upload that is not there (any more)."""
    sentence = (
        "The specified upload does not exist. The upload ID may be invalid, "
        "or the upload may have been aborted or completed."
    )
    return ServiceError("NoSuchUpload", sentence, 404, UploadId=upload_id)
