"""Query bodies: "Tags.member.1.Key=a" as a tree, and shapes compiled into functions from that tree to parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from penstock.wire.models import Service
from penstock.wire.values import Malformed, read_base64, read_boolean, read_float, read_integer, read_moment
from penstock.wire.xmlbody import flat_name

Read = Callable[[Any], Any]
_DEEPEST = 100

_SCALARS: dict[str, Read] = {
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


def pairs(text: str) -> list[tuple[str, str]]:
    """Reads "a=1&b=2", percent-decoded, in order; an empty value stays. Raises: Malformed."""
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100_000)
    except ValueError as error:
        raise Malformed("The query string is malformed") from error


def tree(given: list[tuple[str, str]]) -> dict[str, Any]:
    """Makes a tree of dotted names; a name that is both leaf and branch is a branch."""
    root: dict[str, Any] = {}
    for name, value in given:
        *branches, leaf = name.split(".")
        if len(branches) > _DEEPEST:
            raise Malformed("The parameters are nested too deeply")
        node = root
        for branch in branches:
            below = node.get(branch)
            if not isinstance(below, dict):
                below = node[branch] = {}
            node = below
        if not isinstance(node.get(leaf), dict):
            node[leaf] = value
    return root


def _numbered(node: Any) -> list[Any]:
    """Gives what is under 1, 2, 3 … in that order; a number left out closes up."""
    if not isinstance(node, dict):
        return []
    found = [(int(key), each) for key, each in node.items() if key.isascii() and key.isdigit()]
    return [each for _, each in sorted(found, key=lambda item: item[0])]


class Reader:
    """Compiles shapes into functions from a node of the tree to a value."""

    def __init__(self) -> None:
        self._kept: dict[str, Read] = {}

    def compile(self, shape: Any) -> Read:
        plain = _SCALARS.get(shape.type_name)
        if plain is not None:
            return _leaf(plain)
        made: Read = getattr(self, f"_{shape.type_name}")(shape)
        return made

    def _structure(self, shape: Any) -> Read:
        kept = self._kept.get(shape.name)
        if kept is not None:
            return kept
        table: dict[str, tuple[str, Read]] = {}

        def read(node: Any) -> dict[str, Any]:
            found: dict[str, Any] = {}
            if isinstance(node, dict):
                for key, each in node.items():
                    entry = table.get(key)
                    if entry is not None:
                        found[entry[0]] = entry[1](each)
            return found

        self._kept[shape.name] = read
        for name, member in shape.members.items():
            table[flat_name(member, name)] = (name, self.compile(member))
        return read

    def _list(self, shape: Any) -> Read:
        convert = self.compile(shape.member)
        if shape.serialization.get("flattened"):
            return lambda node: [convert(each) for each in _numbered(node)]
        inner = shape.member.serialization.get("name", "member")

        def read(node: Any) -> list[Any]:
            held = node.get(inner, node.get("member")) if isinstance(node, dict) else None
            return [convert(each) for each in _numbered(held)]

        return read

    def _map(self, shape: Any) -> Read:
        flat = bool(shape.serialization.get("flattened"))
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")
        key, value = self.compile(shape.key), self.compile(shape.value)

        def read(node: Any) -> dict[Any, Any]:
            held = node if flat else node.get("entry") if isinstance(node, dict) else None
            found = {}
            for each in _numbered(held):
                if not isinstance(each, dict) or key_name not in each:
                    raise Malformed(f"An entry needs {key_name} and {value_name}")
                found[key(each[key_name])] = value(each.get(value_name, ""))
            return found

        return read


def _leaf(convert: Read) -> Read:
    def read(node: Any) -> Any:
        if isinstance(node, dict):
            raise Malformed("Unexpected complex element termination")
        return convert(node)

    return read


def reader(service: Service) -> Reader:
    """Gives the service's reader of query parameters, made when first asked for."""
    return service.compiler(Reader)
