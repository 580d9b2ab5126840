"""REST bindings: which members of an operation travel in path, query, headers, status, and which in the body.

Compiled once per operation; the body's own form (JSON or XML) is the caller's.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from penstock.wire.message import Headers, Request
from penstock.wire.models import Operation
from penstock.wire.querybody import pairs
from penstock.wire.values import (
    Malformed,
    float_text,
    moment_text,
    read_base64,
    read_boolean,
    read_float,
    read_integer,
    read_moment,
    rfc822,
)

FromText = Callable[[str], Any]
ToText = Callable[[Any], str]

_FROM: dict[str, FromText] = {
    "string": str,
    "character": str,
    "boolean": read_boolean,
    "integer": read_integer,
    "long": read_integer,
    "float": read_float,
    "double": read_float,
    "timestamp": read_moment,
    "blob": read_base64,
}


class Template:
    """A request URI's path, compiled: constant pieces and labels, of which one may be greedy ("{Key+}")."""

    def __init__(self, uri: str):
        path, _, query = uri.partition("?")
        self.pieces: list[tuple[bool, str]] = [_piece(each) for each in path.strip("/").split("/") if each]
        self.greedy: str = self.pieces[-1][1] if "+}" in path else ""
        self.statics: list[tuple[str, str | None]] = []
        for pair in query.split("&") if query else ():
            name, equals, value = pair.partition("=")
            self.statics.append((name, value if equals else None))

    def match(self, path: str) -> dict[str, str] | None:
        """Gives the labels of a percent-encoded path, decoded, or None where it does not match.

        A slash at the end counts only within a greedy label, which is never empty.
        """
        given = path[1:] if path.startswith("/") else path
        if self.greedy:
            parts = given.split("/", len(self.pieces) - 1)
            if len(parts) != len(self.pieces) or not parts[-1]:
                return None
        else:
            given = given.removesuffix("/")
            parts = given.split("/") if given else []
            if len(parts) != len(self.pieces):
                return None
        labels = {}
        for (constant, text), part in zip(self.pieces, parts, strict=True):
            if not constant:
                if not part:
                    return None
                labels[text] = unquote(part)
            elif part != text:
                return None
        return labels


def _piece(text: str) -> tuple[bool, str]:
    return (False, text[1:-1].rstrip("+")) if text.startswith("{") else (True, text)


class Bindings:
    """Where each member of an operation's input and output travels; functions from a request, and to headers."""

    def __init__(self, operation: Operation):
        self.template = Template(operation.model.http["requestUri"])
        self.labels: dict[str, tuple[str, FromText]] = {}
        self.queries: dict[str, tuple[str, FromText | None, FromText]] = {}
        self.query_map: tuple[str, bool] | None = None
        self.headers: dict[str, tuple[str, FromText]] = {}
        self.prefixes: list[tuple[str, str]] = []
        self.payload: str | None = None
        self.body_members: frozenset[str] = frozenset()
        if operation.input is not None:
            self._bind(operation.input)
        self.out = Outgoing(operation.output)

    def _bind(self, shape: Any) -> None:
        self.payload = shape.serialization.get("payload")
        body = set()
        for name, member in shape.members.items():
            where = member.serialization.get("location")
            wire = member.serialization.get("name", name)
            if where == "uri":
                self.labels[wire] = (name, _from_text(member))
            elif where == "querystring":
                self._bind_query(name, wire, member)
            elif where == "header":
                self.headers[wire.lower()] = (name, _from_header(member))
            elif where == "headers":
                self.prefixes.append((member.serialization.get("name", "").lower(), name))
            else:
                body.add(name)
        self.body_members = frozenset(body)

    def _bind_query(self, name: str, wire: str, member: Any) -> None:
        if member.type_name == "map":
            self.query_map = (name, member.value.type_name == "list")
        elif member.type_name == "list":
            self.queries[wire] = (name, None, _from_text(member.member))
        else:
            convert = _from_text(member)
            self.queries[wire] = (name, convert, convert)

    def read(self, request: Request) -> dict[str, Any]:
        """Gives the members that are not in the body. Raises: Malformed."""
        found: dict[str, Any] = {}
        if self.labels:
            labels = self.template.match(request.path) or {}
            for wire, text in labels.items():
                if wire in self.labels:
                    name, convert = self.labels[wire]
                    found[name] = convert(text)
        if request.query and (self.queries or self.query_map):
            self._read_query(request.query, found)
        headers, bound = request.headers, self.headers
        for wire, given in headers.items():  # fewer than what an operation knows
            if wire in bound:
                name, convert = bound[wire]
                found[name] = convert(given)
        for prefix, name in self.prefixes:
            cut = len(prefix)
            held = {key[cut:]: value for key, value in headers.items() if key.startswith(prefix)}
            if held:
                found[name] = held
        return found

    def _read_query(self, query: str, found: dict[str, Any]) -> None:
        static = {name for name, _ in self.template.statics}
        for key, text in pairs(query):
            bound = self.queries.get(key)
            if bound is not None:
                name, convert, item = bound
                if convert is None:
                    found.setdefault(name, []).append(item(text))
                elif name not in found:
                    found[name] = convert(text)
            elif self.query_map is not None and key not in static:
                name, many = self.query_map
                held = found.setdefault(name, {})
                if many:
                    held.setdefault(key, []).append(text)
                else:
                    held.setdefault(key, text)


def _from_text(shape: Any) -> FromText:
    return _FROM[shape.type_name]


def _from_header(shape: Any) -> FromText:
    if shape.type_name == "list":
        item, quoted = _from_text(shape.member), shape.member.type_name == "string"
        if shape.member.type_name == "timestamp":
            return lambda text: [read_moment(each) for each in _moments(text)]
        return lambda text: [item(each) for each in (_quoted_list(text) if quoted else _split(text))]
    if shape.serialization.get("jsonvalue"):
        return _json_value
    return _FROM[shape.type_name]


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")] if text else []


def _moments(text: str) -> list[str]:
    # RFC 822 dates hold a comma of their own.
    parts = _split(text)
    if any(len(each) == 3 and each.isalpha() for each in parts):
        return [", ".join(parts[at : at + 2]) for at in range(0, len(parts), 2)]
    return parts


def _quoted_list(text: str) -> list[str]:
    """Splits at commas outside of double quotes, which may hold escaped ones."""
    found, at = [], 0
    while at < len(text):
        if text[at] in " ,":
            at += 1
        elif text[at] == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            found.append(text[at + 1 : end].replace('\\"', '"'))
            at = end + 1
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            found.append(text[at:end].strip())
            at = end
    return found


def _json_value(text: str) -> Any:
    try:
        return msgspec.json.decode(read_base64(text))
    except msgspec.DecodeError as error:
        raise Malformed("Invalid JSON in header") from error


class Outgoing:
    """The members of an output (or error) shape that travel as headers and status, as functions to text."""

    def __init__(self, shape: Any):
        self.headers: dict[str, tuple[str, ToText]] = {}
        self.prefixes: dict[str, str] = {}
        self.status: str | None = None
        self.payload: str | None = shape.serialization.get("payload") if shape is not None else None
        body = set()
        for name, member in shape.members.items() if shape is not None else ():
            where = member.serialization.get("location")
            wire = member.serialization.get("name", name)
            if where == "header":
                self.headers[name] = (wire.lower(), _to_header(member))
            elif where == "headers":
                self.prefixes[name] = member.serialization.get("name", "").lower()
            elif where == "statusCode":
                self.status = name
            else:
                body.add(name)
        self.body_members = frozenset(body)
        self.elsewhere = frozenset([*self.headers, *self.prefixes, *([self.status] if self.status else [])])

    def write(self, result: Mapping[str, Any], headers: Headers) -> None:
        """Puts the members that are headers."""
        if not self.headers and not self.prefixes:
            return
        for name, value in result.items():
            if value is None:
                continue
            bound = self.headers.get(name)
            if bound is not None:
                headers[bound[0]] = bound[1](value)
            elif name in self.prefixes:
                prefix = self.prefixes[name]
                for key, each in value.items():
                    headers[prefix + str(key).lower()] = str(each)


def _to_header(shape: Any) -> ToText:
    kind = shape.type_name
    if kind == "timestamp":
        style = shape.serialization.get("timestampFormat")
        made: ToText = moment_text(style) if style else rfc822
        return made
    if kind == "list":
        item = _to_header(shape.member)
        if shape.member.type_name == "string":
            return lambda value: ",".join(_quoted(each) for each in value)
        return lambda value: ",".join(item(each) for each in value)
    if kind == "boolean":
        return lambda value: "true" if value else "false"
    if kind in ("float", "double"):
        return float_text
    if shape.serialization.get("jsonvalue"):
        return lambda value: base64.b64encode(msgspec.json.encode(value)).decode()
    if kind == "blob":
        return lambda value: base64.b64encode(value).decode()
    return str


def _quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '\\"') + '"' if '"' in text or "," in text else text
