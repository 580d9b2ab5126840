"""The protocols: a request as parameters, a result as a reply. One codec per operation and protocol.

A result may hold members that the output shape does not have: they are dropped. Two of them are heard: `_status` is the
reply's status instead of the model's, `_headers` are further headers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from penstock.wire import cborbody, eventstream, jsonbody, querybody, quirks, xmlbody
from penstock.wire.faults import S3_MALFORMED, BadRequest, host_id, spoken, status_of, undecodable
from penstock.wire.faults import answer as error
from penstock.wire.message import Headers, Reply, Request
from penstock.wire.models import Operation
from penstock.wire.rest import Bindings
from penstock.wire.values import Malformed

__all__ = ["S3_MALFORMED", "BadRequest", "error", "parse", "reply", "spoken", "status_of"]

_INFLATED_BYTES = 256 * 1024 * 1024
"""A compressed body may not become larger."""

_json = msgspec.json.Encoder()
_read_json = msgspec.json.Decoder()


def parse(operation: Operation, request: Request, protocol: str | None = None) -> dict[str, Any]:
    """Gives the parameters of a request. Raises: BadRequest for bytes that cannot be decoded."""
    if protocol is None:
        service = operation.service
        protocol = service.protocol if len(service.protocols) == 1 else spoken(service, request)
    try:
        return _codec(operation, protocol).parse(request)
    except Malformed as wrong:
        raise undecodable(protocol, str(wrong)) from wrong
    except RecursionError as wrong:
        raise undecodable(protocol, "The body is nested too deeply") from wrong


def reply(operation: Operation, result: Mapping[str, Any], request_id: str, protocol: str | None = None) -> Reply:
    """Gives the reply of an operation that succeeded; `protocol` as `spoken` says, where the service has several."""
    made = _codec(operation, protocol or operation.service.protocol).reply(result, request_id)
    if "_status" in result:
        made.status = int(result["_status"])
    if "_headers" in result:
        made.headers.update(result["_headers"])
    return made


def _codec(operation: Operation, protocol: str) -> Codec:
    found: Codec | None = operation.codecs.get(protocol)
    if found is None:
        found = operation.codecs[protocol] = _CODECS[protocol](operation)
    return found


def _inflated(request: Request) -> bytes:
    if request.headers.get("content-encoding") != "gzip":
        return request.body
    try:
        inflater = zlib.decompressobj(31)
        body = inflater.decompress(request.body, _INFLATED_BYTES)
    except zlib.error as wrong:
        raise Malformed("The gzip body is malformed") from wrong
    if not inflater.eof:
        raise Malformed("The gzip body is truncated or too large")
    return body


class Codec:
    """One operation in one protocol."""

    def __init__(self, operation: Operation):
        self.operation = operation
        if operation.event_input is not None:
            raise BadRequest("NotImplemented", f"{operation.name} takes a stream of events, which is not served", 501)

    def parse(self, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def reply(self, result: Mapping[str, Any], request_id: str) -> Reply:
        raise NotImplementedError


class Json(Codec):
    """json 1.0 and 1.1: the body is the input, X-Amz-Target names the operation."""

    def __init__(self, operation: Operation):
        super().__init__(operation)
        service = operation.service
        self._content_type = f"application/x-amz-json-{service.json_version}"
        self._read = jsonbody.reader(service).compile(operation.input) if operation.input is not None else None
        self._write = jsonbody.writer(service).compile(operation.output) if operation.output is not None else None

    def parse(self, request: Request) -> dict[str, Any]:
        body = _inflated(request)
        if self._read is None or not body:
            return {}
        return self._read(_decoded(body))  # type: ignore[no-any-return]

    def reply(self, result: Mapping[str, Any], request_id: str) -> Reply:
        headers = {"x-amzn-requestid": request_id, "content-type": self._content_type}
        if self.operation.event_stream is not None:
            return _stream(self.operation, result, headers, self._content_type)
        body = _json.encode(self._write(result)) if self._write is not None else b""
        return Reply(self.operation.status, headers, body)


def _decoded(body: bytes) -> Any:
    try:
        return _read_json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:  # the latter for text that is not UTF-8
        raise Malformed("Unable to parse the request body as JSON") from wrong


def _stream(operation: Operation, result: Mapping[str, Any], headers: Headers, content_type: str) -> Reply:
    body = eventstream.json_body(operation, jsonbody.writer(operation.service).compile)
    name = operation.event_stream or ""
    first = {key: value for key, value in result.items() if key != name}

    def frames() -> Iterator[bytes]:
        yield eventstream.initial(body(operation.output, first), content_type)
        yield from eventstream.stream(operation, result.get(name, ()), body, content_type)

    return Reply(operation.status, {**headers, "content-type": "application/vnd.amazon.eventstream"}, frames())


class Cbor(Codec):
    """smithy-rpc-v2-cbor: the body is the input, the path names the operation."""

    def __init__(self, operation: Operation):
        super().__init__(operation)
        service = operation.service
        self._read = cborbody.reader(service).compile(operation.input) if operation.input is not None else None
        self._write = cborbody.writer(service).compile(operation.output) if operation.output is not None else None

    def parse(self, request: Request) -> dict[str, Any]:
        body = _inflated(request)
        if self._read is None or not body:
            return {}
        return self._read(cborbody.decode(body))  # type: ignore[no-any-return]

    def reply(self, result: Mapping[str, Any], request_id: str) -> Reply:
        headers = {
            "x-amzn-requestid": request_id,
            "content-type": "application/cbor",
            "smithy-protocol": "rpc-v2-cbor",
        }
        body = cborbody.encode(self._write(result) if self._write is not None else {})
        return Reply(self.operation.status, headers, body)


class Query(Codec):
    """query: form parameters in, XML out."""

    def __init__(self, operation: Operation):
        service, name = operation.service.query_face, operation.name
        operation = service.operations[name]
        super().__init__(operation)
        self._read = querybody.reader(service).compile(operation.input) if operation.input is not None else None
        namespace = f' xmlns="{service.xml_namespace}"' if service.xml_namespace else ""
        self._start, self._end = f"<{name}Response{namespace}>", f"</{name}Response>"
        self._content: xmlbody.Write | None = None
        if operation.output is not None:
            wrapper = operation.output.serialization.get("resultWrapper", f"{name}Result")
            self._content = xmlbody.writer(service).content(operation.output)
            self._start += f"<{wrapper}>"
            self._end = f"</{wrapper}>" + "<ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata>" + self._end
        else:
            self._end = "<ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata>" + self._end

    def parse(self, request: Request) -> dict[str, Any]:
        if self._read is None:
            return {}
        given = querybody.pairs(request.query)
        body = _inflated(request)
        if body:
            given += querybody.pairs(_utf8(body))
        tree = querybody.tree([(name, value) for name, value in given if name not in ("Action", "Version")])
        return self._read(tree)  # type: ignore[no-any-return]

    def reply(self, result: Mapping[str, Any], request_id: str) -> Reply:
        parts = [self._start]
        if self._content is not None:
            self._content(result, parts.append)
        parts.append(self._end.format(request_id))
        headers = {"x-amzn-requestid": request_id, "content-type": "text/xml"}
        return Reply(self.operation.status, headers, "".join(parts).encode())


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as wrong:
        raise Malformed("The body is not UTF-8") from wrong


class Rest(Codec):
    """What rest-json and rest-xml share: members in path, query, headers and status."""

    content_type = ""

    def __init__(self, operation: Operation):
        super().__init__(operation)
        self._bindings = Bindings(operation)
        self._payload = self._bindings.payload
        shape = operation.input.members[self._payload] if self._payload else operation.input
        self._payload_kind = shape.type_name if shape is not None else ""
        self._read: Callable[[bytes], Any] | None = None
        if shape is not None and self._payload_kind not in ("blob", "string"):
            self._read = self._reader(shape)
        self._compressed = operation.model.request_compression is not None

    def _reader(self, shape: Any) -> Callable[[bytes], Any]:
        raise NotImplementedError

    def _body(self, result: Mapping[str, Any], headers: Headers) -> bytes | Iterator[bytes]:
        raise NotImplementedError

    def _outside(self, request: Request) -> dict[str, Any]:
        """The members that are not in the body."""
        return self._bindings.read(request)

    def parse(self, request: Request) -> dict[str, Any]:
        found = self._outside(request)
        if self._payload is not None:
            if self._payload_kind == "blob":
                if request.upload is not None or request.body:
                    found[self._payload] = request.body if request.upload is None else request.upload
                return found
            if self._payload_kind == "string":
                if request.body:
                    found[self._payload] = _utf8(request.body)
                return found
        if self._read is None or not self._bindings.body_members:
            return found
        body = _inflated(request) if self._compressed else request.body
        if not body:
            return found
        value = self._read(body)
        if self._payload is not None:
            if value or self._payload in self.operation.required:  # an empty one is how clients leave it out
                found[self._payload] = value
        else:
            found.update((k, v) for k, v in value.items() if k in self._bindings.body_members)
        return found

    def reply(self, result: Mapping[str, Any], request_id: str) -> Reply:
        headers = self._first_headers(request_id)
        out = self._bindings.out
        out.write(result, headers)
        status = self.operation.status
        if out.status is not None and result.get(out.status) is not None:
            status = int(result[out.status])
        if self.operation.method == "HEAD" or self.operation.output is None:
            return Reply(status, headers, b"")
        given = headers.get("content-type")
        body = self._body(result, headers)
        if given is not None:
            headers["content-type"] = given
        return Reply(status, headers, body)

    def _first_headers(self, request_id: str) -> Headers:
        return {"x-amzn-requestid": request_id}

    def _raw(self, result: Mapping[str, Any], headers: Headers) -> bytes | Iterator[bytes] | None:
        """The payload that is bytes or text itself, or None where the payload is a structure."""
        out = self._bindings.out
        if out.payload is None or self.operation.output.members[out.payload].type_name not in ("blob", "string"):
            return None
        value = result.get(out.payload)
        if value is None:
            return b""
        if isinstance(value, str):
            return value.encode()
        return value if isinstance(value, bytes) else iter(value)


class RestJson(Rest):
    """rest-json."""

    def __init__(self, operation: Operation):
        super().__init__(operation)
        writer = jsonbody.writer(operation.service)
        self._streamed = eventstream.json_body(operation, writer.compile)
        payload = self._bindings.out.payload
        self._write = None
        if operation.output is not None:
            self._write = writer.compile(operation.output.members[payload] if payload else operation.output)

    def _reader(self, shape: Any) -> Callable[[bytes], Any]:
        read = jsonbody.reader(self.operation.service).compile(shape)
        return lambda body: read(_decoded(body))

    def _body(self, result: Mapping[str, Any], headers: Headers) -> bytes | Iterator[bytes]:
        operation = self.operation
        if operation.event_stream is not None:
            headers["content-type"] = "application/vnd.amazon.eventstream"
            events = result.get(operation.event_stream, ())
            return eventstream.stream(operation, events, self._streamed, "application/json")
        raw = self._raw(result, headers)
        if raw is not None:
            return raw
        headers["content-type"] = "application/json"
        out = self._bindings.out
        if out.payload is not None:
            value = result.get(out.payload)
            if value is None:
                return b""
            return _json.encode(self._write(value) if self._write is not None else value)
        held = {k: v for k, v in result.items() if k in out.body_members} if out.elsewhere else result
        return _json.encode(self._write(held) if self._write is not None else held)


class RestXml(Rest):
    """rest-xml, as S3 speaks it."""

    def __init__(self, operation: Operation):
        super().__init__(operation)
        self._s3 = operation.service.endpoint_prefix == "s3"
        self._element: xmlbody.Write | None = None
        self._start = self._end = ""
        if operation.output is not None:
            self._compile_output(operation)

    def _compile_output(self, operation: Operation) -> None:
        writer, out = xmlbody.writer(operation.service), self._bindings.out
        if out.payload is not None:
            shape = operation.output.members[out.payload]
            if shape.type_name == "structure" and operation.event_stream is None:
                self._element = writer.content(shape)
                self._wrap(shape.serialization.get("name", shape.name))
            return
        self._element = writer.content(operation.output, skip=out.elsewhere)
        name = quirks.ROOTS.get(operation.name) if self._s3 else None
        self._wrap(name or operation.output.serialization.get("name", operation.output.name))

    def _wrap(self, name: str) -> None:
        namespace = self.operation.service.xml_namespace or (quirks.S3_NAMESPACE if self._s3 else "")
        attribute = f' xmlns="{namespace}"' if namespace else ""
        self._start = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{attribute}>'
        self._end = f"</{name}>"

    def _reader(self, shape: Any) -> Callable[[bytes], Any]:
        read = xmlbody.reader(self.operation.service).compile(shape)
        return lambda body: read(xmlbody.parse_root(body))

    def _outside(self, request: Request) -> dict[str, Any]:
        try:
            return self._bindings.read(request)
        except Malformed as wrong:  # what is outside the body is no XML
            raise BadRequest("InvalidArgument", str(wrong)) from wrong

    def _first_headers(self, request_id: str) -> Headers:
        return {"x-amz-request-id": request_id, "x-amz-id-2": host_id(request_id)}

    def _body(self, result: Mapping[str, Any], headers: Headers) -> bytes | Iterator[bytes]:
        operation, out = self.operation, self._bindings.out
        if operation.event_stream is not None:
            headers["content-type"] = "application/vnd.amazon.eventstream"
            events = result.get(operation.event_stream, ())
            return eventstream.stream(operation, events, eventstream.xml_body(operation), "text/xml")
        raw = self._raw(result, headers)
        if raw is not None:
            return raw
        value = result if out.payload is None else result.get(out.payload)
        if value is None or self._element is None or (out.payload is None and not out.body_members):
            return b""
        headers["content-type"] = "application/xml"
        if self._s3 and operation.name in quirks.UNWRAPPED:
            return self._unwrapped(value)
        parts = [self._start]
        self._element(value, parts.append)
        parts.append(self._end)
        return "".join(parts).encode()

    def _unwrapped(self, value: Mapping[str, Any]) -> bytes:
        name = quirks.UNWRAPPED[self.operation.name]
        text = xmlbody.escape(str(value.get(name) or ""))
        head = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{quirks.S3_NAMESPACE}">'
        return f"{head}{text}</{name}>".encode()


_CODECS: dict[str, Callable[[Operation], Codec]] = {
    "json": Json,
    "smithy-rpc-v2-cbor": Cbor,
    "query": Query,
    "rest-json": RestJson,
    "rest-xml": RestXml,
}
