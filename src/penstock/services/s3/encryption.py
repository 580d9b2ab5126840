"""Server-side encryption as S3 tells of it: what a put asks for, or what its bucket gives it.

Differs: bytes lie on the disk as they came; encryption at rest is the disk's. Keys are kept and shown, never looked at.
"""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3.checks import invalid
from penstock.store.records import Document, ObjectRow

ALGORITHMS = ("AES256", "aws:kms", "aws:kms:dsse")
MEMBER = "ServerSideEncryptionConfiguration"


def chosen(call: Call, bucket: Document) -> dict[str, Any]:
    """The encryption members of a new object.

    Raises: ServiceError InvalidArgument for an algorithm that is none, or a key without KMS.
    """
    params = call.params
    algorithm, key = params.get("ServerSideEncryption"), params.get("SSEKMSKeyId")
    if algorithm is not None and algorithm not in ALGORITHMS:
        sentence = "The encryption method specified is not supported"
        raise invalid(sentence, ArgumentName="x-amz-server-side-encryption", ArgumentValue=algorithm)
    kms = (algorithm or "").startswith("aws:kms")
    if key is not None and not kms:
        sentence = "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
        raise invalid(sentence, ArgumentName="x-amz-server-side-encryption", ArgumentValue=algorithm or "null")
    if algorithm is None:
        algorithm, key, bucket_key = _default(bucket)
        kms = algorithm.startswith("aws:kms")
    else:
        bucket_key = bool(params.get("BucketKeyEnabled"))
    if not kms:
        return {"ServerSideEncryption": algorithm} if algorithm != "AES256" else {}
    key = key or f"arn:aws:kms:{bucket.body['BucketRegion']}:{bucket.parent}:alias/aws/s3"
    if not key.startswith("arn:"):
        name = key if key.startswith("alias/") else f"key/{key}"
        key = f"arn:aws:kms:{bucket.body['BucketRegion']}:{bucket.parent}:{name}"
    return {"ServerSideEncryption": algorithm, "SSEKMSKeyId": key} | (
        {"BucketKeyEnabled": True} if bucket_key and algorithm == "aws:kms" else {}
    )


def _default(bucket: Document) -> tuple[str, str | None, bool]:
    """What the bucket gives what asks for nothing: algorithm, key, whether by a bucket key."""
    given = ((bucket.body.get("_settings") or {}).get(MEMBER) or {}).get("Rules") or [{}]
    default = given[0].get("ApplyServerSideEncryptionByDefault") or {}
    return (
        default.get("SSEAlgorithm") or "AES256",
        default.get("KMSMasterKeyID"),
        bool(given[0].get("BucketKeyEnabled")),
    )


def changes(bucket: Document, row: ObjectRow) -> bool:
    """Whether a copy of an object to itself has an encryption of its own: the bucket says which, or the object's is not the usual one."""
    return MEMBER in (bucket.body.get("_settings") or {}) or row.meta.get("ServerSideEncryption", "AES256") != "AES256"


def shown(row: ObjectRow) -> dict[str, Any]:
    """The encryption members of an answer: S3 encrypts everything, so it says so."""
    return of_meta(row.meta)


def of_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """The same of a row that is not there yet: an upload's."""
    known: dict[str, Any] = {name: meta[name] for name in ("SSEKMSKeyId", "BucketKeyEnabled") if name in meta}
    return {"ServerSideEncryption": meta.get("ServerSideEncryption", "AES256"), **known}


def refuse_in_read(call: Call) -> None:
    """Raises: ServiceError InvalidArgument where a read names an encryption: it goes with a write only."""
    for header in ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"):
        if header in call.headers:
            sentence = f"{header} header is not supported for this operation."
            raise ServiceError(
                "InvalidArgument", sentence, 400, ArgumentName=header, ArgumentValue=call.headers[header]
            )
