"""Values fitted to the types that an operation's model asks for: what a pipeline gives as text may be a number.

A wire client never needs this (its values have types already); what is computed from expressions does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from penstock.wire import models

TYPES: dict[str, Any] = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
}
"""What a value of a model's type is in JSON."""


def fit(service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with scalars turned into the model's types where that loses nothing; validation sees the rest.

    Takes: params as JSON has them. Gives: a new dict, without members that are None.
    """
    fitted = _fit(models.service(service).operations[operation].input, params)
    return dict(fitted) if isinstance(fitted, dict) else {}


def _fit(shape: Any, value: Any) -> Any:
    if shape is None:
        return value
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        members = shape.members
        return {name: _fit(members.get(name), inner) for name, inner in value.items() if inner is not None}
    if kind == "list" and isinstance(value, list):
        return [_fit(shape.member, inner) for inner in value]
    if kind == "map" and isinstance(value, dict):
        return {str(key): _fit(shape.value, inner) for key, inner in value.items()}
    return _fit_scalar(kind, value)


def _fit_scalar(kind: str, value: Any) -> Any:
    if kind == "string" and isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if kind in ("integer", "long"):
        return _whole(value)
    if kind in ("float", "double") and isinstance(value, str):
        return _number(value, float)
    if kind == "boolean" and isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return _number(value, int) if isinstance(value, str) else value


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def misfits(
    service: str, operation: str, params: Mapping[str, Any], skip: Callable[[Any], bool], without: Collection[str] = ()
) -> Iterator[str]:
    """What an operation's model has against parameters that are partly expressions: missing members, values of no enum.

    Takes: `skip`, what says that a value is not known yet; `without`, top-level members that come later.
    Gives: a sentence a misfit.
    """
    shape = models.service(service).operations[operation].input
    for name in shape.required_members:
        if name not in without and params.get(name) is None:
            yield f"Missing required member '{name}'"
    for name, value in params.items():
        if name in shape.members and name not in without:
            yield from _misfits(shape.members[name], value, name, skip)


def _misfits(shape: Any, value: Any, path: str, skip: Callable[[Any], bool]) -> Iterator[str]:
    if value is None or skip(value):
        return
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Missing required member '{name}' in '{path}'"
        for name, inner in value.items():
            if name in shape.members:
                yield from _misfits(shape.members[name], inner, f"{path}.{name}", skip)
    elif kind == "list" and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _misfits(shape.member, inner, f"{path}[{index}]", skip)
    elif kind == "map" and isinstance(value, dict):
        for key, inner in value.items():
            yield from _misfits(shape.value, inner, f"{path}.{key}", skip)
    elif not isinstance(_fit_scalar(kind, value), TYPES.get(kind, object)):
        told = value if isinstance(value, str) else json.dumps(value)
        yield f"Value '{told[:100]}' for '{path}' is no {kind}"
    elif kind == "string" and shape.enum and value not in shape.enum:
        yield f"Value '{value}' for '{path}' failed to satisfy enum value set: [{', '.join(shape.enum)}]"
