"""Metrics in a job's log: the numbers that regular expressions find, line by line.

Run as a program, it reads a question and prints the answer, as JSON: a user's expressions are tried in a process of
their own, since one of them may never come to an end.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

LOG_BYTES = 8 << 20
"""How much of a log's end is looked at."""
QUICK_BYTES = 256 << 10
"""So much is read within an engine step's 50 ms."""
LINE_CHARS = 4096
POINTS = 5000
"""Kept of one metric: the last ones."""

Series = dict[str, list[tuple[float, float, float]]]
"""Points (moment, value, step) of each metric."""


def scrape(files: Sequence[str], definitions: Sequence[Mapping[str, str]]) -> Series:
    """All metrics that the logs tell."""
    wanted = []
    for definition in definitions:
        try:
            wanted.append((definition["Name"], re.compile(definition["Regex"])))
        except re.error:
            continue
    series: Series = {}
    for moment, text in lines(files):
        for name, expression in wanted:
            match = expression.search(text)
            if match and match.re.groups and (value := number(match.group(1))) is not None:
                points = series.setdefault(name, [])
                points.append((moment, value, float(len(points))))
    return {name: points[-POINTS:] for name, points in series.items()}


def size_bytes(files: Iterable[str]) -> int:
    """How long the logs are together; one that is not there is empty."""
    return sum(os.path.getsize(path) for path in files if os.path.exists(path))


def lines(files: Iterable[str]) -> Iterator[tuple[float, str]]:
    """The moment and text of each line, in order of time."""
    every: list[tuple[float, str]] = []
    for path in files:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
                data = file.read(LOG_BYTES)
        except FileNotFoundError:
            continue
        for line in data.decode("utf-8", "replace").splitlines():
            stamp, _, text = line.partition(" ")
            if stamp.isdigit():
                every.append((int(stamp) / 1000, text[:LINE_CHARS]))
    every.sort(key=lambda pair: pair[0])
    yield from every


def number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump(scrape(asked["files"], asked["definitions"]), sys.stdout)
