"""Listings of a bucket: V1, V2, versions. One page walks at most a thousand keys."""

from __future__ import annotations

from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules, state
from penstock.store.records import Document, ObjectPage, ObjectQuery, ObjectRow


@slow
def list_objects_v2(call: Call) -> dict[str, Any]:
    """Lists a bucket's objects in key order, with folders folded into common prefixes."""
    bucket = state.bucket_of(call)
    params = call.params
    token = params.get("ContinuationToken")
    after = (params.get("StartAfter") or "") if token is None else _place(token)
    page, size = _walk(call, bucket, after)
    contents = _contents(bucket, page, with_owner=bool(params.get("FetchOwner")))
    answer = _frame(call, bucket, page, size) | {"KeyCount": len(page.rows) + len(page.prefixes)}
    for member in ("StartAfter",) if token is None else ("ContinuationToken",):
        if params.get(member):
            answer[member] = params[member]
    if page.next:
        answer["NextContinuationToken"] = pages.seal([page.next, ""])
    return _encoded(call, answer | contents)


@slow
def list_objects(call: Call) -> dict[str, Any]:
    """Lists a bucket's objects in key order, in the first form of the answer."""
    bucket = state.bucket_of(call)
    marker = call.params.get("Marker") or ""
    page, size = _walk(call, bucket, marker)
    answer = _frame(call, bucket, page, size) | {"Marker": marker}
    if page.next and call.params.get("Delimiter"):
        answer["NextMarker"] = page.next
    return _encoded(call, answer | _contents(bucket, page, with_owner=True))


@slow
def list_object_versions(call: Call) -> dict[str, Any]:
    """Lists every version and delete marker, the newest of each key first."""
    bucket = state.bucket_of(call)
    params = call.params
    marker, version = params.get("KeyMarker") or "", params.get("VersionIdMarker") or ""
    if version and not marker:
        raise ServiceError("InvalidArgument", "A version-id marker cannot be specified without a key marker.")
    page, size = _walk(call, bucket, marker, version, versions=True)
    answer = _frame(call, bucket, page, size) | {"KeyMarker": marker, "VersionIdMarker": version}
    if page.next:
        answer["NextKeyMarker"] = page.next
        answer |= {"NextVersionIdMarker": page.next_version} if page.next_version else {}  # none behind a common prefix
    owner = state.owner_of(bucket.parent)
    shown = [(row.marker, _version(row, owner)) for row in page.rows]
    answer["Versions"] = [entry for gone, entry in shown if not gone]
    answer["DeleteMarkers"] = [entry for gone, entry in shown if gone]
    return _encoded(call, answer)


NUMBERS = {"MaxKeys": "max-keys", "MaxParts": "max-parts", "MaxUploads": "max-uploads", "PartNumberMarker": "part-number-marker"}
"""Numbers in a query, as they are called there."""
MOST = 2_147_483_647


def max_keys(params: dict[str, Any], member: str = "MaxKeys") -> int:
    """The size of a page that a call asks for, at most 1,000. Raises: ServiceError InvalidArgument."""
    return min(number(params, member, rules.LIST_KEYS), rules.LIST_KEYS)


def number(params: dict[str, Any], member: str, default: int) -> int:
    """A number of a query. Raises: ServiceError InvalidArgument."""
    asked, name = params.get(member), NUMBERS[member]
    if asked is None:
        return default
    if asked > MOST:
        sentence = f"Provided {name} not an integer or within integer range"
    elif asked < 0:
        name = "maxKeys" if member == "MaxKeys" else name
        sentence = f"Argument {name} must be an integer between 0 and {MOST}"
    else:
        return int(asked)
    raise ServiceError("InvalidArgument", sentence, 400, ArgumentName=name, ArgumentValue=asked)


def _walk(
    call: Call, bucket: Document, after: str, after_version: str = "", *, versions: bool = False
) -> tuple[ObjectPage, int]:
    size = max_keys(call.params)
    query = ObjectQuery(
        bucket=bucket.name, prefix=call.params.get("Prefix") or "", delimiter=call.params.get("Delimiter") or "",
        after=after, after_version=after_version, limit=size, versions=versions,
    )  # fmt: skip
    return (call.app.store.objects(query) if size else ObjectPage()), size


def _place(token: str) -> str:
    try:
        return str(pages.unseal(token)[0])
    except (ServiceError, IndexError):
        sentence = "The continuation token provided is incorrect"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="continuation-token") from None


def _frame(call: Call, bucket: Document, page: ObjectPage, size: int) -> dict[str, Any]:
    """The members that every listing has."""
    answer: dict[str, Any] = {
        "Name": bucket.name, "Prefix": call.params.get("Prefix") or "", "MaxKeys": size, "IsTruncated": bool(page.next),
        "CommonPrefixes": [{"Prefix": prefix} for prefix in page.prefixes],
    }  # fmt: skip
    for member in ("Delimiter", "EncodingType"):
        if call.params.get(member):
            answer[member] = call.params[member]
    return answer


def _contents(bucket: Document, page: ObjectPage, with_owner: bool) -> dict[str, Any]:
    shown = [_summary(row) for row in page.rows]
    if with_owner:
        owner = state.owner_of(bucket.parent)
        for entry in shown:
            entry["Owner"] = owner
    return {"Contents": shown}


def _summary(row: ObjectRow) -> dict[str, Any]:
    meta = row.meta
    shown: dict[str, Any] = {
        "Key": row.key, "LastModified": row.modified // 1, "ETag": f'"{row.etag}"', "Size": row.size_bytes,
        "StorageClass": meta.get("StorageClass", "STANDARD"),
    }  # fmt: skip
    if "ChecksumType" in meta:
        shown["ChecksumType"] = meta["ChecksumType"]
        shown["ChecksumAlgorithm"] = [name[8:] for name in meta if name[:8] == "Checksum" and name != "ChecksumType"]
    return shown


def _version(row: ObjectRow, owner: dict[str, str]) -> dict[str, Any]:
    shown = {"VersionId": row.version_id, "IsLatest": row.latest, "Owner": owner}
    if row.marker:
        return {"Key": row.key, "LastModified": state.seconds(row.modified), **shown}
    return _summary(row) | shown


def _encoded(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
    """Encodes what holds keys, where the client asked for it: XML cannot hold every character."""
    if call.params.get("EncodingType") != "url":
        return answer
    for member in ("Prefix", "Delimiter", "StartAfter", "Marker", "NextMarker", "KeyMarker", "NextKeyMarker"):
        if member in answer:
            answer[member] = rules.url_encode(answer[member])
    for entry in answer["CommonPrefixes"]:
        entry["Prefix"] = rules.url_encode(entry["Prefix"])
    for member in ("Contents", "Versions", "DeleteMarkers", "Uploads"):
        for entry in answer.get(member, ()):
            entry["Key"] = rules.url_encode(entry["Key"])
    return answer
