"""Objects: put, get, head, copy."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

from penstock.blobs import checksums
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.kernel.notices import notice
from penstock.services.s3 import acls, archived, bodies, encryption, rules, state
from penstock.store.records import Document, ObjectPut, ObjectRow

RESPONSE_HEADERS = {
    "CacheControl": "response-cache-control", "ContentDisposition": "response-content-disposition",
    "ContentEncoding": "response-content-encoding", "ContentLanguage": "response-content-language",
    "ContentType": "response-content-type", "Expires": "response-expires",
}  # fmt: skip
STORAGE_CLASSES = frozenset((
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR",
))  # fmt: skip
COPY_BYTES = 5 << 30


# --- writing


def put_object(call: Call) -> dict[str, Any]:
    """Puts an object: bytes of at most 64 KB into the row, larger ones as a blob that the row points at.

    Differs: storage classes and KMS keys are kept and shown; nothing is encrypted or moved by them, but what is archived
        (GLACIER, DEEP_ARCHIVE) is read after RestoreObject only.
    """
    bucket = state.writable_bucket(call)
    params = call.params
    rules.check_key(params["Key"])
    meta = said(call, bucket)
    received = bodies.receive(call)
    algorithm = bodies.algorithm_of(params)
    checksum = {bodies.MEMBERS[algorithm]: bodies.verify(call, received, algorithm), "ChecksumType": "FULL_OBJECT"}
    row = new_row(call, bucket, params["Key"])
    bodies.fill(row, received)
    row.meta = meta | checksum
    put_row(call, bucket, row, *(("Post", "POST Object") if params.get("_form") else ("Put", "PutObject")))
    return {"ETag": f'"{row.etag}"', **checksum, **encryption.shown(row), **state.made_version(bucket, row)}


def said(call: Call, bucket: Document) -> dict[str, Any]:
    """The meta of a new object, as the call says it: headers, user metadata, tags, encryption, grants."""
    meta = state.meta_of(call.params) | encryption.chosen(call, bucket)
    _check_class(meta)
    rules.check_metadata(meta.get("Metadata") or {})
    if call.params.get("Tagging"):
        meta["_tags"] = rules.tags_of_query(call.params["Tagging"])
    if grants := acls.asked(call, bucket):
        meta["_acl"] = grants
    return meta


def _check_class(meta: dict[str, Any]) -> None:
    if (wanted := meta.get("StorageClass", "STANDARD")) not in STORAGE_CLASSES:
        raise ServiceError("InvalidStorageClass", "The storage class you specified is not valid", StorageClassRequested=wanted)


def new_row(call: Call, bucket: Document, key: str) -> ObjectRow:
    """An empty row for the next version of a key."""
    version_id = state.new_version_id(bucket)
    return ObjectRow(bucket=bucket.name, key=key, version_id=version_id, modified=call.now)


def put_row(call: Call, bucket: Document, row: ObjectRow, event: str, reason: str) -> None:
    """Puts a row under the call's IfMatch and IfNoneMatch, which the store holds again when it commits, and tells of it.

    Raises: ServiceError PreconditionFailed, NoSuchKey, NotImplemented.
    """
    match, none_match = call.params.get("IfMatch"), call.params.get("IfNoneMatch")
    if none_match is not None and none_match != "*":
        raise ServiceError("NotImplemented", state.UNIMPLEMENTED, 501, Header="If-None-Match")
    if match is not None or none_match is not None:
        there = call.app.store.object(row.bucket, row.key)
        there = None if there is None or there.marker else there
        if none_match and there:
            raise rules.unmet("If-None-Match")
        if match and there is None:
            raise state.no_such_key(row.key)
        if match and there and not rules.matches(match, there.etag):
            raise rules.unmet("If-Match")
        match = there.etag if match and there else None
    call.row(ObjectPut(row=row, if_match=match, if_none_match=none_match is not None))
    notice(call, bucket, f"ObjectCreated:{event}", row, reason)


# --- reading


def get_object(call: Call) -> dict[str, Any]:
    """Gives an object or a range of it, in constant memory."""
    row, shown, start, length = _look(call)
    archived.check_read(call, row)
    return {"Body": bodies.read_row(call.app.blobs, row, start, length), **shown}


def head_object(call: Call) -> dict[str, Any]:
    """Gives what GetObject says about an object, without the bytes."""
    return _look(call)[1]


def _look(call: Call) -> tuple[ObjectRow, dict[str, Any], int, int]:
    """The object that a read means, what is told of it, and the range of bytes asked for."""
    params = call.params
    bucket = state.bucket_of(call)
    encryption.refuse_in_read(call)
    row = state.find_row(call, bucket)
    if fault := rules.Conditions.of(params).fault(row.etag, row.modified):
        if fault[0] == 412:
            raise rules.unmet(fault[1])
        told = {"etag": f'"{row.etag}"', "last-modified": formatdate(row.modified, usegmt=True)}
        told |= {"x-amz-version-id": row.version_id} if state.versioning(bucket) else {}
        raise ServiceError("NotModified", "Not Modified", 304, _headers=told)
    span = _span(params, row)
    shown = describe(bucket, row, with_checksum=params.get("ChecksumMode") == "ENABLED") | archived.shown(call, row)
    for member in RESPONSE_HEADERS:
        if (value := params.get(f"Response{member}")) is not None:
            if isinstance(value, str):
                value = rules.check_header(value, RESPONSE_HEADERS[member])
            shown[member] = value
    if span is None:
        return row, shown, 0, row.size_bytes
    start, length = span
    shown["_status"] = 206
    shown["ContentLength"] = length
    shown["ContentRange"] = f"bytes {start}-{start + length - 1}/{row.size_bytes}"
    if params.get("PartNumber") is not None and "-" in row.etag:
        shown["PartsCount"] = len(bodies.part_sizes(row))
    if length != row.size_bytes:
        for member in [name for name in shown if name.startswith("Checksum")]:
            del shown[member]  # they are the whole's
        if params.get("PartNumber") is not None and params.get("ChecksumMode") == "ENABLED":
            shown |= bodies.part_checksum(row, params["PartNumber"])
    return row, shown, start, length


def _span(params: dict[str, Any], row: ObjectRow) -> tuple[int, int] | None:
    number = params.get("PartNumber")
    if number is None:
        return rules.find_range(params.get("Range"), row.size_bytes)
    if params.get("Range"):
        raise ServiceError("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    start, length = rules.find_part(number, bodies.part_sizes(row))
    return (start, length) if length else None


def describe(bucket: Document, row: ObjectRow, with_checksum: bool) -> dict[str, Any]:
    """What HeadObject tells of a row."""
    shown = {
        name: value
        for name, value in row.meta.items()
        if name[0] != "_" and (with_checksum or not name.startswith("Checksum"))
    }
    shown |= {
        "AcceptRanges": "bytes",
        "LastModified": state.seconds(row.modified),
        "ContentLength": row.size_bytes,
        "ETag": f'"{row.etag}"',
        **encryption.shown(row),
        **state.shown_version(bucket, row),
    }
    if "Metadata" in shown:
        shown["Metadata"], missing = rules.show_metadata(shown["Metadata"])
        shown |= {"MissingMeta": missing} if missing else {}
    if tags := row.meta.get("_tags"):
        shown["TagCount"] = len(tags)
    return shown


# --- copying


def open_source(call: Call) -> tuple[Document, ObjectRow]:
    """The version that CopySource names, if its conditions hold.

    Raises: ServiceError NoSuchBucket, AccessDenied, NoSuchKey, NoSuchVersion, PreconditionFailed, ObjectNotInActiveTierError.
    """
    name, key, version_id = rules.copy_source(call.params["CopySource"])
    source = state.open_bucket(call, name, call.params.get("ExpectedSourceBucketOwner"))
    row = state.row_of(call, source, key, version_id)
    if fault := rules.Conditions.of(call.params, "CopySourceIf").fault(row.etag, row.modified):
        raise rules.unmet(f"x-amz-copy-source-{fault[1]}")
    archived.check_copy(call, row)
    return source, row


@slow
def copy_object(call: Call) -> dict[str, Any]:
    """Copies an object: a new row that points at the same bytes.

    Differs: the copy of a multipart object keeps its ETag and its checksum; AWS computes both anew over the whole.
    """
    bucket = state.writable_bucket(call)
    params = call.params
    rules.check_key(params["Key"])
    source, found = open_source(call)
    replaced = params.get("MetadataDirective") == "REPLACE"
    _refuse_copy(params, bucket, found, replaced)
    row = new_row(call, bucket, params["Key"])
    row.etag, row.size_bytes, row.inline, row.parts = found.etag, found.size_bytes, found.inline, found.parts
    row.meta = _copied_meta(call, bucket, found, replaced)
    rules.check_metadata(row.meta.get("Metadata") or {})
    for part in row.parts:
        call.app.blobs.touch(part.sha256)  # the source may go before this row is there
    put_row(call, bucket, row, "Copy", "CopyObject")
    told = {name: value for name, value in row.meta.items() if name.startswith("Checksum")}
    result = {"ETag": f'"{row.etag}"', "LastModified": state.seconds(row.modified), **told}
    origin = {"CopySourceVersionId": found.version_id} if state.versioning(source) else {}
    return {"CopyObjectResult": result, **origin, **encryption.shown(row), **state.shown_version(bucket, row)}


KEPT = ("_sizes", "_sums")
"""What belongs to the bytes, and goes with them."""
GIVEN = ("StorageClass", "WebsiteRedirectLocation", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
"""What a copy has by its own request only."""


def _copied_meta(call: Call, bucket: Document, found: ObjectRow, replaced: bool) -> dict[str, Any]:
    given = state.meta_of(call.params) | encryption.chosen(call, bucket)
    _check_class(given)
    if replaced:
        meta = given | {
            name: value for name, value in found.meta.items() if name.startswith("Checksum") or name in KEPT
        }
    else:
        meta = {name: value for name, value in found.meta.items() if name not in GIVEN and name[0] != "_"}
        meta |= {name: found.meta[name] for name in KEPT if name in found.meta}
        meta |= {name: given[name] for name in GIVEN if name in given}
    if grants := acls.asked(call, bucket):
        meta["_acl"] = grants
    if call.params.get("TaggingDirective") == "REPLACE":
        tags = rules.tags_of_query(call.params.get("Tagging") or "")
    else:
        tags = found.meta.get("_tags", {})
    if tags:
        meta["_tags"] = tags
    wanted = call.params.get("ChecksumAlgorithm")
    if wanted and bodies.MEMBERS[wanted] not in meta:
        meta = {name: value for name, value in meta.items() if not name.startswith("Checksum")}
        pieces = bodies.read_row(call.app.blobs, found)
        text = checksums.compute(wanted, [pieces] if isinstance(pieces, bytes) else pieces)
        meta |= {bodies.MEMBERS[wanted]: text, "ChecksumType": "FULL_OBJECT"}
    return meta


def _refuse_copy(params: dict[str, Any], bucket: Document, found: ObjectRow, replaced: bool) -> None:
    if found.size_bytes > COPY_BYTES:
        sentence = "The specified copy source is larger than the maximum allowable size for a copy source: "
        raise ServiceError("InvalidRequest", f"{sentence}{COPY_BYTES}")
    itself = (found.bucket, found.key) == (bucket.name, params["Key"]) and "versionId" not in params["CopySource"]
    changes = ("StorageClass", "WebsiteRedirectLocation", "ServerSideEncryption", "SSEKMSKeyId", "ChecksumAlgorithm")
    changed = any(params.get(name) for name in changes) or encryption.changes(bucket, found)
    if itself and not replaced and not changed:
        sentence = (
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes."
        )
        raise ServiceError("InvalidRequest", sentence)
