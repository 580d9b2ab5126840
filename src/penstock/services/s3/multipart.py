"""Multipart uploads: an object sent in parts becomes a list of part blobs; completing it reads no byte again."""

from __future__ import annotations

import itertools
from typing import Any

from penstock.blobs import checksums
from penstock.blobs.base import Received
from penstock.kernel import ids
from penstock.kernel.buckets import url_of
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import bodies, encryption, rules, state
from penstock.services.s3.objects import new_row, open_source, put_row, said
from penstock.store.records import GLOBAL, Document, ObjectRow, Part, UploadGone, UploadPart

MAX_PARTS = 10_000
_XML = "The XML you provided was not well-formed or did not validate against our published schema"


def create_multipart_upload(call: Call) -> dict[str, Any]:
    """Opens an upload; it stays until it is completed or aborted, at most seven days.

    Differs: S3 keeps forgotten uploads until a lifecycle rule takes them away.
    """
    bucket = state.writable_bucket(call)
    params = call.params
    rules.check_key(params["Key"])
    algorithm = params.get("ChecksumAlgorithm")
    kind = params.get("ChecksumType") or ("COMPOSITE" if algorithm not in (None, "CRC64NVME") else "FULL_OBJECT")
    full = (algorithm or checksums.DEFAULT) in checksums.FULL_OBJECT
    if (kind == "FULL_OBJECT" and not full) or (kind == "COMPOSITE" and algorithm in (None, "CRC64NVME")):
        sentence = f"The {kind} checksum type cannot be used with the {(algorithm or 'crc64nvme').lower()} algorithm."
        raise ServiceError("InvalidRequest", sentence)
    meta = said(call, bucket)
    body = {
        "Meta": meta, "ChecksumAlgorithm": algorithm or checksums.DEFAULT, "ChecksumType": kind,
        "Chosen": algorithm is not None,
    }  # fmt: skip
    upload = Document(
        kind=state.UPLOAD, account=GLOBAL, region=GLOBAL, name=ids.word(96, ids.MIXED), parent=bucket.name,
        label=params["Key"], created=call.now, body=body,
    )  # fmt: skip
    call.put(upload)
    told = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind} if algorithm else {}
    known = {"Bucket": bucket.name, "Key": upload.label, "UploadId": upload.name}
    return known | told | encryption.of_meta(meta)


def find_upload(call: Call, bucket: Document) -> Document:
    """The upload that a call means. Raises: ServiceError NoSuchUpload."""
    upload = call.find(state.upload_ref(call.params["UploadId"]))
    if upload is None or (upload.parent, upload.label) != (bucket.name, call.params["Key"]):
        raise state.no_such_upload(call.params["UploadId"])
    return upload


# --- parts


@slow
def upload_part(call: Call) -> dict[str, Any]:
    """Takes one part; a part of the same number that was there is replaced."""
    _, upload = _writable(call)
    received = bodies.receive(call)
    checksum = _keep_part(call, upload, received)
    return {"ETag": f'"{received.md5}"', **checksum, **encryption.of_meta(upload.body["Meta"])}


@slow
def upload_part_copy(call: Call) -> dict[str, Any]:
    """Makes a part of an object that is there, or of a range of it; a whole object of one blob is not read again.

    Raises: ServiceError InvalidArgument, InvalidRequest for a range that is none or lies outside.
    """
    _, upload = _writable(call)
    source, found = open_source(call)
    start, length = _source_range(call.params.get("CopySourceRange"), found)
    algorithm = upload.body["ChecksumAlgorithm"]
    received = bodies.same_bytes(call.app.blobs, found, length, algorithm)
    if received is None:
        received = bodies.read_again(call.app.blobs, found, start, length, algorithm)
    checksum = _keep_part(call, upload, received)
    result = {"ETag": f'"{received.md5}"', "LastModified": state.seconds(call.now), **checksum}
    origin = {"CopySourceVersionId": found.version_id} if state.versioning(source) else {}
    return {"CopyPartResult": result, **origin, **encryption.of_meta(upload.body["Meta"])}


def _writable(call: Call) -> tuple[Document, Document]:
    """The bucket and the upload, which must both still be there when the part is committed."""
    bucket = state.writable_bucket(call)
    number = call.params["PartNumber"]
    if not 1 <= number <= MAX_PARTS:
        sentence = f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="partNumber", ArgumentValue=number)
    upload = find_upload(call, bucket)
    call.change.reads.append(upload)
    return bucket, upload


def _keep_part(call: Call, upload: Document, received: Received) -> dict[str, str]:
    """Puts the part's row into the change, and gives its checksum members."""
    algorithm = upload.body["ChecksumAlgorithm"]
    checksum = {bodies.MEMBERS[algorithm]: bodies.verify(call, received, algorithm)}
    if received.inline is not None:
        call.app.blobs.put(received.inline)
    part = UploadPart(
        upload_id=upload.name, number=call.params["PartNumber"], etag=received.md5, modified=call.now,
        part=Part(received.sha256, received.size_bytes), meta=checksum,
    )  # fmt: skip
    call.row(part)
    given = bodies.given_checksum(call.params)
    return {bodies.MEMBERS[given[0]]: given[1]} if given else checksum


def _source_range(text: str | None, found: ObjectRow) -> tuple[int, int]:
    if text is None:
        return 0, found.size_bytes
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not (text.startswith("bytes=") and dash and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        sentence = "The x-amz-copy-source-range value must be of the form bytes=first-last"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="x-amz-copy-source-range", ArgumentValue=text)
    if int(last) >= found.size_bytes:
        sentence = f"Range specified is not valid for source object of size: {found.size_bytes}"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="x-amz-copy-source-range", ArgumentValue=text)
    return int(first), int(last) - int(first) + 1


# --- the end


@slow
def complete_multipart_upload(call: Call) -> dict[str, Any]:
    """Makes the object of its parts, in the order listed; the same request again gives the same answer.

    Raises: ServiceError NoSuchUpload, MalformedXML, InvalidPart, InvalidPartOrder, EntityTooSmall, BadDigest,
        InvalidRequest, PreconditionFailed.
    """
    bucket = state.writable_bucket(call)
    try:
        upload = find_upload(call, bucket)
    except ServiceError:
        row = call.app.store.object(bucket.name, call.params["Key"])
        if row is None or row.meta.get("_upload") != call.params["UploadId"]:
            raise
        return _completed(call, bucket, row)  # the answer to the first request was lost on its way
    parts = _chosen(call, upload)
    row = new_row(call, bucket, upload.label)
    row.parts = [part.part for part in parts]
    row.size_bytes = sum(part.part.size_bytes for part in parts)
    row.etag = rules.etag_of_parts([part.etag for part in parts])
    row.meta = {**upload.body["Meta"], **_checksum(call, upload, parts), "_upload": upload.name}
    if upload.body.get("Chosen"):
        member = bodies.MEMBERS[upload.body["ChecksumAlgorithm"]]
        row.meta["_sums"] = [part.meta[member] for part in parts]
    size_bytes = call.params.get("MpuObjectSize")
    if size_bytes is not None and int(size_bytes) != row.size_bytes:
        sentence = "The provided x-amz-mp-object-size header does not match the size of the object."
        raise ServiceError("InvalidRequest", sentence)
    put_row(call, bucket, row, "CompleteMultipartUpload", "CompleteMultipartUpload")
    call.row(UploadGone(upload_id=upload.name))
    call.delete(upload)
    return _completed(call, bucket, row)


def _completed(call: Call, bucket: Document, row: ObjectRow) -> dict[str, Any]:
    checksum = {name: value for name, value in row.meta.items() if name.startswith("Checksum")}
    return {
        "Location": url_of(bucket.name, row.key, call.headers.get("host")), "Bucket": bucket.name, "Key": row.key,
        "ETag": f'"{row.etag}"', **checksum, **encryption.shown(row), **state.made_version(bucket, row),
    }  # fmt: skip


def _chosen(call: Call, upload: Document) -> list[UploadPart]:
    """The parts that the request lists, each held against what was received."""
    listed = (call.params.get("MultipartUpload") or {}).get("Parts") or []
    if not listed or any(given.get("PartNumber") is None or given.get("ETag") is None for given in listed):
        raise ServiceError("MalformedXML", _XML)
    numbers = [given["PartNumber"] for given in listed]
    if any(one >= other for one, other in itertools.pairwise(numbers)):
        sentence = (
            "The list of parts was not in ascending order. The parts list must be specified in order by part number."
        )
        raise ServiceError("InvalidPartOrder", sentence, 400, UploadId=upload.name)
    there = {part.number: part for part in call.app.store.upload_parts(upload.name)}
    chosen = [_check_part(upload, given, there.get(given["PartNumber"])) for given in listed]
    for part in chosen[:-1]:
        if part.part.size_bytes < rules.PART_BYTES:
            sizes = {"ProposedSize": part.part.size_bytes, "MinSizeAllowed": rules.PART_BYTES}
            sentence = "Your proposed upload is smaller than the minimum allowed size"
            raise ServiceError("EntityTooSmall", sentence, 400, PartNumber=part.number, ETag=part.etag, **sizes)
    return chosen


def _check_part(upload: Document, given: dict[str, Any], part: UploadPart | None) -> UploadPart:
    member = bodies.MEMBERS[upload.body["ChecksumAlgorithm"]]
    good = part is not None and rules.bare(given["ETag"]) == part.etag
    if part is None or not good or given.get(member) not in (None, part.meta.get(member)):
        sentence = (
            "One or more of the specified parts could not be found.  The part may not have been uploaded, "
            "or the specified entity tag may not match the part's entity tag."
        )
        known = {"UploadId": upload.name, "PartNumber": given["PartNumber"], "ETag": rules.bare(given["ETag"])}
        raise ServiceError("InvalidPart", sentence, 400, **known)
    if upload.body["ChecksumType"] == "COMPOSITE" and given.get(member) is None:
        name = upload.body["ChecksumAlgorithm"].lower()
        sentence = (
            f"The upload was created using a {name} checksum. The complete request must include the checksum for each "
            f"part. It was missing for part {part.number} in the request."
        )
        raise ServiceError("InvalidRequest", sentence)
    return part


def _checksum(call: Call, upload: Document, parts: list[UploadPart]) -> dict[str, Any]:
    """The object's checksum from those of its parts, held against the one the request brings."""
    algorithm, kind = upload.body["ChecksumAlgorithm"], upload.body["ChecksumType"]
    member = bodies.MEMBERS[algorithm]
    if kind == "COMPOSITE":
        text = checksums.composite(algorithm, [part.meta[member] for part in parts])
    else:
        text = checksums.combine(algorithm, [(part.meta[member], part.part.size_bytes) for part in parts])
    given = bodies.given_checksum(call.params)
    if given and given[0] == algorithm and given[1] != text:
        raise bodies.bad_digest(algorithm)
    if given and given[0] != algorithm:
        sentence = f"The upload was created using the {algorithm} checksum mode, not {given[0]}."
        raise ServiceError("InvalidRequest", sentence)
    return {member: text, "ChecksumType": kind}


def abort_multipart_upload(call: Call) -> None:
    """Closes an upload without an object; the collector takes its parts. Raises: ServiceError NoSuchUpload."""
    upload = find_upload(call, state.bucket_of(call))
    call.delete(upload)
    call.row(UploadGone(upload_id=upload.name))
