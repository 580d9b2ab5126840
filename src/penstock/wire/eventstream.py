"""Event streams of answers (application/vnd.amazon.eventstream): each event is a framed message with two checksums."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from penstock.wire.models import Operation
from penstock.wire.xmlbody import writer as xml_writer


def message(headers: Mapping[str, Any], payload: bytes) -> bytes:
    """Frames one message: prelude, headers, payload, checksums."""
    block = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    head = prelude + struct.pack(">I", crc32(prelude)) + block + payload
    return head + struct.pack(">I", crc32(head))


def _header(name: str, value: Any) -> bytes:
    raw = name.encode()
    start = bytes((len(raw),)) + raw
    if isinstance(value, bool):
        return start + (b"\x00" if value else b"\x01")
    if isinstance(value, int):
        return start + (b"\x04" + struct.pack(">i", value) if -(2**31) <= value < 2**31 else _long(value))
    if isinstance(value, float):
        return start + b"\x08" + struct.pack(">q", round(value * 1000))
    kind = b"\x06" if isinstance(value, bytes) else b"\x07"
    text = value if isinstance(value, bytes) else str(value).encode()
    return start + kind + struct.pack(">H", len(text)) + text


def _long(value: int) -> bytes:
    return b"\x05" + struct.pack(">q", value)


Body = Callable[[Any, Any], bytes]
"""A shape and its value as the bytes of the service's protocol."""


def stream(operation: Operation, events: Iterable[Mapping[str, Any]], body: Body, content_type: str) -> Iterator[bytes]:
    """Frames events of the operation's stream, each {"its name": its members}, as they come.

    A member of the union that is an error ends the stream as an exception.
    """
    assert operation.event_stream is not None
    union = operation.output.members[operation.event_stream]
    for event in events:
        for name, value in event.items():
            shape = union.members[name]
            kind = "exception" if shape.metadata.get("exception") else "event"
            yield _event(name, kind, shape, value, body, content_type)


def initial(payload: bytes, content_type: str) -> bytes:
    """Frames what json protocols send first: the members that are no events."""
    headers = {":message-type": "event", ":event-type": "initial-response", ":content-type": content_type}
    return message(headers, payload)


def _event(name: str, kind: str, shape: Any, value: Mapping[str, Any], body: Body, content_type: str) -> bytes:
    headers: dict[str, Any] = {":message-type": kind, f":{kind}-type": name}
    payload: bytes | None = None
    rest = {}
    for member, each in value.items():
        traits = shape.members.get(member)
        if traits is None or each is None:
            continue
        if traits.serialization.get("eventheader"):
            headers[member] = each
        elif traits.serialization.get("eventpayload"):
            payload, headers[":content-type"] = _payload(traits, each, body, content_type)
        else:
            rest[member] = each
    if payload is None:
        payload = body(shape, rest) if shape.members else b""
        headers[":content-type"] = content_type
    return message(headers, payload)


def _payload(shape: Any, value: Any, body: Body, content_type: str) -> tuple[bytes, str]:
    if shape.type_name == "blob":
        return (value.encode() if isinstance(value, str) else bytes(value)), "application/octet-stream"
    if shape.type_name == "string":
        return str(value).encode(), "text/plain"
    return body(shape, value), content_type


def json_body(operation: Operation, convert: Callable[[Any], Callable[[Any], Any] | None]) -> Body:
    """Gives the body function of the json protocols."""

    def body(shape: Any, value: Any) -> bytes:
        write = convert(shape)
        return msgspec.json.encode(write(value) if write is not None else value)

    return body


def xml_body(operation: Operation) -> Body:
    """Gives the body function of rest-xml: an element named after the shape."""
    writer = xml_writer(operation.service)

    def body(shape: Any, value: Any) -> bytes:
        parts: list[str] = []
        writer.element(shape, shape.serialization.get("name", shape.name))(value, parts.append)
        return "".join(parts).encode()

    return body
