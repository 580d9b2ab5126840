"""The operations on tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kernel import pages, tags
from penstock.kernel.call import Call, slow
from penstock.kernel.errors import ServiceError
from penstock.services.resourcegroupstaggingapi import rules
from penstock.services.resourcegroupstaggingapi.state import GLOBALS_REGION, NAMES, RESOURCES, invalid
from penstock.store.records import GLOBAL, TagsGone, TagsPut

MOST_RESOURCES, MOST_TAGS = 100, 500
"""What a page may be asked to hold; TagsPerPage is looked at, and pages are of resources."""
Tagged = Mapping[str, Mapping[str, str]]


@slow
def get_resources(call: Call) -> dict[str, Any]:
    """The resources of the account and region that have tags, filtered.

    Differs: a resource whose tags were all taken away is not shown; compliance with tag policies is not told.
    """
    given = call.params
    named = given.get("ResourceARNList")
    if named and {"TagFilters", "ResourceTypeFilters", "ResourcesPerPage", "TagsPerPage", "PaginationToken"} & {
        name for name, value in given.items() if value not in ("", [])
    }:
        raise invalid("ResourceARNList cannot be given together with filters or pages.")
    if not 1 <= given.get("ResourcesPerPage", 1) <= MOST_RESOURCES:
        raise invalid(f"ResourcesPerPage must be between 1 and {MOST_RESOURCES}.")
    if not MOST_RESOURCES <= given.get("TagsPerPage", MOST_RESOURCES) <= MOST_TAGS:
        raise invalid(f"TagsPerPage must be between {MOST_RESOURCES} and {MOST_TAGS}.")
    found = [
        (arn, held)
        for arn, held in _tagged(call).items()
        if (not named or arn in named)
        and rules.fits_types(arn, given.get("ResourceTypeFilters", ()))
        and rules.fits_tags(held, given.get("TagFilters", ()))
    ]
    return _whole(
        pages.cut(
            call, "ResourceTagMappingList", found, lambda one: one[0], paging=RESOURCES,
            show=lambda one: {"ResourceARN": one[0], "Tags": tags.listed(one[1])},
        )
    )  # fmt: skip


@slow
def get_tag_keys(call: Call) -> dict[str, Any]:
    keys = {key for held in _tagged(call).values() for key in held}
    return _whole(pages.cut(call, "TagKeys", list(keys), lambda key: key, paging=NAMES))


@slow
def get_tag_values(call: Call) -> dict[str, Any]:
    wanted = call.params["Key"]
    values = {held[wanted] for held in _tagged(call).values() if wanted in held}
    return _whole(pages.cut(call, "TagValues", list(values), lambda value: value, paging=NAMES))


def tag_resources(call: Call) -> dict[str, Any]:
    """Sets tags of each resource; those that it cannot are told apart."""
    given = tags.parse([{"Key": key, "Value": value} for key, value in call.params["Tags"].items()])
    failed = {}
    for arn in call.params["ResourceARNList"]:
        try:
            _set(call, arn, given)
        except ServiceError as fault:
            failed[arn] = _failure(fault)
    return {"FailedResourcesMap": failed}


def untag_resources(call: Call) -> dict[str, Any]:
    """Takes tags from each resource; those that it cannot are told apart."""
    failed = {}
    for arn in call.params["ResourceARNList"]:
        try:
            _drop(call, arn, call.params["TagKeys"])
        except ServiceError as fault:
            failed[arn] = _failure(fault)
    return {"FailedResourcesMap": failed}


def _whole(answer: dict[str, Any]) -> dict[str, Any]:
    """The last page has an empty token, not none."""
    return {"PaginationToken": "", **answer}


def _failure(fault: ServiceError) -> dict[str, Any]:
    return {"StatusCode": 400, "ErrorCode": "InvalidParameterException", "ErrorMessage": fault.message}


# --- reading
def _tagged(call: Call) -> Tagged:
    found: dict[str, Mapping[str, str]] = dict(call.app.store.tagged(call.account, call.region))
    if call.region == GLOBALS_REGION:
        found.update(call.app.store.tagged(call.account, ""))
    for bucket in call.other("s3", "ListBuckets").get("Buckets", []):
        region = bucket.get("BucketRegion", GLOBALS_REGION)
        if region == call.region and (held := _bucket_tags(call, bucket["Name"])):
            found[f"arn:aws:s3:::{bucket['Name']}"] = held
    return found


def _bucket_tags(call: Call, bucket: str) -> dict[str, str]:
    try:
        held = call.other("s3", "GetBucketTagging", Bucket=bucket)["TagSet"]
    except ServiceError as fault:
        if fault.code == "NoSuchTagSet":
            return {}
        raise
    return {tag["Key"]: tag["Value"] for tag in held}


# --- writing
def _set(call: Call, arn: str, given: Mapping[str, str]) -> None:
    match _service(call, arn):
        case "s3":
            bucket = arn.rpartition(":")[2]
            _write_bucket(call, bucket, {**_bucket_tags(call, bucket), **given})
        case "logs":
            call.other("logs", "TagResource", resourceArn=arn, tags=dict(given))
        case _:
            tags.check_count({**call.app.store.tags(arn), **given})
            call.row(TagsPut(arn=arn, tags=dict(given)))


def _drop(call: Call, arn: str, keys: Sequence[str]) -> None:
    match _service(call, arn):
        case "s3":
            bucket = arn.rpartition(":")[2]
            left = {key: value for key, value in _bucket_tags(call, bucket).items() if key not in keys}
            _write_bucket(call, bucket, left)
        case "logs":
            call.other("logs", "UntagResource", resourceArn=arn, tagKeys=list(keys))
        case _:
            call.row(TagsGone(arn=arn, keys=list(keys)))


def _write_bucket(call: Call, bucket: str, held: Mapping[str, str]) -> None:
    if held:
        call.other("s3", "PutBucketTagging", Bucket=bucket, Tagging={"TagSet": tags.listed(held)})
    else:
        call.other("s3", "DeleteBucketTagging", Bucket=bucket)


def _service(call: Call, arn: str) -> str:
    """The service of a resource that is there and the caller's.

    Raises: ServiceError InvalidParameterException.
    """
    parts = arn.split(":", 5)
    if len(parts) < 6:
        raise invalid(f"{arn} is not a valid ARN.")
    if parts[2] in ("s3", "logs"):
        return parts[2]
    found = call.app.store.by_arn(arn)
    if found is None or found.account != call.account or found.region not in (call.region, GLOBAL):
        raise invalid(f"The resource {arn} does not exist.")
    return parts[2]
