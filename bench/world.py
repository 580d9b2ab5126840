"""A family of its own for a measurement, and what all parts share."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from penstock.runs.images.registry import LocalImages

IMAGES = Path(os.environ.get("PENSTOCK_BENCH_IMAGES", Path.home() / ".cache" / "penstock-bench" / "images"))
"""Environments of images are kept between runs: they are not what is measured."""


@dataclass
class Row:
    """One measurement: ours, the limit beside it, and the ratio that the budget speaks of."""

    what: str
    unit: str
    ours: float
    limit: float | None = None
    limit_name: str = ""
    budget: str = ""
    higher_is_better: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if not self.limit else self.ours / self.limit


@dataclass
class Family:
    data: Path
    about: dict[str, Any]
    keys: dict[str, str]
    up_s: float

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.about["url"], region_name="us-east-1", aws_access_key_id=self.keys["access_key_id"],
            aws_secret_access_key=self.keys["secret_access_key"], config=Config(proxies={}),
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        return os.environ | {"PENSTOCK_DATA": str(self.data)}

    def environment_of(self, uri: str) -> Path:
        """The folder of an image's environment, built if it is not there: the limit starts the same interpreter."""
        layer = Path(LocalImages(self.data / "images").pull(uri).layers[0])
        return layer / "opt" / "penstock" / "env"

    def pids(self) -> list[int]:
        """The keeper, its children, and the runner of this folder."""
        found = [int(self.about["pid"])]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    stat = (entry / "stat").read_text()
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                parent = int(stat[stat.rindex(")") + 2 :].split()[1])
                if parent == found[0] or (b"penstock.runs.runner" in command and str(self.data).encode() in command):
                    found.append(int(entry.name))
        return found


@contextmanager
def family() -> Iterator[Family]:
    """A server with real processes on free ports, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        IMAGES.mkdir(parents=True, exist_ok=True)
        (data / "images").symlink_to(IMAGES)
        environment = os.environ | {"PENSTOCK_DATA": str(data)}
        command = [sys.executable, "-m", "penstock"]
        began = time.perf_counter()
        up = subprocess.run(
            [*command, "up", "--detach", "--port", "0", "--doorway-port", "0", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        up_s = time.perf_counter() - began
        try:
            yield Family(data, json.loads(up.stdout), json.loads((data / "credentials.json").read_text()), up_s)
        finally:
            subprocess.run([*command, "down", "--jobs"], env=environment, capture_output=True, check=True)


def pss_bytes(pids: list[int]) -> int:
    """The proportional set size of processes together: shared pages count once."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def median_of(times: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(times))
