"""Tags, as a client gives them and as it is shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kernel.errors import ServiceError

MOST = 50
"""Tags a resource can have."""


def parse(tags: Sequence[Mapping[str, Any]], code: str = "ValidationException", folded: bool = False) -> dict[str, str]:
    """Key and value of each tag given. `folded`: keys that differ in case only are the same (IAM's are).

    Raises: ServiceError (with the service's code for a bad value) for a key given twice, or one that is AWS's own.
    """
    parsed = {tag["Key"]: tag.get("Value", "") for tag in tags}
    if len({key.lower() for key in parsed} if folded else parsed) < len(tags):
        raise ServiceError(code, "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if own := [key for key in parsed if key.lower().startswith("aws:")]:
        raise ServiceError(
            code, f"Tag keys that start with aws: are reserved for the service, and cannot be set: {own[0]}"
        )
    return parsed


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """The form that answers have, by key."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def check_count(tags: Mapping[str, str], code: str = "ValidationException", status: int = 400) -> None:
    """Raises: ServiceError for more tags than a resource can have."""
    if len(tags) > MOST:
        raise ServiceError(code, f"A resource can have at most {MOST} tags; this one would have {len(tags)}.", status)
