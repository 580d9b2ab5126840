"""Small files that pipelines read: definitions, and the property files of steps."""

from __future__ import annotations

import json
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines.expressions import Unresolved

MAX_FILE_BYTES = 16 << 20


def read_object(call: Call, bucket: str, key: str, most_bytes: int, version_id: str | None = None) -> bytes:
    """The bytes of an object.

    Raises: ServiceError as S3 does; Unresolved for one that is too large.
    """
    version = {"VersionId": version_id} if version_id else {}
    got = call.other("s3", "GetObject", Bucket=bucket, Key=key, **version)
    if got.get("ContentLength", 0) > most_bytes:
        raise Unresolved(f"it is too large ({got['ContentLength']} bytes, the maximum is {most_bytes})")
    body = got.get("Body", b"")
    return body if isinstance(body, bytes) else b"".join(body)


def read_json(call: Call, uri: str) -> Any:
    """What a JSON file in S3 holds.

    Raises: Unresolved, with what is there instead when the file is not.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise Unresolved(f"'{uri}' is no S3 URI of a file")
    try:
        return json.loads(read_object(call, bucket, key, MAX_FILE_BYTES))
    except ServiceError as fault:
        if fault.code == "NoSuchKey":
            raise Unresolved(f"the file {uri} does not exist; {_tell_neighbours(call, bucket, key)}") from None
        raise Unresolved(f"the file {uri} cannot be read: {fault.message}") from None
    except (ValueError, RecursionError) as why:
        raise Unresolved(f"the contents of the file {uri} are not in valid JSON format: {why}") from None


def _tell_neighbours(call: Call, bucket: str, key: str) -> str:
    folder = key.rpartition("/")[0] + "/" if "/" in key else ""
    try:
        found = call.other("s3", "ListObjectsV2", Bucket=bucket, Prefix=folder, MaxKeys=10).get("Contents") or []
    except ServiceError:
        found = []
    names = ", ".join(item["Key"].removeprefix(folder) for item in found)
    return f"s3://{bucket}/{folder} has {names}" if names else f"s3://{bucket}/{folder} is empty"
