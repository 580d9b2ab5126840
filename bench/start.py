"""From `penstock up` to an answer, and the family's memory at rest, beside python with the same imports."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.world import Family, Row, family, median_of, pss_bytes

IMPORTS = "import penstock.cli.serve"


def measure(made: Family) -> list[Row]:
    limit = median_of(3, imports)
    ups = [made.up_s]
    for _ in range(2):
        with family() as another:
            ups.append(another.up_s)
    memory = pss_bytes(made.pids())
    return [
        Row("penstock up, until it answers", "s", sorted(ups)[1], limit, "python with the same imports", "<= 1.5 s"),
        Row(
            "memory of the family at rest (PSS)",
            "MB",
            memory / 1e6,
            None,
            "",
            "<= 150 MB",
            notes={"processes": len(made.pids())},
        ),
    ]


def imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - began
