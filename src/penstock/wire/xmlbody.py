"""XML bodies: shapes compiled once into functions that read elements into parameters and write results as text.

Used by rest-xml in both directions and by the query protocol for its answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

from penstock.wire.models import Service
from penstock.wire.values import (
    Malformed,
    base64_text,
    float_text,
    moment_text,
    read_base64,
    read_boolean,
    read_float,
    read_integer,
    read_moment,
)

Read = Callable[[Any], Any]
Put = Callable[[str], None]
Write = Callable[[Any, Put], None]

_UNSAFE = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_UNSAFE_ATTRIBUTE = re.compile('[&<>"\r\n\t\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """Escapes the text of an element; a carriage return would else be read as a line feed."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found.group()
    return _NAMED.get(char) or f"&#{ord(char)};"


def parse_root(body: bytes) -> ElementTree.Element:
    """Reads a document.

    Raises: Malformed, also for one with a document type: no client sends that, and entities can explode.
    """
    if b"\0" in body:  # UTF-16 or UTF-32, where the words below would not be found
        raise Malformed("Documents are read as UTF-8")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise Malformed("Document type declarations are not accepted")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 (no entities without a document type)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Malformed(str(error)) from error


def local(tag: str) -> str:
    """Gives an element's name without its namespace."""
    return tag.rpartition("}")[2]


def flat_name(member: Any, name: str) -> str:
    """Gives the element name of a structure's member: a flattened list may go by its own member's name."""
    if member.type_name == "list" and member.serialization.get("flattened"):
        inner = member.member.serialization.get("name")
        if inner:
            return str(inner)
    return str(member.serialization.get("name", name))


def _text(convert: Callable[[str], Any]) -> Read:
    def read(node: Any) -> Any:
        return convert(node.text or "")

    return read


def _plain(text: str) -> str:
    return text


_READ: dict[str, Read] = {
    "string": _text(_plain),
    "character": _text(_plain),
    "boolean": _text(read_boolean),
    "integer": _text(read_integer),
    "long": _text(read_integer),
    "float": _text(read_float),
    "double": _text(read_float),
    "timestamp": _text(read_moment),
    "blob": _text(read_base64),
}


class Reader:
    """Compiles shapes into functions from an element to a value."""

    def __init__(self) -> None:
        self._kept: dict[str, Read] = {}

    def compile(self, shape: Any) -> Read:
        plain = _READ.get(shape.type_name)
        if plain is not None:
            return plain
        made: Read = getattr(self, f"_{shape.type_name}")(shape)
        return made

    def _structure(self, shape: Any) -> Read:
        kept = self._kept.get(shape.name)
        if kept is not None:
            return kept
        table: dict[str, tuple[str, str, Read]] = {}
        attributes: list[tuple[str, str]] = []

        def read(node: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for child in node:
                entry = table.get(local(child.tag))
                if entry is None:
                    continue
                name, how, convert = entry
                if how == "one":
                    found[name] = convert(child)
                elif how == "items":
                    found.setdefault(name, []).append(convert(child))
                else:
                    found.setdefault(name, {}).update((convert(child),))
            for name, tag in attributes:
                for key, value in node.attrib.items():
                    if local(key) == tag:
                        found[name] = value
            return found

        self._kept[shape.name] = read
        for name, member in shape.members.items():
            if member.serialization.get("xmlAttribute"):
                attributes.append((name, member.serialization["name"].rpartition(":")[2]))
            elif member.serialization.get("flattened") and member.type_name == "list":
                table[flat_name(member, name)] = (name, "items", self.compile(member.member))
            elif member.serialization.get("flattened") and member.type_name == "map":
                table[flat_name(member, name)] = (name, "pairs", self._pair(member))
            else:
                table[flat_name(member, name)] = (name, "one", self.compile(member))
        return read

    def _list(self, shape: Any) -> Read:
        convert = self.compile(shape.member)
        # Whatever the children are called: S3 takes <member> and <Tag> alike from old clients.
        return lambda node: [convert(child) for child in node]

    def _map(self, shape: Any) -> Read:
        pair = self._pair(shape)
        return lambda node: dict(pair(child) for child in node)

    def _pair(self, shape: Any) -> Read:
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")
        key, value = self.compile(shape.key), self.compile(shape.value)

        def read(node: Any) -> tuple[Any, Any]:
            parts = {local(child.tag): child for child in node}
            if key_name not in parts or value_name not in parts:
                raise Malformed(f"An entry needs {key_name} and {value_name}")
            return key(parts[key_name]), value(parts[value_name])

        return read


def _boolean_text(value: Any) -> str:
    return "true" if value else "false"


def _string_text(value: Any) -> str:
    return _UNSAFE.sub(_escaped, value if value.__class__ is str else str(value))


_TEXT: dict[str, Callable[[Any], str]] = {
    "string": _string_text,
    "character": _string_text,
    "boolean": _boolean_text,
    "integer": str,
    "long": str,
    "float": float_text,
    "double": float_text,
    "blob": base64_text,
}


class Writer:
    """Compiles shapes into functions that put a value's elements as text."""

    def __init__(self) -> None:
        self._kept: dict[str, Write] = {}

    def element(self, shape: Any, name: str) -> Write:
        """Compiles "an element of this name that holds such a value"; for a flattened list, one for each item."""
        kind = shape.type_name
        if kind == "structure":
            return self._wrapped(shape, name)
        if kind == "list":
            return self._list(shape, name)
        if kind == "map":
            return self._map(shape, name)
        text = scalar(shape)
        start, end = f"<{name}{namespace(shape)}>", f"</{name}>"

        def write(value: Any, put: Put) -> None:
            put(start + text(value) + end)

        return write

    def _wrapped(self, shape: Any, name: str) -> Write:
        content = self.content(shape)
        attributes = [
            (member_name, member.serialization["name"])
            for member_name, member in shape.members.items()
            if member.serialization.get("xmlAttribute")
        ]
        start, end = f"<{name}{namespace(shape)}", f"</{name}>"

        def write(value: Any, put: Put) -> None:
            put(start)
            for member_name, tag in attributes:
                if value.get(member_name) is not None:
                    put(f' {tag}="{_UNSAFE_ATTRIBUTE.sub(_escaped, str(value[member_name]))}"')
            put(">")
            content(value, put)
            put(end)

        return write

    def content(self, shape: Any, skip: frozenset[str] = frozenset()) -> Write:
        """Compiles the elements inside a structure's own; `skip` names members that travel elsewhere."""
        kept = None if skip else self._kept.get(shape.name)
        if kept is not None:
            return kept
        table: dict[str, Write] = {}
        plain: dict[str, tuple[str, Callable[[Any], str], str]] = {}  # a listing is mostly these: no call for each

        def write(value: Any, put: Put) -> None:
            for key, each in value.items():
                if each is None:
                    continue
                known = plain.get(key)
                if known is not None:
                    put(known[0] + known[1](each) + known[2])
                    continue
                element = table.get(key)
                if element is not None:
                    element(each, put)

        if not skip:
            self._kept[shape.name] = write
        for name, member in shape.members.items():
            if name not in skip and not member.serialization.get("xmlAttribute"):
                tag = flat_name(member, name)
                if member.type_name in ("structure", "list", "map"):
                    table[name] = self.element(member, tag)
                else:
                    plain[name] = (f"<{tag}{namespace(member)}>", scalar(member), f"</{tag}>")
        return write

    def _list(self, shape: Any, name: str) -> Write:
        if shape.serialization.get("flattened"):
            item = self.element(shape.member, name)

            def write_flat(value: Any, put: Put) -> None:
                for each in value:
                    item(each, put)

            return write_flat
        item = self.element(shape.member, shape.member.serialization.get("name", "member"))
        start, end = f"<{name}{namespace(shape)}>", f"</{name}>"

        def write(value: Any, put: Put) -> None:
            put(start)
            for each in value:
                item(each, put)
            put(end)

        return write

    def _map(self, shape: Any, name: str) -> Write:
        flat = bool(shape.serialization.get("flattened"))
        key = self.element(shape.key, shape.key.serialization.get("name", "key"))
        item = self.element(shape.value, shape.value.serialization.get("name", "value"))
        entry = name if flat else "entry"
        outer, closing = ("", "") if flat else (f"<{name}>", f"</{name}>")

        def write(value: Any, put: Put) -> None:
            put(outer)
            for each, held in value.items():
                put(f"<{entry}>")
                key(each, put)
                item(held, put)
                put(f"</{entry}>")
            put(closing)

        return write


def scalar(shape: Any) -> Callable[[Any], str]:
    """Gives the function that makes escaped text of a scalar."""
    if shape.type_name == "timestamp":
        made: Callable[[Any], str] = moment_text(shape.serialization.get("timestampFormat", "iso8601"))
        return made
    if shape.type_name == "string" and shape.enum:
        return _word_text
    return _TEXT[shape.type_name]


@lru_cache(maxsize=1024)
def _word_text(value: Any) -> str:
    """One of a few words, escaped once."""
    return escape(str(value))


def namespace(shape: Any) -> str:
    """Gives the xmlns attribute that a shape asks for, with a space before it, or nothing."""
    given = shape.serialization.get("xmlNamespace")
    if not given:
        return ""
    if isinstance(given, str):
        return f' xmlns="{given}"'
    prefix = f":{given['prefix']}" if given.get("prefix") else ""
    return f' xmlns{prefix}="{given["uri"]}"'


def reader(service: Service) -> Reader:
    """Gives the service's reader of XML, made when first asked for."""
    return service.compiler(Reader)


def writer(service: Service) -> Writer:
    """Gives the service's writer of XML, made when first asked for."""
    return service.compiler(Writer)
