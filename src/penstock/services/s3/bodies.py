"""Bodies: what came in and whether it is what the client meant, and how an object's bytes go out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.blobs import checksums
from penstock.blobs.base import Blobs, Received
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import rules
from penstock.store.records import ObjectRow, Part

MEMBERS = {algorithm: f"Checksum{algorithm}" for algorithm in checksums.ALGORITHMS}
"""The member that holds each algorithm's checksum."""


# --- in


def receive(call: Call) -> Received:
    """Gives what became of the call's body: the front has streamed it into the blobs; a call in process brings bytes.

    Raises: ServiceError EntityTooLarge.
    """
    given = call.params.get("Body")
    if not isinstance(given, Received):
        receiver = call.app.blobs.receive((algorithm_of(call.params),))
        receiver.write(given.encode() if isinstance(given, str) else given or b"")
        given = receiver.finish()
    if given.size_bytes > rules.PUT_BYTES:
        sentence = "Your proposed upload exceeds the maximum allowed size"
        limits = {"ProposedSize": given.size_bytes, "MaxSizeAllowed": rules.PUT_BYTES}
        raise ServiceError("EntityTooLarge", sentence, 400, **limits)
    check_md5(call.params.get("ContentMD5"), given.md5)
    return given


def check_md5(given: str | None, md5: str) -> None:
    """Holds a Content-MD5 against the body's. Raises: ServiceError InvalidDigest, BadDigest."""
    if given is None:
        return
    try:
        digest = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise ServiceError("InvalidDigest", "The Content-MD5 you specified was invalid.", 400, **{"Content-MD5": given})
    if digest.hex() != md5:
        sentence = "The Content-MD5 you specified did not match what we received."
        calculated = checksums.encode_hex(md5)
        raise ServiceError("BadDigest", sentence, 400, ExpectedDigest=given, CalculatedDigest=calculated)


def given_checksum(params: Mapping[str, Any]) -> tuple[str, str] | None:
    """Gives the (algorithm, checksum) that a request brings, or None. Raises: ServiceError InvalidRequest."""
    found = [(name, params[member]) for name, member in MEMBERS.items() if params.get(member) is not None]
    if not found:
        return None
    if len(found) > 1:
        sentence = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise ServiceError("InvalidRequest", sentence)
    algorithm, text = found[0]
    if not checksums.valid(algorithm, text.partition("-")[0]):
        raise ServiceError("InvalidRequest", f"Value for x-amz-checksum-{algorithm.lower()} header is invalid.")
    return algorithm, text


def algorithm_of(params: Mapping[str, Any]) -> str:
    """The checksum algorithm that a put is kept under."""
    given = given_checksum(params)
    return given[0] if given else params.get("ChecksumAlgorithm") or checksums.DEFAULT


def verify(call: Call, received: Received, algorithm: str) -> str:
    """Gives the body's checksum by that algorithm, after holding what the client sent against it.

    Raises: ServiceError BadDigest.
    """
    given = given_checksum(call.params)
    if given and given[1] != checksum_of(call.app.blobs, received, given[0]):
        raise bad_digest(given[0])
    return checksum_of(call.app.blobs, received, algorithm)


def bad_digest(algorithm: str) -> ServiceError:
    """The answer to a checksum that is not the body's."""
    return ServiceError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def checksum_of(blobs: Blobs, received: Received, algorithm: str) -> str:
    """Gives a checksum of what was received, reading it again only where nobody asked in time."""
    if algorithm in received.checksums:
        return received.checksums[algorithm]
    pieces = [received.inline] if received.inline is not None else blobs.read(received.sha256)
    return checksums.compute(algorithm, pieces)


def fill(row: ObjectRow, received: Received) -> None:
    """Lets a row hold what was received."""
    row.etag, row.size_bytes, row.inline = received.md5, received.size_bytes, received.inline
    row.parts = [] if received.inline is not None else [Part(received.sha256, received.size_bytes)]


def same_bytes(blobs: Blobs, row: ObjectRow, length: int, algorithm: str) -> Received | None:
    """What an object would be received as again, without a look at its bytes; None where that is not known."""
    checksum = row.meta.get(MEMBERS[algorithm])
    if length != row.size_bytes or len(row.parts) != 1 or "-" in row.etag or checksum is None:
        return None
    blobs.touch(row.parts[0].sha256)
    return Received(row.size_bytes, row.parts[0].sha256, row.etag, None, {algorithm: checksum})


def read_again(blobs: Blobs, row: ObjectRow, start: int, length: int, algorithm: str) -> Received:
    """Receives a range of an object's bytes as if a client had sent them."""
    receiver = blobs.receive((algorithm,))
    try:
        pieces = read_row(blobs, row, start, length)
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            receiver.write(piece)
        return receiver.finish()
    finally:
        receiver.abandon()


# --- out


def read_row(blobs: Blobs, row: ObjectRow, start: int = 0, length: int | None = None) -> bytes | Iterator[bytes]:
    """Gives an object's bytes, or a range of them: at once when they are in the row, else lazily in constant memory."""
    length = row.size_bytes - start if length is None else length
    if row.inline is not None:
        return row.inline[start : start + length]
    wanted = rules.cut([part.size_bytes for part in row.parts], start, length)
    if not wanted:
        return b""
    index, begin, size_bytes = wanted[0]
    first = blobs.read(row.parts[index].sha256, begin, size_bytes)
    return first if len(wanted) == 1 else _read_on(blobs, row.parts, first, wanted[1:])


def _read_on(
    blobs: Blobs, parts: list[Part], first: Iterator[bytes], wanted: list[tuple[int, int, int]]
) -> Iterator[bytes]:
    """The chunks of several parts; what is opened later is touched after the first, out of the event loop.

    An overwrite must not take a part away while we read the ones before it.
    """
    yield next(first)
    for sha256 in dict.fromkeys(parts[index].sha256 for index, _, _ in wanted):
        blobs.touch(sha256)
    yield from first
    for index, begin, size_bytes in wanted:
        yield from blobs.read(parts[index].sha256, begin, size_bytes)


def part_sizes(row: ObjectRow) -> list[int]:
    """The sizes of the parts an object was uploaded in; one for an object put at once."""
    if "-" not in row.etag:
        return [row.size_bytes]
    return row.meta.get("_sizes") or [part.size_bytes for part in row.parts]


def part_checksum(row: ObjectRow, number: int) -> dict[str, str]:
    """The checksum members of one part, where the client chose a checksum for them."""
    sums = row.meta.get("_sums")
    if not sums:
        return {}
    member = next(name for name in row.meta if name in MEMBERS.values())
    return {member: sums[number - 1], "ChecksumType": row.meta["ChecksumType"]}
