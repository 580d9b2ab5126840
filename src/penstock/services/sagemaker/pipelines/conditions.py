"""The conditions of a Condition step: their form, what they refer to, and whether they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from penstock.services.sagemaker.pipelines.expressions import Reference, Unresolved, function_of, references

Value = Callable[[Any], Any]
"""Gives an operand's value."""

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": lambda left, right: bool(left > right),
    "GreaterThanOrEqualTo": lambda left, right: bool(left >= right),
    "LessThan": lambda left, right: bool(left < right),
    "LessThanOrEqualTo": lambda left, right: bool(left <= right),
}
SIGNS = {
    "Equals": "==",
    "GreaterThan": ">",
    "GreaterThanOrEqualTo": ">=",
    "LessThan": "<",
    "LessThanOrEqualTo": "<=",
}
TYPES = frozenset({"Equals", "In", "Not", "Or", *COMPARISONS})


def check(condition: Any) -> Iterator[Reference]:
    """Checks the form of a condition, and gives what it refers to.

    Raises: ValueError.
    """
    if not isinstance(condition, dict) or str(condition.get("Type")) not in TYPES:
        told = condition.get("Type") if isinstance(condition, dict) else condition
        raise ValueError(f"Unknown condition type '{told}'; the types are {', '.join(sorted(TYPES))}")
    kind = condition["Type"]
    if kind == "Not":
        yield from check(_inner(condition))
    elif kind == "Or":
        if not isinstance(condition.get("Conditions"), list):
            raise ValueError("The condition Or needs a list 'Conditions'")
        for inner in condition["Conditions"]:
            yield from check(inner)
    else:
        for member in ("QueryValue", "Values") if kind == "In" else ("LeftValue", "RightValue"):
            if member not in condition:
                raise ValueError(f"The condition {kind} needs '{member}'")
            yield from references(condition[member])
        if kind == "In" and not isinstance(condition["Values"], list):
            raise ValueError("The condition In needs a list 'Values'")


def holds(condition: dict[str, Any], value: Value) -> bool:
    """Whether the condition holds; `value` resolves an operand.

    Raises: Unresolved for an operand without a value, or operands that have no order.
    """
    kind = condition["Type"]
    if kind == "Not":
        return not holds(_inner(condition), value)
    if kind == "Or":
        return any(holds(inner, value) for inner in condition["Conditions"])
    if kind == "In":
        query = value(condition["QueryValue"])
        return any(same(query, value(item)) for item in condition["Values"])
    left, right = value(condition["LeftValue"]), value(condition["RightValue"])
    if kind == "Equals":
        return same(left, right)
    first, second = _ordered(left, right)
    if first is None:
        told = " with ".join(_told(condition[side], value) for side in ("LeftValue", "RightValue"))
        raise Unresolved(f"The condition {kind} cannot compare {told}")
    return COMPARISONS[kind](first, second)


def explain(condition: dict[str, Any], value: Value) -> str:
    """What a condition compared, with the operands' values: "0.91 >= 0.999".

    Raises: Unresolved.
    """
    kind = condition["Type"]
    if kind == "Not":
        return f"not ({explain(_inner(condition), value)})"
    if kind == "Or":
        return " or ".join(f"({explain(inner, value)})" for inner in condition["Conditions"])
    if kind == "In":
        values = ", ".join(json.dumps(value(item)) for item in condition["Values"])
        return f"{json.dumps(value(condition['QueryValue']))} in [{values}]"
    left, right = value(condition["LeftValue"]), value(condition["RightValue"])
    return f"{json.dumps(left)} {SIGNS[kind]} {json.dumps(right)}"


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal; a text equals a number or a boolean that is written so ("1" and 1)."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(left, bool) or isinstance(right, bool):
        return _truth(left) is not None and _truth(left) == _truth(right)
    first, second = _number(left), _number(right)
    if first is not None and second is not None:
        return first == second
    return bool(left == right)


def _inner(condition: dict[str, Any]) -> Any:
    """What a Not negates: the SDK writes it as "Condition", the published schema as "Expression"."""
    return condition.get("Condition", condition.get("Expression"))


def _ordered(left: Any, right: Any) -> tuple[Any, Any]:
    """Both values as numbers, or as texts; two None where they have no order."""
    first, second = _number(left), _number(right)
    if first is not None and second is not None:
        return first, second
    return (left, right) if isinstance(left, str) and isinstance(right, str) else (None, None)


def _told(operand: Any, value: Value) -> str:
    """An operand's value, and where it was read."""
    text = json.dumps(value(operand))
    match function_of(operand):
        case "Std:JsonGet":
            read = operand["Std:JsonGet"]
            return f"{text} (read at '{read['Path']}' in {value(read.get('PropertyFile', read.get('S3Uri')))})"
        case "Get":
            return f"{text} (of {operand['Get']})"
    return text


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and "_" in value:  # Python's way to write numbers, nobody else's
        return None
    if not isinstance(value, str):
        return value
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None
