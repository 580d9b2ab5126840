"""Lists of multipart uploads and of their parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.kernel.call import Call, slow
from penstock.services.s3 import rules, state
from penstock.services.s3.listing import max_keys, number
from penstock.services.s3.multipart import find_upload
from penstock.store.records import GLOBAL, Document, Query, UploadPart

READ_AHEAD = 1000


@slow
def list_parts(call: Call) -> dict[str, Any]:
    """Lists the parts that an upload has so far. Raises: ServiceError NoSuchUpload."""
    bucket = state.bucket_of(call)
    upload = find_upload(call, bucket)
    size, start = max_keys(call.params, "MaxParts"), number(call.params, "PartNumberMarker", 0)
    found = call.app.store.upload_parts(upload.name, after=start, limit=size + 1)
    parts = [_part(part) for part in found[:size]]
    owner = state.owner_of(bucket.parent)
    return {
        "Bucket": bucket.name, "Key": upload.label, "UploadId": upload.name, "PartNumberMarker": start,
        "NextPartNumberMarker": parts[-1]["PartNumber"] if parts else start, "MaxParts": size,
        "IsTruncated": len(found) > size and size > 0, "Parts": parts, "Initiator": owner, "Owner": owner,
        "StorageClass": upload.body["Meta"].get("StorageClass", "STANDARD"),
        "ChecksumAlgorithm": upload.body["ChecksumAlgorithm"], "ChecksumType": upload.body["ChecksumType"],
    }  # fmt: skip


def _part(part: UploadPart) -> dict[str, Any]:
    return {
        "PartNumber": part.number, "LastModified": state.seconds(part.modified), "ETag": f'"{part.etag}"',
        "Size": part.part.size_bytes, **part.meta,
    }  # fmt: skip


@slow
def list_multipart_uploads(call: Call) -> dict[str, Any]:
    """Lists a bucket's open uploads by key, with folders folded into common prefixes."""
    bucket = state.bucket_of(call)
    params = call.params
    size = max_keys(params, "MaxUploads")
    marker, upload_marker = params.get("KeyMarker") or "", params.get("UploadIdMarker") or ""
    entries = _entries(call, bucket, marker, upload_marker if marker else "")
    shown: list[tuple[str, Document | None]] = []
    more = False
    for entry in entries:
        if len(shown) == size:
            more = size > 0
            break
        shown.append(entry)
    answer = _answer(call, bucket, shown) | {"MaxUploads": size, "IsTruncated": more}
    answer |= {"KeyMarker": marker, "UploadIdMarker": upload_marker}
    if more:
        text, last = shown[-1]
        answer |= {"NextKeyMarker": text, "NextUploadIdMarker": last.name if last else ""}
    return _encoded(answer) if params.get("EncodingType") == "url" else answer


def _entries(call: Call, bucket: Document, marker: str, upload_marker: str) -> Iterator[tuple[str, Document | None]]:
    """Uploads (with their key) and common prefixes (without) in order, after the markers."""
    prefix, delimiter = call.params.get("Prefix") or "", call.params.get("Delimiter") or ""
    folder = ""
    for upload in _uploads(call, bucket):
        key = upload.label
        if not key.startswith(prefix) or key < marker or (key == marker and upload.name <= (upload_marker or "~")):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        if at < 0:
            yield key, upload
        elif key[: at + len(delimiter)] not in (folder, marker):
            folder = key[: at + len(delimiter)]
            yield folder, None


def _uploads(call: Call, bucket: Document) -> Iterator[Document]:
    query = Query(kind=state.UPLOAD, account=GLOBAL, region=GLOBAL, parent=bucket.name, order="label", limit=READ_AHEAD)
    while found := call.app.store.page(query):
        yield from found
        query.after = (found[-1].label, found[-1].name)


def _answer(call: Call, bucket: Document, shown: list[tuple[str, Document | None]]) -> dict[str, Any]:
    owner = state.owner_of(bucket.parent)
    uploads = [_upload(upload, owner) for _, upload in shown if upload is not None]
    answer: dict[str, Any] = {"Bucket": bucket.name, "Uploads": uploads}
    answer["CommonPrefixes"] = [{"Prefix": text} for text, upload in shown if upload is None]
    for member in ("Prefix", "Delimiter", "EncodingType"):
        if call.params.get(member):
            answer[member] = call.params[member]
    return answer


def _upload(upload: Document, owner: dict[str, str]) -> dict[str, Any]:
    return {
        "UploadId": upload.name, "Key": upload.label, "Initiated": state.seconds(upload.created), "Owner": owner,
        "StorageClass": upload.body["Meta"].get("StorageClass", "STANDARD"), "Initiator": owner,
        "ChecksumAlgorithm": upload.body["ChecksumAlgorithm"], "ChecksumType": upload.body["ChecksumType"],
    }  # fmt: skip


def _encoded(answer: dict[str, Any]) -> dict[str, Any]:
    for member in ("Prefix", "Delimiter", "KeyMarker", "NextKeyMarker"):
        if member in answer:
            answer[member] = rules.url_encode(answer[member])
    for entry in answer["CommonPrefixes"]:
        entry["Prefix"] = rules.url_encode(entry["Prefix"])
    for entry in answer["Uploads"]:
        entry["Key"] = rules.url_encode(entry["Key"])
    return answer
