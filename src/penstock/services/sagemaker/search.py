"""Search's filters: pure functions over a record, which is a Describe answer with its tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Record = Mapping[str, Any]
Compare = Callable[[Any, Any], bool]

ORDERED: dict[str, Compare] = {
    "GreaterThan": lambda found, wanted: found > wanted,
    "GreaterThanOrEqualTo": lambda found, wanted: found >= wanted,
    "LessThan": lambda found, wanted: found < wanted,
    "LessThanOrEqualTo": lambda found, wanted: found <= wanted,
}


def matches(record: Record, expression: Mapping[str, Any]) -> bool:
    """Whether a record fits a SearchExpression; an empty one fits all."""
    results = [_fits(record, one) for one in expression.get("Filters", [])]
    results += [_nested(record, one) for one in expression.get("NestedFilters", [])]
    results += [matches(record, one) for one in expression.get("SubExpressions", [])]
    if not results:
        return True
    return any(results) if expression.get("Operator") == "Or" else all(results)


def demanded(expression: Mapping[str, Any], name: str) -> str | None:
    """The value that a property must have for a record to fit, if the expression says so at its top."""
    if not name or expression.get("Operator") == "Or":
        return None
    for one in expression.get("Filters", []):
        if one["Name"] == name and one.get("Operator", "Equals") == "Equals":
            return str(one.get("Value", ""))
    return None


def values(record: Any, name: str) -> Iterator[Any]:
    """All that a dotted name stands for: lists give each of their items, keys of maps may have dots themselves.

    `Tags.<key>` is the value of a tag, `Metrics.<name>` (of a training job: its final value) of a metric.
    """
    if isinstance(record, list):
        for item in record:
            yield from values(item, name)
        return
    if not isinstance(record, Mapping):
        return
    if name in record:
        yield from _flat(record[name])
        return
    head, dot, rest = name.partition(".")
    while dot:
        if head in record:
            yield from _within(record[head], rest)
            return
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    if name.startswith("Metrics."):
        yield from _within(record.get("FinalMetricDataList", []), name.removeprefix("Metrics."))


def sort_key(record: Record, name: str, other: str = "") -> list[Any]:
    """Where a record stands in an order; one that lacks the property and the other comes first."""
    found = next(values(record, name), next(values(record, other), None))
    if found is None:
        return [0, 0]
    if isinstance(found, int | float):
        return [1, found]
    return [2, str(found)]


def _within(found: Any, rest: str) -> Iterator[Any]:
    """A list of named things is asked by those names, too."""
    if isinstance(found, list):
        for item in found:
            if isinstance(item, Mapping) and item.get("Key") == rest:
                yield item.get("Value")
            elif isinstance(item, Mapping) and item.get("MetricName") == rest:
                yield item.get("Value", item.get("Last"))
            elif isinstance(item, Mapping) and rest.startswith(f"{item.get('MetricName')}."):
                yield from values(item, rest.removeprefix(f"{item['MetricName']}."))
    yield from values(found, rest)


def _flat(found: Any) -> Iterator[Any]:
    if isinstance(found, list):
        for item in found:
            yield from _flat(item)
    elif isinstance(found, Mapping) and len(found) == 1 and ("StringValue" in found or "NumberValue" in found):
        yield from found.values()
    else:
        yield found


def _nested(record: Record, nested: Mapping[str, Any]) -> bool:
    """Whether one item of a list fits all filters at once."""
    prefix = nested["NestedPropertyName"] + "."
    items: Any = record
    for part in nested["NestedPropertyName"].split("."):
        items = items.get(part) if isinstance(items, Mapping) else None
    filters = [{**one, "Name": one["Name"].removeprefix(prefix)} for one in nested["Filters"]]
    return any(all(_fits(item, one) for one in filters) for item in items or [])


def _fits(record: Record, wanted: Mapping[str, Any]) -> bool:
    operator, value = wanted.get("Operator", "Equals"), wanted.get("Value", "")
    found = list(values(record, wanted["Name"]))
    if operator == "Exists":
        return bool(found)
    if operator == "NotExists":
        return not found
    if operator == "NotEquals":
        return not any(_same(one, value) for one in found)
    if operator == "Contains":
        return any(value in str(one) for one in found)
    if operator == "In":
        return any(_same(one, choice.strip()) for one in found for choice in value.split(","))
    if operator in ORDERED:
        return any(_compared(one, value, ORDERED[operator]) for one in found)
    return any(_same(one, value) for one in found)


def _same(found: Any, wanted: str) -> bool:
    if isinstance(found, bool):
        return str(found).lower() == wanted.lower()
    if isinstance(found, int | float):
        number = _number(wanted)
        return number is not None and found == number
    return str(found) == wanted


def _compared(found: Any, wanted: str, compare: Compare) -> bool:
    number = _number(wanted)
    if isinstance(found, int | float) and number is not None:
        return compare(found, number)
    held = _number(str(found))
    if number is not None and held is not None:
        return compare(held, number)
    return compare(str(found), wanted) if isinstance(found, str) else False


def _number(text: str) -> float | None:
    """A number, or a moment written in ISO 8601 as seconds since 1970."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
