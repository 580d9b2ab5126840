"""Filters: pure functions over an ARN and its tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def kind_of(arn: str) -> str:
    """The "service:type" of an ARN as the filters name it: "sagemaker:model"; S3's buckets are "s3"."""
    service, rest = arn.split(":", 5)[2], arn.split(":", 5)[5]
    if service == "s3":
        return "s3"
    return f"{service}:{rest.partition('/')[0].partition(':')[0]}"


def fits_types(arn: str, types: Sequence[str]) -> bool:
    """Whether one of the types is the resource's, or its service; none asked for are all."""
    kind = kind_of(arn)
    asked = {kind, kind.replace("-", ""), kind.partition(":")[0], f"{kind}:bucket" if kind == "s3" else kind}
    return not types or not asked.isdisjoint(types)


def fits_tags(tags: Mapping[str, str], filters: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every filter's key is there, with one of its values where it names some."""
    return all(
        one["Key"] in tags and (not one.get("Values") or tags[one["Key"]] in one["Values"])
        for one in filters
        if one.get("Key")
    )
