"""Archives of code: taken in, looked over without being unpacked, kept as objects, and shown by an address.

Nothing is unpacked here: that is done in the sandbox.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from penstock.kernel import auth, buckets
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.runs.base import Input
from penstock.services.lambda_.state import LARGE, ZIPPED_BYTES, refused
from penstock.store.records import GLOBAL, Document, ObjectDelete, ObjectPut, ObjectRow, Part

UNPACKED_BYTES = 262_144_000
MEMBERS, DIRECTORY_BYTES = 200_000, 32 << 20
"""What an archive's directory may hold, and be."""
END, END64 = struct.Struct("<12xLLH"), struct.Struct("<40xQQ")
"""The records at an archive's end, read for the directory's length."""
END_MARK, END64_MARK, LOCATOR_MARK, ENTRY_MARK = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
LOCATOR_BYTES = 20
TAIL_BYTES = END.size + 65_535 + LOCATOR_BYTES + END64.size
OWNER = "lambda"
"""The account whose buckets hold code: nobody's."""
ADDRESS_S = 600


def bucket_of(region: str) -> str:
    """The bucket of a region's code: no client can make one of such a name, for an underscore is not S3's."""
    return f"awslambda_{region}_tasks"


def _holder(code: Mapping[str, Any], region: str) -> str:
    """The bucket that holds an archive; those taken in before its name was out of reach lie where anybody may have made one."""
    held: str = code.get("Bucket") or f"awslambda-{region}-tasks"
    return held


def take(call: Call, given: Mapping[str, Any], key: str, what: str) -> dict[str, Any]:
    """Takes an archive in, as bytes or from S3, and keeps it under a key, in the call's change.

    Gives: Bucket, Key, Sha256 (base64) and Size.
    Raises: ServiceError InvalidParameterValueException.
    """
    if given.get("ZipFile") is not None and given.get("S3Bucket"):
        raise refused("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if given.get("ZipFile") is not None:
        if len(given["ZipFile"]) > ZIPPED_BYTES:
            raise ServiceError(LARGE, f"Zipped size must be smaller than {ZIPPED_BYTES} bytes", 413)
        pieces: Iterable[bytes] = [given["ZipFile"]]
    elif given.get("S3Bucket") and given.get("S3Key"):
        pieces = _fetch(call, given)
    else:
        raise refused(f"Please provide a source for {what}.")
    _establish(call)
    receiver = call.app.blobs.receive(())
    try:
        for piece in pieces:
            receiver.write(piece)
        received = receiver.finish()
        check(io.BytesIO(received.inline) if received.inline is not None else call.app.blobs.path(received.sha256))
    except (ServiceError, OSError):
        receiver.abandon()
        raise
    parts = [] if received.inline is not None else [Part(received.sha256, received.size_bytes)]
    row = ObjectRow(
        bucket=bucket_of(call.region), key=key, modified=call.now, size_bytes=received.size_bytes, etag=received.md5,
        inline=received.inline, parts=parts, meta={"ContentType": "application/zip"},
    )  # fmt: skip
    call.row(ObjectPut(row=row))
    sha256 = base64.b64encode(bytes.fromhex(received.sha256)).decode()
    return {"Bucket": row.bucket, "Key": key, "Sha256": sha256, "Size": received.size_bytes}


def drop(call: Call, code: Mapping[str, Any]) -> None:
    call.row(ObjectDelete(bucket=_holder(code, call.region), key=code["Key"]))


def _fetch(call: Call, given: Mapping[str, Any]) -> Iterable[bytes]:
    params = {"Bucket": given["S3Bucket"], "Key": given["S3Key"]}
    if given.get("S3ObjectVersion"):
        params["VersionId"] = given["S3ObjectVersion"]
    try:
        found = call.other("s3", "GetObject", **params)
    except ServiceError as fault:
        raise refused(
            f"Error occurred while GetObject. S3 Error Code: {fault.code}. S3 Error Message: {fault.message}"
        ) from None
    if found["ContentLength"] > UNPACKED_BYTES:  # no less than what it holds, but for what cannot be packed
        raise _too_large()
    body: Any = found["Body"]
    return [body] if isinstance(body, bytes) else body


def check(file: BinaryIO | str) -> None:
    """Raises: ServiceError for what is no archive, or would be too large."""
    try:
        with open(file, "rb") if isinstance(file, str) else file as opened:
            _check_directory(opened)
            with zipfile.ZipFile(opened) as packed:
                members = packed.infolist()
        size_bytes = sum(member.file_size for member in members)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        raise refused("Could not unzip uploaded file. Please check your file, then try to upload again.") from None
    if not members:
        raise refused("Uploaded file must be a non-empty zip")
    if size_bytes > UNPACKED_BYTES:
        raise _too_large()


def _check_directory(file: BinaryIO) -> None:
    """Counts an archive's members before any of them is made an object: its own word for their number may be a lie.

    Raises: ServiceError for too many; BadZipFile.
    Source: pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.12 to 4.3.16
    """
    start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    end = len(tail) - END.size
    if tail[-END.size :][:4] != END_MARK or tail[-2:] != b"\0\0":
        end = tail.rfind(END_MARK)  # there is a comment behind it
    if end < 0 or end + END.size > len(tail):
        raise zipfile.BadZipFile
    length: int = END.unpack_from(tail, end)[0]
    if end >= LOCATOR_BYTES and tail[end - LOCATOR_BYTES :][:4] == LOCATOR_MARK:
        end -= LOCATOR_BYTES + END64.size
        if end < 0 or tail[end : end + 4] != END64_MARK:
            raise zipfile.BadZipFile
        length = END64.unpack_from(tail, end)[0]
    if length > DIRECTORY_BYTES:
        raise _too_large()
    file.seek(start + end - length)
    if file.read(length).count(ENTRY_MARK) > MEMBERS:
        raise _too_large()


def _too_large() -> ServiceError:
    return refused(f"Unzipped size must be smaller than {UNPACKED_BYTES} bytes")


def input_of(call: Call, code: Mapping[str, Any], region: str, target: str) -> Input:
    """An archive as an input of a run: the bytes that were taken in, and no others.

    Raises: ServiceError where they are not there any more.
    """
    row = call.app.store.object(_holder(code, region), code["Key"])
    if row is None or _digest(row) != base64.b64decode(code["Sha256"]):
        raise ServiceError("ServiceException", "The code of the function is not there any more.", 500)
    if row.inline is not None:
        return Input(target, data=row.inline)
    call.app.blobs.touch(row.parts[0].sha256)
    return Input(target, blob=call.app.blobs.path(row.parts[0].sha256))


def _digest(row: ObjectRow) -> bytes:
    """The SHA-256 of an object, where one is known of the whole of it."""
    if row.inline is not None:
        return hashlib.sha256(row.inline).digest()
    return bytes.fromhex(row.parts[0].sha256) if len(row.parts) == 1 else b""


def address(call: Call, code: Mapping[str, Any], region: str) -> str:
    """An address at which the archive can be had for ten minutes, signed by the account that holds code."""
    name = _holder(code, region)
    bucket = call.find(buckets.ref_of(name))
    key = call.find(auth.key_ref(bucket.body["_signer"])) if bucket and bucket.parent == OWNER else None
    if key is None:
        return ""
    host = call.headers.get("host") or f"{call.app.settings.host}:{call.app.settings.port}"
    request = AWSRequest("GET", f"http://{host}/{name}/{code['Key']}")
    S3SigV4QueryAuth(
        Credentials(key.name, key.body["SecretAccessKey"]), "s3", region, ADDRESS_S
    ).add_auth(request)
    return str(request.url)


def _establish(call: Call) -> None:
    """Has a bucket for code, and a key that signs its addresses, in the call's change, where there is none yet."""
    name = bucket_of(call.region)
    if call.find(buckets.ref_of(name)) is not None:
        return
    key = auth.make_key(Caller(account=OWNER, arn=f"arn:aws:iam::{OWNER}:root"), call.now)
    call.put(key)
    call.put(
        Document(
            kind=buckets.KIND, account=GLOBAL, region=GLOBAL, name=name, parent=OWNER, created=call.now,
            body={"Name": name, "BucketRegion": call.region, "_settings": {}, "_signer": key.name},
        )
    )  # fmt: skip
