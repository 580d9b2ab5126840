"""What AWS bills for jobs: billable seconds, times instances, times the price of an instance, from the dated table in prices.toml.

Source: aws.amazon.com/sagemaker/pricing: by the second, without a minimum; spot training by BillableTimeInSeconds.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Prices:
    """The table: US dollars an hour, on demand, by instance type."""

    date: str
    source: str
    regions: tuple[str, ...]
    hour: Mapping[str, float]

    def header(self, region: str) -> str:
        """A sentence that says whose prices these are, of when, and what is left out."""
        told = region if region in self.regions else f"{self.regions[0]} (there are none of {region} here)"
        return (
            f"{self.source[:1].upper()}{self.source[1:]}, {told}, {self.date}; storage, data transfer, the free tier and taxes are "
            "left out."
        )


@dataclass(frozen=True, slots=True)
class Use:
    """Instances of one type, and the seconds that are billed for each of them."""

    instance_type: str | None
    """None where it is known at run time only."""
    count: int | None
    billable_s: float | None = None
    """None where it is not known."""
    ran_s: float | None = None
    """How long they ran, where that is not what is billed: managed spot training."""

    @property
    def usd(self) -> float | None:
        """The price; None where something of it is not known."""
        hour = prices().hour.get(self.instance_type or "")
        if hour is None or self.count is None or self.billable_s is None:
            return None
        return hour * self.count * self.billable_s / HOUR_S

    @property
    def unpriced(self) -> bool:
        """Whether it is of a type that the table does not have."""
        return self.instance_type is not None and self.instance_type not in prices().hour


@lru_cache(maxsize=1)
def prices() -> Prices:
    """The table of this package."""
    read = tomllib.loads(Path(__file__).with_name("prices.toml").read_text())
    return Prices(read["date"], read["source"], tuple(read["regions"]), read["hour"])


def total(uses: list[Use]) -> float | None:
    """What several cost together; None where one of them is not known."""
    known = [use.usd for use in uses]
    return None if None in known else math.fsum(usd for usd in known if usd is not None)


# --- resources
KINDS = {
    "sagemaker.training-job": "Training",
    "sagemaker.processing-job": "Processing",
    "sagemaker.transform-job": "Transform",
}
"""The kinds of jobs that have instances, and the type of step that makes each."""
RESOURCES = {
    "Training": ("ResourceConfig",),
    "Processing": ("ProcessingResources", "ClusterConfig"),
    "Transform": ("TransformResources",),
}
"""By the type of a step, where its arguments (and its job's Describe answer) name the instances."""


def times_of(kind: str) -> tuple[str, str]:
    """The members that say when a job of a type of step began and ended."""
    return f"{kind}StartTime", f"{kind}EndTime"


def uses_of(kind: str, body: Mapping[str, Any]) -> list[Use]:
    """The instances that a job of a type of step asks for; nothing of their time is known yet."""
    found: Any = body
    for member in RESOURCES.get(kind, ()):
        found = found.get(member) if isinstance(found, Mapping) else None
    if kind not in RESOURCES or not isinstance(found, Mapping):
        return []
    return [
        Use(_text(group.get("InstanceType")), number(group.get("InstanceCount")))
        for group in found.get("InstanceGroups") or [found]
    ]


def billed(kind: str, body: Mapping[str, Any]) -> list[Use]:
    """What is billed for an ended job; nothing where its program never began."""
    seconds = seconds_of(kind, body)
    if seconds is None:
        return []
    ran_s, billable_s = seconds
    return [Use(use.instance_type, use.count, billable_s, ran_s) for use in uses_of(kind, body)]


def seconds_of(kind: str, body: Mapping[str, Any]) -> tuple[float, float] | None:
    """How long an ended job's program ran, and how many seconds of it are billed; None where it never ran."""
    if kind == "Training":
        if "BillableTimeInSeconds" not in body:
            return None
        return float(body["TrainingTimeInSeconds"]), float(body["BillableTimeInSeconds"])
    start, end = times_of(kind)
    if start not in body or end not in body:
        return None
    seconds = float(max(1, math.ceil(body[end] - body[start])))
    return seconds, seconds


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def number(value: Any) -> int | None:
    """A count, which parameters may bring as text."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
