"""What came of a run: each test with its outcome and, where it did not pass, the reason."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suite import Row

REASONS = Path(__file__).with_name("reasons.toml")
UNSERVED = re.compile(r"\((?:NotImplemented|UnknownService)\) when calling the (\w+) operation")
"""What a fixture was told that the test before has called already."""
COLUMNS = ("passed", "not served", "fails", "unexplained", "not applicable", "skipped")


@dataclass
class Reasons:
    """Why tests do not count, and why tests fail: (pattern of a node id, reason)."""

    not_applicable: list[tuple[str, str]]
    fails: list[tuple[str, str]]

    @classmethod
    def read(cls, suite: str) -> Reasons:
        told = tomllib.loads(REASONS.read_text())

        def rows(kind: str) -> list[tuple[str, str]]:
            entries = [entry for entry in told.get(kind, []) if entry["suite"] == suite]
            return [(node, entry["reason"]) for entry in entries for node in entry["tests"]]

        return cls(rows("not_applicable"), rows("fails"))


def reason(node: str, table: list[tuple[str, str]]) -> str:
    """The reason of the entry that is the test, its function without parameters, its class or its file."""
    parts = node.split("[", 1)[0].split("::")
    names = [node, *("::".join(parts[:count]) for count in range(len(parts), 0, -1))]
    return next((why for pattern, why in table if any(_is(name, pattern) for name in names)), "")


def _is(name: str, pattern: str) -> bool:
    return name == pattern or ("*" in pattern and fnmatch.fnmatchcase(name, pattern))


def classified(rows: list[Row], reasons: Reasons) -> list[Row]:
    """Each row with its column, and why it is there."""
    found = []
    for row in rows:
        column, why = row["outcome"], row["why"]
        unserved = sorted({key.rsplit(" ", 2)[0] for key in row["refused"] if " 501 " in key}) or UNSERVED.findall(why)
        said = reason(row["id"], reasons.not_applicable) if column != "passed" else ""
        if said:
            column, why = "not applicable", said
        elif column not in ("passed", "skipped"):
            if unserved:
                column, why = "not served", "wants " + ", ".join(unserved)
            elif said := reason(row["id"], reasons.fails):
                column, why = "fails", said
            else:
                column = "unexplained"
        found.append({**row, "column": column, "why": why})
    return found


def table(rows: list[Row]) -> str:
    """The table of `docs/conformance.md`: a line a group."""
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        for name in (row["group"], "all"):
            groups.setdefault(name, Counter())[row["column"]] += 1
    groups["all"] = groups.pop("all", Counter())
    lines = ["| | " + " | ".join((*COLUMNS, "of what applies")) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, counts in groups.items():
        applies = counts["passed"] + counts["fails"] + counts["unexplained"]
        share = f"{100 * counts['passed'] / applies:.1f} %" if applies else ""
        lines.append(f"| {name} | " + " | ".join([*(str(counts[column] or "") for column in COLUMNS), share]) + " |")
    return "\n".join(lines)


def told(rows: list[Row], out: Path, about: dict[str, object]) -> int:
    """Prints the table and what has no reason; writes everything to `out`. Gives the exit code."""
    rows = sorted(rows, key=lambda row: (row["group"], row["id"]))
    out.write_text(json.dumps({**about, "tests": rows}, indent=1) + "\n")
    print(table(rows))
    wanted = Counter(
        name for row in rows if row["column"] == "not served" for name in row["why"].removeprefix("wants ").split(", ")
    )
    if wanted:
        print("\nnot served, by tests that wanted it: " + ", ".join(f"{k} {n}" for k, n in wanted.most_common(40)))
    open_ones = [row for row in rows if row["column"] == "unexplained"]
    for row in open_ones:
        print(f"\n{row['id']}\n    {row['why'][:300]}")
    return 1 if open_ones else 0
