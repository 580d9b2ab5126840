"""What is said of an object beside its bytes: tags and attributes."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.notices import notice
from penstock.services.s3 import bodies, rules, state
from penstock.store.records import Document, ObjectRow

MAX_PARTS = 1000


def get_object_tagging(call: Call) -> dict[str, Any]:
    """Shows an object's tags."""
    bucket, row = _find(call, write=False)
    tags = [{"Key": key, "Value": value} for key, value in row.meta.get("_tags", {}).items()]
    return {"TagSet": tags, **state.shown_version(bucket, row)}


def put_object_tagging(call: Call) -> dict[str, Any]:
    """Sets an object's tags in place of those it had. Raises: ServiceError InvalidTag, BadRequest."""
    return _tag(call, rules.tags_of(call.params["Tagging"]["TagSet"], 10))


def delete_object_tagging(call: Call) -> dict[str, Any]:
    """Takes all tags of an object away."""
    return _tag(call, {})


def _tag(call: Call, tags: dict[str, str]) -> dict[str, Any]:
    bucket, row = _find(call, write=True)
    call.row(state.said_anew(row, {**row.meta, "_tags": tags}))
    event = "Put" if tags else "Delete"
    notice(call, bucket, f"ObjectTagging:{event}", row, f"{event}ObjectTagging")
    return state.shown_version(bucket, row)


def _find(call: Call, write: bool) -> tuple[Document, ObjectRow]:
    bucket = state.writable_bucket(call) if write else state.bucket_of(call)
    return bucket, state.find_row(call, bucket)


def get_object_attributes(call: Call) -> dict[str, Any]:
    """Shows the attributes asked for: ETag, Checksum, ObjectParts, StorageClass, ObjectSize."""
    bucket, row = _find(call, write=False)
    asked = call.params["ObjectAttributes"]
    shown: dict[str, Any] = {"LastModified": state.seconds(row.modified), **state.shown_version(bucket, row)}
    if "ETag" in asked:
        shown["ETag"] = row.etag
    if "Checksum" in asked and "ChecksumType" in row.meta:
        shown["Checksum"] = {name: value.partition("-")[0] for name, value in row.meta.items() if name.startswith("Checksum")}
    if "ObjectParts" in asked and "-" in row.etag:
        shown["ObjectParts"] = _parts(call, row)
    if "StorageClass" in asked:
        shown["StorageClass"] = row.meta.get("StorageClass", "STANDARD")
    if "ObjectSize" in asked:
        shown["ObjectSize"] = row.size_bytes
    return shown


def _parts(call: Call, row: ObjectRow) -> dict[str, Any]:
    """A page of the parts; S3 tells of each one only where the client chose a checksum for them."""
    sizes, sums = bodies.part_sizes(row), row.meta.get("_sums")
    if not sums:
        return {"TotalPartsCount": len(sizes)}
    member = next(name for name in row.meta if name in bodies.MEMBERS.values())
    start, size = int(call.params.get("PartNumberMarker") or 0), call.params.get("MaxParts") or MAX_PARTS
    shown = [
        {"PartNumber": number, "Size": sizes[number - 1], member: sums[number - 1]}
        for number in range(start + 1, min(len(sizes), start + size) + 1)
    ]
    more = start + len(shown) < len(sizes)
    return {
        "TotalPartsCount": len(sizes), "PartNumberMarker": start, "NextPartNumberMarker": start + len(shown),
        "MaxParts": size, "IsTruncated": more, "Parts": shown,
    }  # fmt: skip
