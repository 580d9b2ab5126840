"""JSON bodies: shapes compiled once into functions from decoded JSON to parameters, and from results to JSON's values.

A compiled structure is a table of its members and one loop; a member whose value needs no change costs no call.
Members that the model does not have are dropped in both directions, and so are those that are None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.wire.models import Service
from penstock.wire.values import (
    Malformed,
    epoch,
    iso8601,
    read_base64,
    read_float,
    read_moment,
    rfc822,
    special,
)

Convert = Callable[[Any], Any]


class _Never:
    """A type that no value has: marks members that always go through their function."""


_WORDS = {
    str: "STRING_VALUE",
    bool: "TRUE_VALUE",
    int: "NUMBER_VALUE",
    float: "DECIMAL_VALUE",
}


def _refuse(value: Any, wanted: str) -> Malformed:
    if isinstance(value, dict):
        return Malformed("Start of structure or map found where not expected.")
    if isinstance(value, list):
        return Malformed("Start of list found where not expected")
    word = "FALSE_VALUE" if value is False else _WORDS.get(type(value), "Value")
    return Malformed(f"{word} can not be converted to {wanted}")


def _string(value: Any) -> Any:
    if type(value) is str:
        return value
    raise _refuse(value, "a String")


def _boolean(value: Any) -> Any:
    if type(value) is bool:
        return value
    raise _refuse(value, "a Boolean")


def _integer(value: Any) -> Any:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if type(value) is float and value == value // 1 and abs(value) < 2**63:
        return int(value)
    raise _refuse(value, "an Integer")


def _float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) < 2**1023:
        return float(value)
    if value in ("NaN", "Infinity", "-Infinity"):
        return read_float(value)
    raise _refuse(value, "a Double")


_READ: dict[str, tuple[type, Convert]] = {
    "string": (str, _string),
    "character": (str, _string),
    "boolean": (bool, _boolean),
    "integer": (_Never, _integer),  # no store keeps more than 64 bits
    "long": (_Never, _integer),
    "float": (float, _float),
    "double": (float, _float),
    "timestamp": (_Never, read_moment),
    "blob": (_Never, read_base64),
}


class Reader:
    """Compiles shapes into functions from decoded JSON to parameters; one per service, with its structures kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Convert] = {}

    def compile(self, shape: Any) -> Convert:
        return self._entry(shape)[1]

    def _entry(self, shape: Any) -> tuple[type, Convert]:
        if getattr(shape, "is_document_type", False):
            return _Never, lambda value: value
        plain = _READ.get(shape.type_name)
        if plain is not None:
            return plain
        kept = self._kept.get(shape.name)
        return _Never, kept if kept is not None else getattr(self, f"_{shape.type_name}")(shape)

    def _structure(self, shape: Any) -> Convert:
        table: dict[str, tuple[str, type, Convert]] = {}

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise _refuse(value, "a structure")
            found = {}
            for key, each in value.items():
                entry = table.get(key)
                if entry is not None and each is not None:
                    name, plain, convert = entry
                    found[name] = each if type(each) is plain else convert(each)
            return found

        self._kept[shape.name] = read  # before its members: a structure may hold itself
        for name, member in shape.members.items():
            table[member.serialization.get("name", name)] = (name, *self._entry(member))
        return read

    def _list(self, shape: Any) -> Convert:
        cell: list[tuple[type, Convert]] = []

        def read(value: Any) -> list[Any]:
            if type(value) is not list:
                raise _refuse(value, "a list")
            plain, convert = cell[0]
            return [each if type(each) is plain else convert(each) for each in value if each is not None]

        self._kept[shape.name] = read
        cell.append(self._entry(shape.member))
        return read

    def _map(self, shape: Any) -> Convert:
        cell: list[tuple[type, Convert]] = []

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise _refuse(value, "a map")
            plain, convert = cell[0]
            return {k: v if type(v) is plain else convert(v) for k, v in value.items() if v is not None}

        self._kept[shape.name] = read
        cell.append(self._entry(shape.value))
        return read


def _write_float(value: Any) -> Any:
    return special(value) or float(value)


def _write_blob(value: Any) -> Any:
    # msgspec writes bytes as base64 by itself.
    return value.encode() if isinstance(value, str) else value


_MOMENTS: dict[str, Convert] = {"iso8601": iso8601, "rfc822": rfc822, "unixtimestamp": epoch}


class Writer:
    """Compiles shapes into functions from results to what JSON can hold; None stands for "as it is"."""

    def __init__(self) -> None:
        self._kept: dict[str, Convert] = {}

    def compile(self, shape: Any) -> Convert | None:
        kind = shape.type_name
        if getattr(shape, "is_document_type", False):
            return None
        if kind == "timestamp":
            return _MOMENTS[shape.serialization.get("timestampFormat", "unixTimestamp").lower()]
        if kind in ("float", "double"):
            return _write_float
        if kind == "blob":
            return _write_blob
        if kind not in ("structure", "list", "map"):
            return None
        kept = self._kept.get(shape.name)
        made: Convert | None = kept if kept is not None else getattr(self, f"_{kind}")(shape)
        return made

    def _structure(self, shape: Any) -> Convert:
        table: dict[str, tuple[str, Convert | None]] = {}

        def write(value: Any) -> dict[str, Any]:
            made = {}
            for key, each in value.items():
                entry = table.get(key)
                if entry is not None and each is not None:
                    name, convert = entry
                    made[name] = each if convert is None else convert(each)
            return made

        self._kept[shape.name] = write
        for name, member in shape.members.items():
            table[name] = (member.serialization.get("name", name), self.compile(member))
        return write

    def _list(self, shape: Any) -> Convert | None:
        cell: list[Convert] = []

        def write(value: Any) -> list[Any]:
            convert = cell[0]
            return [convert(each) for each in value]

        self._kept[shape.name] = write
        convert = self.compile(shape.member)
        if convert is None:
            del self._kept[shape.name]
            return None
        cell.append(convert)
        return write

    def _map(self, shape: Any) -> Convert | None:
        cell: list[Convert] = []

        def write(value: Any) -> dict[str, Any]:
            convert = cell[0]
            return {key: convert(each) for key, each in value.items() if each is not None}

        self._kept[shape.name] = write
        convert = self.compile(shape.value)
        if convert is None:
            del self._kept[shape.name]
            return None
        cell.append(convert)
        return write


def reader(service: Service) -> Reader:
    """Gives the service's reader of JSON, made when first asked for."""
    return service.compiler(Reader)


def writer(service: Service) -> Writer:
    """Gives the service's writer of JSON, made when first asked for."""
    return service.compiler(Writer)
