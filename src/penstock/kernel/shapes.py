"""Values fitted to the types that an operation's model asks for: what a pipeline gives as text may be a number.

A wire client never needs this (its values have types already); what is computed from expressions does.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.wire import models


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
