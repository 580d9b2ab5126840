"""Users' expressions over logs: in this process where they come to an end soon whatever the log says, else in one of their own."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from penstock.services.sagemaker.training import metrics

TIME_S = 5.0
QUICK_STEPS = 10_000_000
"""So many comparisons take tens of milliseconds at worst; it is a bound that hardly any log comes near to."""
REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
FEW = 8
"""A repetition of at most so many is ways to go on, and not one that ends anywhere."""


class Endless(Exception):
    """An expression whose search has no bound that is of use."""


def quick(files: Sequence[str], definitions: Sequence[Mapping[str, str]]) -> bool:
    """Whether the logs are searched by these expressions within an engine step, whatever the logs say."""
    if metrics.size_bytes(files) > metrics.QUICK_BYTES:
        return False
    lengths = [len(text) for _, text in metrics.lines(files)]
    return sum(most_steps(definition["Regex"], lengths) for definition in definitions) <= QUICK_STEPS


def scrape_apart(files: Sequence[str], definitions: Sequence[Mapping[str, str]]) -> metrics.Series:
    """What `metrics.scrape` finds, in a process of its own, which gets a few seconds; nothing when it needs more."""
    question = json.dumps({"files": list(files), "definitions": [dict(definition) for definition in definitions]})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", metrics.__file__],
            input=question,
            capture_output=True,
            text=True,
            timeout=TIME_S,
            env={},
        )
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return {name: [(point[0], point[1], point[2]) for point in points] for name, points in found.items()}


def most_steps(expression: str, lengths: Sequence[int]) -> float:
    """A bound on the characters that a search of lines of these lengths compares; infinite where there is none.

    From each place of a line, each repetition may end at each place that follows, and each alternative may be taken.
    """
    try:
        ends, ways = _choices(parser.parse(expression), False)
    except (re.error, OverflowError, RecursionError):
        return 0.0  # it finds nothing
    except Endless:
        return math.inf
    return float(len(expression) * ways * sum((length + 1) ** (ends + 1) for length in lengths))


def _choices(tree: Any, repeated: bool) -> tuple[int, int]:
    """How many repetitions an expression has one after another, and how many ways its alternatives make.

    Raises: Endless where they are within each other, or something refers back.
    """
    ends, ways = 0, 1
    for code, argument in tree:
        inner: Sequence[Any] = ()
        within = repeated
        if code in REPEATS:
            least, most, body = argument
            if repeated:
                raise Endless
            few = most <= FEW
            ends, ways, within, inner = ends + (not few), ways * (most - least + 1 if few else 1), most > 1, (body,)
        elif code is op.BRANCH:
            if repeated:
                raise Endless
            ways, inner = ways * len(argument[1]), argument[1]
        elif code is op.SUBPATTERN:
            inner = (argument[3],)
        elif code in (op.ASSERT, op.ASSERT_NOT):
            inner = (argument[1],)
        elif code is op.ATOMIC_GROUP:
            inner = (argument,)
        elif code in (op.GROUPREF, op.GROUPREF_EXISTS):
            raise Endless
        for each in inner:
            more_ends, more_ways = _choices(each, within)
            ends, ways = ends + more_ends, ways * more_ways
    return ends, ways
