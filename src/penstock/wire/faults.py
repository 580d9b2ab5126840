"""Error answers, in each protocol's own form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.wire import cborbody, jsonbody, xmlbody
from penstock.wire.message import Reply, Request
from penstock.wire.models import Operation, Service
from penstock.wire.rest import Outgoing


class BadRequest(Exception):
    """The bytes of a request are not what its protocol says; answered before any operation runs."""

    def __init__(self, code: str, message: str, status: int = 400):
        self.code, self.message, self.status = code, message, status
        super().__init__(f"{code}: {message}")


_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_UNDECODABLE = {
    "query": "MalformedInput",
    "rest-xml": "MalformedXML",
}
S3_MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"


def undecodable(protocol: str, message: str) -> BadRequest:
    """Gives the error for a body or a value that cannot be decoded."""
    code = _UNDECODABLE.get(protocol, "SerializationException")
    return BadRequest(code, S3_MALFORMED if code == "MalformedXML" else message)


def shape_of(service: Service | None, code: str) -> Any:
    """Gives the modelled error shape of a code (or of the shape's own name), or None."""
    return service.errors.get(code) if service is not None else None


def status_of(service: Service | None, code: str) -> int:
    """Gives the status that the model says for an error code; 400 where it says none."""
    shape = shape_of(service, code)
    error = shape.metadata.get("error", {}) if shape is not None else {}
    return int(error.get("httpStatusCode", 500 if shape is not None and shape.metadata.get("fault") else 400))


def spoken(service: Service | None, request: Request) -> str:
    """Gives the protocol that a request speaks: the service's only one, or of several the one its headers show."""
    if service is not None and len(service.protocols) == 1:
        return service.protocol
    headers = request.headers
    kind = headers.get("content-type", "")
    if headers.get("smithy-protocol") == "rpc-v2-cbor" or kind.startswith("application/cbor"):
        shown = "smithy-rpc-v2-cbor"
    elif "x-amz-target" in headers or kind.startswith("application/x-amz-json"):
        shown = "json"
    elif kind.startswith("application/x-www-form-urlencoded") or "Action=" in request.query:
        shown = "query"
    else:
        shown = "rest-json" if kind.startswith("application/json") else "rest-xml"
    return shown if service is None or shown in service.protocols else service.protocol


def answer(
    service: Service | None,
    operation: Operation | None,
    code: str,
    message: str,
    status: int,
    members: Mapping[str, Any],
    request_id: str,
    protocol: str | None = None,
) -> Reply:
    """Gives the reply that tells a client of an error."""
    protocol = protocol or (service.protocol if service is not None else "json")
    shape = shape_of(service, code)
    wire_code = _wire_code(shape, code, protocol)
    if protocol == "rest-xml":
        return _rest_xml(service, operation, shape, wire_code, message, status, members, request_id)
    if protocol == "query":
        return _query(service, shape, wire_code, message, status, members, request_id)
    return _json(service, shape, wire_code, message, status, members, request_id, protocol)


def _wire_code(shape: Any, code: str, protocol: str) -> str:
    if shape is None:
        return code
    return str(shape.error_code if protocol in ("query", "rest-xml") else shape.name)


def _json(
    service: Service | None,
    shape: Any,
    code: str,
    message: str,
    status: int,
    members: Mapping[str, Any],
    request_id: str,
    protocol: str,
) -> Reply:
    cbor = protocol == "smithy-rpc-v2-cbor"
    word = "Message" if shape is not None and "Message" in shape.members else "message"
    out = Outgoing(shape)
    body: dict[str, Any] = {} if protocol == "rest-json" else {"__type": _type(service, shape, code)}
    body[word] = message
    body.update(_members(service, shape, {k: v for k, v in members.items() if k not in out.elsewhere}, cbor))
    version = service.json_version if service is not None and protocol == "json" else "1.1"
    headers = {"x-amzn-requestid": request_id, "content-type": f"application/x-amz-json-{version}"}
    if cbor:
        headers.update({"content-type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"})
    else:
        headers["x-amzn-errortype"] = str(body.get("__type", code))
    if protocol == "rest-json":
        headers["content-type"] = "application/json"
    if service is not None and service.query_compatible:
        sender = "Sender" if status < 500 else "Receiver"
        headers["x-amzn-query-error"] = f"{shape.error_code if shape is not None else code};{sender}"
    out.write(members, headers)
    return Reply(status, headers, cborbody.encode(body) if cbor else msgspec.json.encode(body))


def _type(service: Service | None, shape: Any, code: str) -> str:
    """An error's name; of services that once spoke the query protocol with its namespace, as clients are shown it."""
    return f"com.amazonaws.{service.name}#{code}" if service is not None and service.query_compatible and shape is not None else code


def _members(service: Service | None, shape: Any, members: Mapping[str, Any], cbor: bool) -> dict[str, Any]:
    if shape is None or service is None:
        return {name: value for name, value in members.items() if value is not None}
    write = (cborbody.writer(service) if cbor else jsonbody.writer(service)).compile(shape)
    known: dict[str, Any] = write(members) if write is not None else {}
    return known


def _elements(service: Service | None, shape: Any, members: Mapping[str, Any]) -> str:
    parts: list[str] = []
    out = Outgoing(shape)
    held = {k: v for k, v in members.items() if k not in out.elsewhere and k.lower() not in ("code", "message")}
    if service is not None and shape is not None:
        known = {k: v for k, v in held.items() if k in shape.members}
        xmlbody.writer(service).content(shape)(known, parts.append)
        held = {k: v for k, v in held.items() if k not in known}
    for name, value in held.items():
        if value is not None and not name.startswith("_"):
            parts.append(f"<{name}>{_text(str(value))}</{name}>")
    return "".join(parts)


def _text(text: str) -> str:
    """Gives an element's text; what no XML can hold becomes the sign for that, so that every parser reads the error."""
    return xmlbody.escape(_NO_XML.sub("\ufffd", text))


def _query(
    service: Service | None,
    shape: Any,
    code: str,
    message: str,
    status: int,
    members: Mapping[str, Any],
    request_id: str,
) -> Reply:
    namespace = f' xmlns="{service.xml_namespace}"' if service is not None and service.xml_namespace else ""
    word = "Message"
    body = (
        f"<ErrorResponse{namespace}><Error><Type>{'Sender' if status < 500 else 'Receiver'}</Type>"
        f"<Code>{_text(code)}</Code><{word}>{_text(message)}</{word}>"
        f"{_elements(service, shape, members)}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Reply(status, {"x-amzn-requestid": request_id, "content-type": "text/xml"}, body.encode())


def _rest_xml(
    service: Service | None,
    operation: Operation | None,
    shape: Any,
    code: str,
    message: str,
    status: int,
    members: Mapping[str, Any],
    request_id: str,
) -> Reply:
    host = host_id(request_id)
    headers = {"x-amz-request-id": request_id, "x-amz-id-2": host, "content-type": "application/xml"}
    Outgoing(shape).write(members, headers)
    headers.update(members.get("_headers", {}))
    if status in (204, 304) or (operation is not None and operation.method == "HEAD"):
        del headers["content-type"]
        return Reply(status, headers, b"")
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{_text(code)}</Code><Message>{_text(message)}</Message>"
        f"{_elements(service, shape, members)}"
        f"<RequestId>{request_id}</RequestId><HostId>{host}</HostId></Error>"
    )
    return Reply(status, headers, body.encode())


def host_id(request_id: str) -> str:
    """Gives S3's second request id: one machine has nothing to tell by it."""
    return f"penstock/{request_id}"
