"""Presigned S3 addresses of the old form (`AWSAccessKeyId`, `Expires`, `Signature`): boto3 still makes them by default.

Only addresses: a request signed so in its headers is refused, as S3 refuses it for new buckets.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
"""

from __future__ import annotations

import base64
import hmac
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

from penstock.wire.message import Request

_SIGNED = frozenset((
    "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location",
    "logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
    "response-cache-control", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-content-type", "response-expires", "restore", "select", "select-type",
    "storageClass",
    "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
))  # fmt: skip
"""The parameters that are signed with the path; the others are not."""


class Address(NamedTuple):
    """What a presigned address says of itself."""

    access_key: str
    expires: str
    """Seconds since 1970, as text."""
    signature: str
    token: str | None


def read(request: Request) -> Address | None:
    """Gives what an address says of itself; None where it is not presigned in the old form."""
    if "Signature=" not in request.query or "AWSAccessKeyId=" not in request.query:
        return None
    given = {name: unquote_plus(value) for name, value in _pairs(request.query)}
    if any(not given.get(name) for name in ("AWSAccessKeyId", "Expires", "Signature")):
        return None
    token = given.get("x-amz-security-token")
    return Address(given["AWSAccessKeyId"], given["Expires"], given["Signature"], token)


def sign(request: Request, expires: str, secret: str) -> str:
    """Gives the signature that the request must have: what an address says beside the headers is signed, but for the body's type."""
    given = {name.lower(): unquote_plus(value) for name, value in _pairs(request.query)}
    said = {name: value for name, value in given.items() if name.startswith("x-amz-")} | request.headers
    custom = sorted((name, value) for name, value in said.items() if name.startswith("x-amz-"))
    lines = [request.method, said.get("content-md5", ""), said.get("content-type", ""), expires]
    lines += [f"{name}:{value.strip()}" for name, value in custom]
    lines.append(request.path + _signed_query(request.query))
    return base64.b64encode(hmac.digest(secret.encode(), "\n".join(lines).encode(), "sha1")).decode()


def carried(request: Request) -> dict[str, str]:
    """The headers that stand in the address instead: boto3 puts metadata, ACL and encryption there.

    Source: botocore's signer of such addresses.
    """
    given = {name.lower(): unquote_plus(value) for name, value in _pairs(request.query)}
    return {name: value for name, value in given.items() if name.startswith("x-amz-") and name not in request.headers}


def _signed_query(query: str) -> str:
    chosen = sorted(pair for pair in _pairs(query) if pair[0] in _SIGNED)
    bare = {part for part in query.split("&") if "=" not in part}
    text = "&".join(name if name in bare else f"{name}={unquote(value)}" for name, value in chosen)
    return f"?{text}" if text else ""


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in query.split("&")) if name]
