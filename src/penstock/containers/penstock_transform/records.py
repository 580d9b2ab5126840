"""Files as records, and records as the bodies of requests. Pure functions over open files."""

import struct
from typing import BinaryIO, Iterator, List, Optional

RECORDIO_MAGIC = 0xCED7230A
LENGTH_MASK = (1 << 29) - 1
ENDLESS_BYTES = 1 << 40


class Unsplittable(Exception):
    """A file that is not what SplitType says, or has a record that no request can hold."""


def bodies(file: BinaryIO, split: str, single: bool, limit_bytes: int) -> Iterator[bytes]:
    """The bodies of a file's requests, in order; none for an empty file.

    Takes: `split`, None, Line, RecordIO or TFRecord; `single`, a record a request; `limit_bytes`, of a body.
    Raises: Unsplittable.
    """
    if split == "Line":
        yield from (_lines(file, limit_bytes) if single else _blocks_of_lines(file, limit_bytes))
    elif split in ("RecordIO", "TFRecord"):
        found = _recordio(file) if split == "RecordIO" else _tfrecords(file)
        yield from (_checked(found, limit_bytes) if single else _batches(found, limit_bytes))
    else:
        whole = file.read(limit_bytes + 1)
        if len(whole) > limit_bytes:
            raise Unsplittable(
                f"the object is larger than MaxPayloadInMB ({_mb(limit_bytes)} MB) and SplitType is None; "
                "raise MaxPayloadInMB, or split it by Line"
            )
        if whole:
            yield whole


def _blocks_of_lines(file: BinaryIO, limit_bytes: int) -> Iterator[bytes]:
    """As many whole lines as fit into a request."""
    rest = b""
    while True:
        block = file.read(limit_bytes - len(rest))
        whole = rest + block if rest else block
        if not whole:
            return
        if len(whole) < limit_bytes:  # the file's end
            yield whole
            return
        end = whole.rfind(b"\n") + 1
        if not end:
            raise Unsplittable(_too_long(limit_bytes))
        yield whole[:end] if end < len(whole) else whole
        rest = whole[end:]


def _lines(file: BinaryIO, limit_bytes: int) -> Iterator[bytes]:
    """Each line without its end; empty ones are no records."""
    for line in file:
        record = line.rstrip(b"\r\n")
        if len(record) > limit_bytes:
            raise Unsplittable(_too_long(limit_bytes))
        if record:
            yield record


def _too_long(limit_bytes: int) -> str:
    return f"a record is larger than MaxPayloadInMB ({_mb(limit_bytes)} MB); raise it, or look at SplitType"


def _mb(limit_bytes: int) -> int:
    return limit_bytes >> 20


def _recordio(file: BinaryIO) -> Iterator[bytes]:
    """Whole RecordIO records, with their heads."""
    at = 0
    while True:
        head = file.read(8)
        if not head:
            return
        magic, length = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
        if magic != RECORDIO_MAGIC:
            raise Unsplittable(f"SplitType is RecordIO, but there is no RecordIO record at byte {at}")
        size = (length & LENGTH_MASK) + 3 & ~3
        yield head + _exactly(file, size, at)
        at += 8 + size


def _tfrecords(file: BinaryIO) -> Iterator[bytes]:
    """Whole TFRecords: length, its checksum, data, their checksum."""
    at = 0
    while True:
        head = file.read(12)
        if not head:
            return
        length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else ENDLESS_BYTES
        if length >= ENDLESS_BYTES:
            raise Unsplittable(f"SplitType is TFRecord, but there is no TFRecord at byte {at}")
        yield head + _exactly(file, length + 4, at)
        at += 12 + length + 4


def _exactly(file: BinaryIO, size: int, at: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Unsplittable(f"the record at byte {at} is cut off: the file ends in it")
    return data


def _checked(found: Iterator[bytes], limit_bytes: int) -> Iterator[bytes]:
    for record in found:
        if len(record) > limit_bytes:
            raise Unsplittable(_too_long(limit_bytes))
        yield record


def _batches(found: Iterator[bytes], limit_bytes: int) -> Iterator[bytes]:
    held: List[bytes] = []
    size = 0
    for record in _checked(found, limit_bytes):
        if held and size + len(record) > limit_bytes:
            yield b"".join(held)
            held, size = [], 0
        held.append(record)
        size += len(record)
    if held:
        yield b"".join(held)


def joined(answer: bytes, assemble: Optional[str]) -> bytes:
    """An answer as it stands in the file: with a line's end where AssembleWith is Line."""
    return answer + b"\n" if assemble == "Line" and answer and not answer.endswith(b"\n") else answer
