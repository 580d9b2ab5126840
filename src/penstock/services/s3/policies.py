"""Bucket policies and the public-access block: checked as S3 checks them when they are put, kept, and shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.store.records import Document

POLICY_BYTES = 20 * 1024
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
NARROWING = (
    "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount", "aws:principalorgid",
    "aws:userid", "aws:principalarn", "aws:principalaccount", "s3:dataaccesspointarn", "s3:dataaccesspointaccount",
)  # fmt: skip
"""Condition keys that, with a fixed value, make a statement for everybody one that is not public."""
VERSIONS = ("2012-10-17", "2008-10-17")


def malformed(sentence: str) -> ServiceError:
    """The answer to a policy that says nothing S3 can keep."""
    return ServiceError("MalformedPolicy", sentence)


def check_policy(call: Call, bucket: Document, text: str) -> str:
    """Gives the policy to keep.

    Raises: ServiceError MalformedPolicy; AccessDenied for a public one where public policies are blocked.
    """
    statements = read_statements(text)
    for statement in statements:
        _check_statement(bucket, statement)
    if blocked(bucket, "BlockPublicPolicy") and any(is_public(each) for each in statements):
        sentence = (
            f"User: {call.caller.arn} is not authorized to perform: s3:PutBucketPolicy on resource: "
            f'"{bucket.arn}" because public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.'
        )
        raise ServiceError("AccessDenied", sentence, 403)
    return text


def read_statements(text: str) -> list[dict[str, Any]]:
    """Gives a policy's statements. Raises: ServiceError MalformedPolicy."""
    if len(text.encode()) > POLICY_BYTES:
        raise malformed("Policy exceeds the maximum allowed document size.")
    try:
        policy = json.loads(text)
    except (ValueError, RecursionError):
        policy = None
    if not isinstance(policy, dict):
        raise malformed("Policies must be valid JSON and the first byte must be '{'")
    for name in policy:
        if name not in ("Version", "Id", "Statement"):
            raise malformed(f"Unknown field {name}")
    if policy.get("Version", VERSIONS[0]) not in VERSIONS:
        raise malformed("The policy must contain a valid version string")
    statements = policy.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not all(isinstance(each, dict) for each in statements):
        raise malformed("Missing required field Statement")
    if not statements:
        raise malformed("Could not parse the policy: Statement is empty!")
    return statements


def _check_statement(bucket: Document, statement: Mapping[str, Any]) -> None:
    if statement.get("Effect") not in ("Allow", "Deny"):
        found = statement.get("Effect")
        raise malformed("Missing required field Effect" if found is None else f"Invalid effect: {found}")
    for names in (("Principal", "NotPrincipal"), ("Action", "NotAction"), ("Resource", "NotResource")):
        if not any(statement.get(name) for name in names):
            raise malformed(f"Missing required field {names[0]}")
    conditions = statement.get("Condition") or {}
    if not isinstance(conditions, dict) or not all(isinstance(each, dict) for each in conditions.values()):
        raise malformed("Policy has invalid condition")
    principal = statement.get("Principal") or statement.get("NotPrincipal")
    if not (principal == "*" or isinstance(principal, dict)):
        raise malformed("Invalid principal in policy")
    for action in several(statement.get("Action") or statement.get("NotAction")):
        if action != "*" and not (isinstance(action, str) and action.startswith("s3:")):
            raise malformed("Policy has invalid action")
    for resource in several(statement.get("Resource") or statement.get("NotResource")):
        if not (isinstance(resource, str) and _names(resource, bucket)):
            raise malformed("Policy has invalid resource")


def _names(resource: str, bucket: Document) -> bool:
    """Tells whether a resource is the bucket, or in it."""
    return resource == bucket.arn or resource.startswith(f"{bucket.arn}/") or (
        resource.endswith("*") and bucket.arn.startswith(resource[:-1]) and resource.startswith("arn:aws:s3:::")
    )  # fmt: skip


def several(value: Any) -> Sequence[Any]:
    """Gives a list of what may be one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def is_public(statement: Mapping[str, Any]) -> bool:
    """Tells whether a statement allows something to everybody, as S3 means "public"."""
    if statement.get("Effect") != "Allow":
        return False
    principal = statement.get("Principal")
    everybody = principal == "*" or (isinstance(principal, dict) and "*" in several(principal.get("AWS")))
    if not everybody and statement.get("NotPrincipal") is None:
        return False
    for kind, given in (statement.get("Condition") or {}).items():
        if not isinstance(given, dict) or "not" in kind.lower():
            continue
        for key, values in given.items():
            if key.lower() == "aws:sourceip" and "0.0.0.0/0" not in several(values):
                return False
            if key.lower() in NARROWING and not any("*" in str(value) for value in several(values)):
                return False
    return True


def blocked(bucket: Document, name: str) -> bool:
    """Tells whether one of the four public-access blocks is on: all are, until somebody says otherwise."""
    settings = bucket.body.get("_settings") or {}
    given = settings.get("PublicAccessBlockConfiguration", dict.fromkeys(BLOCKS, True))
    return bool((given or {}).get(name))
