"""Random values for botocore shapes, seeded: what a client may send, what a service may answer."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

_TEXTS = (
    *("a", "Zed-9", "x y", "a/b+c=d&e", '<tag a="1">&amp;', "ünïcødé ✓", "line\nbreak", "100%"),
    *("a.b:c", "'quoted'", "\\d{3}", "🙂", "cr\rlf"),
)
_WORDS = ("a", "Zed-9", "x_y", "a/b", "arn:aws:s3:::b", "100", "k=v", "a b", 'say "hi"')
_LABELS = ("name", "a b", "ünï", "a+b", "100%", "x:y", "a=b&c")


class Values:
    """Makes values; never an empty list, map or text, which some protocols cannot tell from nothing."""

    def __init__(self, seed: str, moments: bool):
        self._random = random.Random(seed)
        self._moments = moments
        """Moments as datetimes, as clients give them; else as float seconds."""

    def make(self, shape: Any, depth: int = 0) -> Any:
        if getattr(shape, "is_document_type", False):
            return {"any": [1, "two", None, {"three": 3.5}]}
        return getattr(self, f"_{shape.type_name}")(shape, depth)

    def _chance(self, depth: int) -> bool:
        return self._random.random() < (0.7, 0.6, 0.4, 0.25, 0.1, 0.0)[min(depth, 5)]

    def _structure(self, shape: Any, depth: int) -> dict[str, Any]:
        names = list(shape.members)
        if getattr(shape, "is_tagged_union", False):
            shallow = [n for n in names if depth < 6 or shape.members[n].type_name not in ("structure", "list", "map")]
            chosen = [self._random.choice(shallow or names)]
        else:
            always = (*shape.required_members, shape.serialization.get("payload"))
            chosen = [n for n in names if n in always or _told(shape.members[n]) or self._chance(depth)]
            if not chosen and names and depth < 4:
                chosen = [self._random.choice(names)]
        held = {n: shape.members[n] for n in chosen}
        return {
            n: self._member(each, depth + 1) for n, each in held.items() if not each.serialization.get("eventstream")
        }

    def _member(self, shape: Any, depth: int) -> Any:
        where = shape.serialization.get("location")
        if where == "uri":
            return self._random.choice(_LABELS) if shape.type_name == "string" else self.make(shape, depth)
        if shape.serialization.get("hostLabel"):
            return "route-1"
        if where == "headers":
            return {f"k{n}": self._random.choice(_WORDS) for n in range(self._random.randint(1, 3))}
        if where == "header" and shape.type_name == "string":
            return self._enum(shape) or self._random.choice(_WORDS)
        if where == "header" and shape.type_name == "list" and shape.member.type_name == "string":
            return [self._enum(shape.member) or self._random.choice(("a", "b-c", "x-amz-meta-a")) for _ in range(2)]
        if where in ("header", "statusCode") and shape.type_name == "timestamp":
            return self._moment(whole=True)
        if where == "statusCode":
            return self._random.choice((200, 201, 202))
        return self.make(shape, depth)

    def _list(self, shape: Any, depth: int) -> list[Any]:
        return [self.make(shape.member, depth + 1) for _ in range(self._random.randint(1, 3 if depth < 4 else 1))]

    def _map(self, shape: Any, depth: int) -> dict[str, Any]:
        count = self._random.randint(1, 2)
        return {self._string(shape.key, depth) + str(n): self.make(shape.value, depth + 1) for n in range(count)}

    def _enum(self, shape: Any) -> str:
        return self._random.choice(shape.enum) if getattr(shape, "enum", None) else ""

    def _string(self, shape: Any, depth: int) -> str:
        return self._enum(shape) or self._random.choice(_TEXTS)

    _character = _string

    def _boolean(self, shape: Any, depth: int) -> bool:
        return self._random.random() < 0.5

    def _integer(self, shape: Any, depth: int) -> int:
        return self._random.choice((0, 1, -7, 42, 2**31 - 1))

    def _long(self, shape: Any, depth: int) -> int:
        return self._random.choice((0, -1, 1_700_000_000_000, 2**53 - 1))

    def _float(self, shape: Any, depth: int) -> float:
        return self._random.choice((0.5, -2.25, 1024.0, float("inf"), float("-inf")))

    def _double(self, shape: Any, depth: int) -> float:
        return self._random.choice((0.1, -1e-9, 12345.678, 3.0, float("inf")))

    def _blob(self, shape: Any, depth: int) -> bytes:
        return self._random.randbytes(self._random.randint(1, 40))

    def _timestamp(self, shape: Any, depth: int) -> Any:
        return self._moment(whole=shape.serialization.get("timestampFormat", "").lower() == "rfc822")

    def _moment(self, whole: bool) -> Any:
        moment = self._random.randint(0, 2_000_000_000) + (0 if whole else self._random.choice((0, 0.25, 0.125)))
        return datetime.fromtimestamp(moment, UTC) if self._moments else float(moment)


def _told(shape: Any) -> bool:
    return shape.serialization.get("location") in ("statusCode", "headers")


def plain(value: Any) -> Any:
    """Gives a value as both sides can be compared: moments as float seconds, streams read."""
    if isinstance(value, datetime):
        return round(value.timestamp(), 6)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        # botocore leaves AWS's words for what is no number as they are in JSON.
        return round(value, 9) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def pruned(value: Any) -> Any:
    """Gives a value without structures and maps that hold nothing: what the query protocol has no word for."""
    if isinstance(value, dict):
        held = {key: pruned(each) for key, each in value.items()}
        return {key: each for key, each in held.items() if each not in ({}, [])}
    return [pruned(each) for each in value] if isinstance(value, list) else value
