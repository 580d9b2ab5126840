"""Object Lock, which no bucket here can have: what S3 answers for buckets without it."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import state


def get_object_lock_configuration(call: Call) -> dict[str, Any]:
    """Raises: ServiceError ObjectLockConfigurationNotFoundError.

    Differs: no bucket has Object Lock: CreateBucket with it, and PutObjectLockConfiguration, are not served.
    """
    bucket = state.bucket_of(call)
    told = "Object Lock configuration does not exist for this bucket"
    raise ServiceError("ObjectLockConfigurationNotFoundError", told, 404, BucketName=bucket.name)


def get_object_retention(call: Call) -> dict[str, Any]:
    """Raises: ServiceError InvalidRequest."""
    raise _without(call)


def get_object_legal_hold(call: Call) -> dict[str, Any]:
    """Raises: ServiceError InvalidRequest."""
    raise _without(call)


def check_bypass(call: Call) -> None:
    """Raises: ServiceError InvalidArgument where a deletion would pass over a lock."""
    if call.params.get("BypassGovernanceRetention") is not None:
        header = "x-amz-bypass-governance-retention"
        told = f"{header} is only applicable to Object Lock enabled buckets."
        raise ServiceError("InvalidArgument", told, 400, ArgumentName=header)


def _without(call: Call) -> ServiceError:
    state.bucket_of(call)
    return ServiceError("InvalidRequest", "Bucket is missing Object Lock Configuration", 400)
