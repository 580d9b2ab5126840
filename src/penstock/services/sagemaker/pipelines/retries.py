"""Retry policies: which kind of exception a failure is, and how long a step waits before it tries again. Pure.

Source: docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.kernel.errors import ServiceError
from penstock.services.sagemaker.pipelines.definition import Step

SERVICE_FAULT, THROTTLING = "Step.SERVICE_FAULT", "Step.THROTTLING"
INTERNAL_ERROR, CAPACITY = "SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR"
RESOURCE_LIMIT = "SageMaker.RESOURCE_LIMIT"

INTERVAL_S, BACKOFF_RATE, MAX_ATTEMPTS = 1.0, 2.0, 5
UNASKED: dict[str, Any] = {"ExceptionType": [SERVICE_FAULT, THROTTLING]}
"""The policy of every step, after its own."""
TRIED_INSIDE = frozenset({"Tuning", "AutoML"})
"""Types of steps whose jobs try again by themselves after an internal error."""
THROTTLED = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})
REASONS = {
    "InternalServerError": INTERNAL_ERROR,
    "CapacityError": CAPACITY,
    "InsufficientCapacityError": CAPACITY,
    "ResourceLimitExceeded": RESOURCE_LIMIT,
}
"""What a job's FailureReason begins with."""


def kind_of_error(fault: ServiceError) -> str | None:
    """The kind of exception that an operation's error is; None for one that no policy is for."""
    if fault.code in THROTTLED:
        return THROTTLING
    if fault.code == "ResourceLimitExceeded":
        return RESOURCE_LIMIT
    return SERVICE_FAULT if fault.status >= 500 and fault.status != 501 else None


def kind_of_failure(reason: str) -> str | None:
    """The kind of exception that a failed job tells of in its FailureReason."""
    return REASONS.get(reason.removeprefix("ClientError: ").partition(":")[0])


def pause(step: Step, entry: Mapping[str, Any], kind: str | None, now: float) -> tuple[int, float] | None:
    """The policy that a step tries again by, and after how many seconds; None where it does not.

    Takes: `entry`, what the execution knows of the step: "began", and "retries", how often each policy was used.
    """
    if kind is None or (kind == INTERNAL_ERROR and step.type in TRIED_INSIDE):
        return None
    policies = [*(step.raw.get("RetryPolicies") or []), UNASKED]
    found = next(((index, policy) for index, policy in enumerate(policies) if kind in _kinds(policy)), None)
    if found is None:
        return None
    index, policy = found
    used = int(entry.get("retries", {}).get(str(index), 0))
    expires_min = policy.get("ExpireAfterMin")
    if expires_min is not None:
        if now - float(entry["began"]) > float(expires_min) * 60:
            return None
    elif used >= _given(policy, "MaxAttempts", MAX_ATTEMPTS):
        return None
    return index, _given(policy, "IntervalSeconds", INTERVAL_S) * _given(policy, "BackoffRate", BACKOFF_RATE) ** used


def _kinds(policy: Mapping[str, Any]) -> list[Any]:
    kinds = policy.get("ExceptionType")
    return kinds if isinstance(kinds, list) else [kinds]


def _given(policy: Mapping[str, Any], member: str, default: float) -> float:
    value = policy.get(member)
    return default if value is None else float(value)
