"""Buckets as every service needs them: by name, across regions, and whose they are."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from penstock.kernel import ids
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Document, Ref

KIND = "s3.bucket"
"""A bucket's document: global, its owner's account as `parent`, its region in the body."""


def ref_of(name: str) -> Ref:
    """Names a bucket's document: bucket names are global."""
    return Ref(KIND, GLOBAL, GLOBAL, name)


def open_bucket(call: Call, name: str, expected_owner: str | None = None) -> Document:
    """Finds a bucket that the call may use.

    Raises: ServiceError NoSuchBucket; AccessDenied for another account's bucket, or not the expected owner's.
    Differs: bucket policies and ACLs are kept, not enforced: another account is always refused.
    """
    bucket = call.find(ref_of(name))
    if bucket is None:
        raise ServiceError("NoSuchBucket", "The specified bucket does not exist", 404, BucketName=name)
    if bucket.parent != call.account or (expected_owner and expected_owner != bucket.parent):
        raise ServiceError("AccessDenied", "Access Denied", 403)
    return bucket


def use_bucket(call: Call, name: str, expected_owner: str | None = None) -> Document:
    """Finds a bucket that the call is about to write into: it must still be there when the change is committed."""
    bucket = open_bucket(call, name, expected_owner)
    if bucket.version:
        call.change.reads.append(bucket)
    return bucket


def versioning(bucket: Document) -> str:
    """Whether puts make versions: "Enabled", "Suspended", or "" for a bucket that never had any."""
    settings = bucket.body.get("_settings") or {}
    status: str = (settings.get("VersioningConfiguration") or {}).get("Status") or ""
    return status


def new_version_id(bucket: Document) -> str:
    """The version id of the next put: all puts without versions share one."""
    return ids.word(32, ids.MIXED) if versioning(bucket) == "Enabled" else "null"


def parse_uri(uri: str) -> tuple[str, str]:
    """Splits `s3://bucket/key` into bucket and key (or prefix, or nothing).

    Raises: ServiceError (ValidationException) for anything else.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ServiceError("ValidationException", f"{uri!r} is no S3 URI (s3://bucket/key).")
    return bucket, key


def read_object(call: Call, uri: str) -> bytes:
    """Reads a whole object, for what is small: manifests, definitions, property files.

    Raises: ServiceError, as GetObject would.
    """
    bucket, key = parse_uri(uri)
    body: Any = call.other("s3", "GetObject", Bucket=bucket, Key=key)["Body"]
    return body if isinstance(body, bytes) else b"".join(body)


def url_of(bucket: str, key: str, host: str | None) -> str:
    """The address of an object, as CompleteMultipartUpload tells it."""
    path = quote(key, safe="/~")
    return f"http://{host}/{bucket}/{path}" if host else f"https://{bucket}.s3.amazonaws.com/{path}"
