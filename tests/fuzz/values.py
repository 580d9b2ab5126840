"""Values for a model's shapes: right ones, of texts that the server knows, and what may come in their place."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from penstock.wire import models
from penstock.wire.patterns import compiled
from tests.fuzz.stage import POLICY, TRUST, definitions

LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3},
            "action": {"type": "expire"},
        }
    ]
}
Draw = Callable[[Any], Any]


def deep(depth: int, leaf: Any, key: str | None) -> Any:
    """A value within lists, or within structures, so many levels down."""
    for _ in range(depth):
        leaf = [leaf] if key is None else {key: leaf}
    return leaf


TOKENS = (
    "[1,2]",
    '[{},"a"]',
    '["a",1]',
    "[null,null]",
    '[99999999999999999999,"a"]',
    "[[1],[2]]",
    '[1e300,""]',
    "[]",
    "{}",
)
HOSTILE: tuple[Any, ...] = (
    *(base64.urlsafe_b64encode(text.encode()).decode() for text in TOKENS),
    *("", " ", "a" * 65, "a" * 1025, "a" * 70_000, "\x00", "a\x00b", "\ud800", "\U0001f600", "ä" * 300, "\u202e", "\r\nX: y"),
    *("../../etc/passwd", "..", ".", "/", "//", "a/b/../c", "%00", "%zz", "arn:", "arn:aws:sagemaker:::", "arn:::::::::"),
    *("arn:aws:s3:::", "arn:aws:iam::210987654321:role/FuzzRole-other", "s3://", "s3:///", "s3://b", "s3://a b/../c"),
    *("{", "[]", "null", "{}", "'; --", "${x}", "<a>&amp;", "1e999", "-1", "99999999999999999999", "0x10", "٣", "NaN", "true"),
    *(0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(True, False, None, [], {}, [None], [[]], {"": ""}, {"a": None}, {"Key": "a"}, [1, "a", None, {}], ["a"] * 300),
    *("[" * 10_000, '{"a":' * 2000),
    *(deep(60, 1, None), deep(60, "x", "a"), deep(700, 1, None), deep(700, {}, "Std:Join"), [{"Key": "a", "Value": "b"}] * 60),
    *({f"k{n}": "v" for n in range(300)}, {"Get": "Steps.Stop.X"}, {"Std:Join": {"On": "", "Values": [1, {}]}}),
)  # fmt: skip

DOCUMENTS: dict[str, list[Any]] = {
    "PipelineDefinition": definitions(),
    "AssumeRolePolicyDocument": [TRUST],
    **{name: [POLICY] for name in ("PolicyDocument", "ResourcePolicy", "Policy", "PolicyInputList", "policyText")},
    "lifecyclePolicyText": [LIFECYCLE],
}
"""Members that hold a document of JSON, and what to begin with."""
PLAIN = (
    *("fresh-0000", "fresh-0000", "fresh-0000", "fresh-0000"),
    *("a", "fuzz", "name-1", "Name", "1", "12", "us-east-1", "123456789012", "text/plain", "/", "/path/", "s3://fuzz-bucket/key"),
    *("arn:aws:iam::123456789012:role/FuzzRole", "arn:aws:sagemaker:us-east-1:123456789012:model/fuzz", "x" * 36, "ml.m5.large"),
    *("https://example.com/a", "{}", "bytes=0-1", "P30D", "a@example.com", "AKIAIOSFODNN7EXAMPLE", "2026-01-01T00:00:00Z"),
    *("683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3", "Mon, 01 Jan 2026 00:00:00 GMT"),
)  # fmt: skip
PAYLOADS = (
    *("", "{}", "null", '{"a": [1, "b"]}', '"' + "x" * 70_000 + '"', "{", "NaN", "[" * 50_000, "1" * 5000, "\ufeff{}"),
    *('"\ud800"', '"\\ud800"'),
    *('"a"'.encode(f"utf-{form}").decode("latin-1") for form in ("16-be", "16-le", "32-be")), '"\x00"', "\x00", '"\xff"',
)  # fmt: skip
"""Payloads of functions: JSON, and what Python takes for it and AWS does not."""
MOMENTS = (0, 1, 1_700_000_000, 1_700_000_000.5, 4_000_000_000)
ODDS = (0, 1, 2, 3)
"""How often the chance of one half that a member is there is halved, by depth; below that only what must be there is."""
BITS = st.integers(0, 2**64 - 1)


@lru_cache(maxsize=50_000)
def one_of(given: Any) -> Any:
    """The strategy that takes one of these."""
    return st.sampled_from(given)


BOOLEANS, OFTEN, HOW = st.booleans(), st.sampled_from((0, 0, 1, 1, 1, 2, 3)), st.integers(0, 9)


HOSTILES = st.sampled_from(HOSTILE)


class Values:
    """Draws parameters of operations, from the texts that a stage knows."""

    def __init__(self, pool: dict[str, list[str]]):
        self.pool = pool
        self._texts: dict[tuple[str, str], tuple[str, ...]] = {}

    def params(self, draw: Draw, operation: models.Operation) -> Any:
        """Right parameters with none to three places turned hostile."""
        if operation.input is None:
            return {}
        made = self.right(draw, operation.input, "", 0)
        for _ in range(draw(OFTEN)):
            made = turned(draw, made)
        return made

    def right(self, draw: Draw, shape: Any, name: str, depth: int) -> Any:
        kind = shape.type_name
        if kind == "structure":
            return self._structure(draw, shape, depth)
        if kind == "list":
            least, most = shape.metadata.get("min") or 0, shape.metadata.get("max") or 3
            count = draw(st.integers(least, max(least, min(most, least + 2)))) if depth < 6 else least
            return [self.right(draw, shape.member, name, depth + 1) for _ in range(min(count, 5))]
        if kind == "map":
            count = draw(st.integers(0, 2)) if depth < 6 else 0
            texts = self._candidates(shape.key, name)
            return {draw(one_of(texts)): self.right(draw, shape.value, name, depth + 1) for _ in range(count)}
        return self._scalar(draw, shape, name)

    def _structure(self, draw: Draw, shape: Any, depth: int) -> Any:
        if getattr(shape, "is_document_type", False):
            return copy.deepcopy(draw(HOSTILES))
        needed = [name for name in shape.required_members if depth < 12]
        others = [name for name in shape.members if name not in needed] if depth < len(ODDS) else []
        if others:  # one draw for all of them: each a bit, of which the deeper ones are rarely set
            bits = draw(BITS)
            for _ in range(ODDS[depth]):
                bits &= bits >> 61 | bits << 7
            needed += [name for number, name in enumerate(others) if bits >> (number % 64) & 1]
        return {name: self.right(draw, shape.members[name], name, depth + 1) for name in needed}

    def _scalar(self, draw: Draw, shape: Any, name: str) -> Any:
        match shape.type_name:
            case "boolean":
                return draw(BOOLEANS)
            case "integer" | "long" | "float" | "double":
                least, most = shape.metadata.get("min"), shape.metadata.get("max")
                known = [each for each in (least, most, 0, 1, 2, 60) if each is not None]
                fitting = [n for n in known if (least is None or n >= least) and (most is None or n <= most)]
                return draw(one_of(tuple(fitting or known)))
            case "timestamp":
                return draw(one_of(MOMENTS))
            case "blob" if name == "Payload":
                return draw(one_of(PAYLOADS))
            case "blob":
                return draw(one_of(("", "eA==", "e30=")))
        if name in DOCUMENTS:
            made = copy.deepcopy(draw(st.sampled_from(DOCUMENTS[name])))
            for _ in range(draw(st.integers(0, 3))):
                made = turned(draw, made)
            return json.dumps(made)
        return draw(one_of(self._candidates(shape, name)))

    def _candidates(self, shape: Any, name: str) -> tuple[str, ...]:
        """Texts that the shape allows: those that the server knows under this name first, then others."""
        key = (shape.name, name)
        if key not in self._texts:
            own = self.pool.get(name) or self.pool.get(name[:1].upper() + name[1:]) or []
            if name not in ("logGroupName", "Bucket", "RoleArn"):
                own = [*own, *PLAIN[:2]]
            others = [text for texts in self.pool.values() for text in texts[:2]]
            allowed = [text for text in own if _allows(shape, text)] * 4
            allowed += [text for text in (*PLAIN, *others) if _allows(shape, text)]
            self._texts[key] = tuple(shape.enum or ()) or tuple(allowed[:60]) or PLAIN
        return self._texts[key]


def _allows(shape: Any, text: str) -> bool:
    least, most = shape.metadata.get("min") or 0, shape.metadata.get("max")
    if len(text) < least or (most is not None and len(text) > most):
        return False
    pattern = shape.metadata.get("pattern")
    expression = compiled(pattern) if pattern else None
    return expression is None or expression.fullmatch(text) is not None


def turned(draw: Draw, value: Any) -> Any:
    """The value with one of its places taken away, doubled, or given something hostile."""
    places = list(_places(value, ()))
    if not places:
        return copy.deepcopy(draw(HOSTILES))
    way = places[draw(st.integers(0, len(places) - 1))]
    holder = value
    for step in way[:-1]:
        holder = holder[step]
    how = draw(HOW)
    if how == 0:
        del holder[way[-1]]
    elif how == 1 and isinstance(holder, list):
        holder.append(holder[way[-1]])
    elif how == 2 and isinstance(holder, dict):
        holder[draw(st.sampled_from(("", "x", "\x00", "Type", "Name", "a" * 300)))] = holder.pop(way[-1])
    else:
        holder[way[-1]] = copy.deepcopy(draw(HOSTILES))
    return value


def _places(value: Any, way: tuple[Any, ...]) -> Any:
    if len(way) > 30:
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*way, key)
        yield from _places(inner, (*way, key))
