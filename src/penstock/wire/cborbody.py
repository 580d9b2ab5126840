"""CBOR bodies (smithy-rpc-v2-cbor): a small codec of the part of RFC 8949 that the protocol uses.

Shapes are compiled as for JSON: CBOR differs only in blobs (bytes), moments (tag 1) and floats (any).
"""

from __future__ import annotations

import struct
from typing import Any

from penstock.wire.jsonbody import Reader as JsonReader
from penstock.wire.jsonbody import Writer as JsonWriter
from penstock.wire.models import Service
from penstock.wire.values import Malformed

_DEEPEST = 200
_BREAK = object()


class Moment(float):
    """A float that is written with tag 1."""


def encode(value: Any) -> bytes:
    """Writes what JSON can hold, and bytes and Moments, as CBOR."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _encode(value: Any, out: bytearray) -> None:
    if isinstance(value, str):
        raw = value.encode()
        _head(3, len(raw), out)
        out += raw
    elif value is None or isinstance(value, bool):
        out.append(0xF6 if value is None else 0xF5 if value else 0xF4)
    elif isinstance(value, int):
        _head(0, value, out) if value >= 0 else _head(1, -1 - value, out)
    elif isinstance(value, float):
        if isinstance(value, Moment):
            out.append(0xC1)
        out.append(0xFB)
        out += struct.pack(">d", value)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        _head(2, len(value), out)
        out += value
    elif isinstance(value, dict):
        _head(5, len(value), out)
        for key, each in value.items():
            _encode(str(key), out)
            _encode(each, out)
    else:
        _head(4, len(value), out)
        for each in value:
            _encode(each, out)


def _head(major: int, number: int, out: bytearray) -> None:
    top = major << 5
    if number < 24:
        out.append(top | number)
    elif number < 0x100:
        out += bytes((top | 24, number))
    elif number < 0x10000:
        out += struct.pack(">BH", top | 25, number)
    elif number < 0x1_0000_0000:
        out += struct.pack(">BI", top | 26, number)
    else:
        out += struct.pack(">BQ", top | 27, number)


def decode(body: bytes) -> Any:
    """Reads one item; moments come as floats. Raises: Malformed."""
    try:
        value, end = _decode(body, 0, 0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise Malformed("The CBOR body is malformed") from error
    if end != len(body) or value is _BREAK:
        raise Malformed("The CBOR body is malformed")
    return value


def _decode(body: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise Malformed("The CBOR body is nested too deeply")
    first = body[at]
    major, info = first >> 5, first & 31
    if major == 7:
        return _simple(body, at, info)
    if info == 31:
        return _endless(body, at + 1, major, depth)
    number, at = _number(body, at + 1, info)
    if major < 2:
        return (number if major == 0 else -1 - number), at
    if major < 4:
        raw = body[at : at + number]
        if len(raw) != number:
            raise Malformed("The CBOR body ends too early")
        return (raw if major == 2 else raw.decode()), at + number
    if major == 6:
        return _decode(body, at, depth + 1)  # the tag says "moment", and so does the model
    if number > len(body):
        raise Malformed("The CBOR body ends too early")
    return _items(body, at, major, number, depth)


def _items(body: bytes, at: int, major: int, number: int, depth: int) -> tuple[Any, int]:
    held: list[Any] = []
    for _ in range(number if major == 4 else number * 2):
        value, at = _decode(body, at, depth + 1)
        if value is _BREAK:
            raise Malformed("The CBOR body is malformed")
        held.append(value)
    return (held if major == 4 else dict(zip(held[::2], held[1::2], strict=True))), at


def _number(body: bytes, at: int, info: int) -> tuple[int, int]:
    if info < 24:
        return info, at
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(info)
    if width is None or at + width > len(body):
        raise Malformed("The CBOR body is malformed")
    return int.from_bytes(body[at : at + width], "big"), at + width


def _simple(body: bytes, at: int, info: int) -> tuple[Any, int]:
    if info in (20, 21):
        return info == 21, at + 1
    if info in (22, 23):
        return None, at + 1
    if info == 31:
        return _BREAK, at + 1
    form = {25: ">e", 26: ">f", 27: ">d"}.get(info)
    if form is None:
        raise Malformed("The CBOR body is malformed")
    return struct.unpack_from(form, body, at + 1)[0], at + 1 + struct.calcsize(form)


def _endless(body: bytes, at: int, major: int, depth: int) -> tuple[Any, int]:
    held: list[Any] = []
    while True:
        value, at = _decode(body, at, depth + 1)
        if value is _BREAK:
            break
        held.append(value)
    if major == 4:
        return held, at
    if major == 5:
        if len(held) % 2:
            raise Malformed("The CBOR body is malformed")
        return dict(zip(held[::2], held[1::2], strict=True)), at
    if major in (2, 3):
        return (b"" if major == 2 else "").join(held), at
    raise Malformed("The CBOR body is malformed")


def _read_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return value
    raise Malformed("Expected a byte string")


class Reader(JsonReader):
    """As for JSON, but blobs are byte strings."""

    def _entry(self, shape: Any) -> tuple[type, Any]:
        return (bytes, _read_bytes) if shape.type_name == "blob" else super()._entry(shape)


class Writer(JsonWriter):
    """As for JSON, but moments are tagged and floats need no words."""

    def compile(self, shape: Any) -> Any:
        if shape.type_name == "timestamp":
            return Moment
        if shape.type_name in ("float", "double"):
            return float
        return super().compile(shape)


def reader(service: Service) -> Reader:
    """Gives the service's reader of CBOR, made when first asked for."""
    return service.compiler(Reader)


def writer(service: Service) -> Writer:
    """Gives the service's writer of CBOR, made when first asked for."""
    return service.compiler(Writer)
