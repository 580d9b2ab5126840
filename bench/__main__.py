"""Runs the parts and prints the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cache, control, demo, functions, s3, size, start, steps, transform, tuning
from bench.world import Row, family

PARTS = ("start", "steps", "cache", "demo", "control", "s3", "transform", "tuning", "lambda")
"""What `make bench` measures; `size` takes long, and is asked for by name."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measures Penstock beside the machine's limit, in one run."
    )
    parser.add_argument(
        "parts", nargs="*", default=PARTS, choices=[*PARTS, "size", []], metavar="part", help=f"of {', '.join(PARTS)}, size"
    )
    parser.add_argument("--peers", action="store_true", help="other servers beside the control plane and S3")
    parser.add_argument(
        "--json", type=Path, default=Path("bench/results/latest.json"), help="where the same goes as JSON"
    )
    given = parser.parse_args()
    rows: list[Row] = []
    for part in given.parts or PARTS:
        with family() as made:
            match part:
                case "start":
                    rows += start.measure(made)
                case "steps":
                    rows += steps.measure(made)
                case "cache":
                    rows += cache.measure(made)
                case "demo":
                    rows += demo.measure(made)
                case "control":
                    rows += control.measure(made, given.peers)
                case "size":
                    rows += size.measure(made)
                case "s3":
                    rows += s3.measure(made, given.peers)
                case "lambda":
                    rows += functions.measure(made)
                case "transform":
                    rows += transform.measure(made)
                case "tuning":
                    rows += tuning.measure(made)
    show(rows)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "time": time.time(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    given.json.write_text(
        json.dumps({"machine": about, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=2)
    )


def show(rows: list[Row]) -> None:
    table = Table(title="Penstock beside the limit, in one run", box=None, pad_edge=False)
    for name in ("what", "ours", "the limit", "ratio", "budget"):
        table.add_column(name, justify="left" if name in ("what", "the limit") else "right")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:,.1f} {row.unit}  {row.limit_name}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
        table.add_row(row.what, f"{row.ours:,.1f} {row.unit}", limit, ratio, row.budget)
    Console().print(table)


main()
