"""The grammar of identity policies: what IAM refuses, in the order in which it looks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from penstock.kernel.errors import ServiceError

VERSION = "2012-10-17"
FIELDS = frozenset(("Version", "Id", "Statement"))
PARTS = frozenset(("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"))
OPERATOR = re.compile(
    r"(?:For(?:Any|All)Values?:)?(?:String(?:Not)?(?:Equals|EqualsIgnoreCase|Like)"
    r"|(?:Numeric|Date)(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Bool|BinaryEquals|(?:Not)?IpAddress"
    r"|Arn(?:Not)?(?:Equals|Like)|Null)(?:IfExists)?",
    re.IGNORECASE,
)
DATE = re.compile(
    r"-?\d{1,18}|(?:\d{4}-\d\d-\d\d|\d{2,4})(?:[Tt](?:\d{1,2}:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d(?::\d\d)?)?)?)?"
)
VENDOR = re.compile(r"[a-zA-Z0-9-]+")
PREFIX = re.compile(r"[a-zA-Z0-9.-]+")
PARTITIONS = ("aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "*")
IAM_PATHS = ("user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/",
             "policy/", "sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/")  # fmt: skip
REGIONAL = ("accesspoint/", "job/", "storage-lens/", "access-grants/")
"""S3's resources that lie in a region; buckets and objects are named without one."""


def malformed(sentence: str) -> ServiceError:
    return ServiceError("MalformedPolicyDocument", sentence)


def check(document: Any) -> None:
    """Raises: ServiceError MalformedPolicyDocument for what is no identity policy."""
    if not _is_policy(document):
        raise malformed("Syntax errors in policy.")
    if document.get("Version") != VERSION:
        raise malformed("Policy document must be version 2012-10-17 or greater.")
    statements = _many(document["Statement"])
    if not all(_is_of_old(statement) for statement in statements):
        raise malformed("The policy failed legacy parsing")
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(set(sids)) < len(sids):
        raise malformed("Statement IDs (SID) in a single policy must be unique.")
    for look in (_check_actions, _check_resources, _check_colons):
        for statement in statements:
            look(statement)


# --- syntax
def _is_policy(document: Any) -> bool:
    if not isinstance(document, dict) or not document.keys() <= FIELDS:
        return False
    if not isinstance(document.get("Id", ""), str) or document.get("Version", VERSION) not in (VERSION, "2008-10-17"):
        return False
    statements = _many(document.get("Statement", []))
    return bool(statements) and all(_is_statement(statement) for statement in statements)


def _is_statement(statement: Any) -> bool:
    if (
        not isinstance(statement, dict)
        or not statement.keys() <= PARTS
        or not isinstance(statement.get("Sid", ""), str)
    ):
        return False
    if str(statement.get("Effect")).lower() not in ("allow", "deny"):
        return False
    if any(name in statement and f"Not{name}" in statement for name in ("Action", "Resource")):
        return False
    actions = [one for name in ("Action", "NotAction") if name in statement for one in _many(statement[name])]
    named = [*actions, *_resources(statement)]
    return all(isinstance(one, str) for one in named) and _is_condition(statement.get("Condition", {}))


def _is_condition(condition: Any) -> bool:
    return isinstance(condition, dict) and all(
        isinstance(keys, dict)
        and (not keys or OPERATOR.fullmatch(operator))
        and all(isinstance(one, (str, bool, int, float)) for value in keys.values() for one in _many(value))
        for operator, keys in condition.items()
    )


# --- what the old parser refuses
def _is_of_old(statement: dict[str, Any]) -> bool:
    dates = (
        one
        for operator, keys in statement.get("Condition", {}).items()
        if operator.rpartition(":")[2].lower().startswith("date")
        for value in keys.values()
        for one in _many(value)
    )
    if statement["Effect"] not in ("Allow", "Deny") or not all(_is_date(str(one)) for one in dates):
        return False
    for resource in _resources(statement):
        parts = resource.split(":", 5)
        if resource.startswith("arn:aws:") and (3 < len(parts) < 6 or not parts[2]):
            return False
    return True


def _is_date(text: str) -> bool:
    return DATE.fullmatch(text) is not None


# --- actions and resources
def _check_actions(statement: dict[str, Any]) -> None:
    actions = _many(statement.get("Action", statement.get("NotAction", [])))
    if not actions:
        raise malformed("Policy statement must contain actions.")
    for action in actions:
        if action != "*" and ":" not in action:
            raise malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    if not list(_resources(statement)):
        raise malformed("Policy statement must contain resources.")


def _check_colons(statement: dict[str, Any]) -> None:
    for action in _many(statement.get("Action", statement.get("NotAction", []))):
        if action.count(":") > 1:
            raise malformed("Actions/Condition can contain only one colon.")
        vendor = action.partition(":")[0]
        if action != "*" and not PREFIX.fullmatch(vendor):
            raise malformed(f"Vendor {vendor} is not valid")


def _check_resources(statement: dict[str, Any]) -> None:
    for resource in _resources(statement):
        if resource == "*":
            continue
        if ":" not in resource:
            raise malformed(f'Resource {resource} must be in ARN format or "*".')
        _, partition, vendor, region, account, path = (*resource.split(":", 5), *["*"] * 5)[:6]
        if partition not in PARTITIONS:
            told = f"arn:{partition}:{vendor}:{region}:{account}:{path}"
            raise malformed(f'Partition "{partition}" is not valid for resource "{told}".')
        if resource.count(":") < 2 or not VENDOR.fullmatch(vendor):
            raise malformed("Resource vendor must be fully qualified and cannot contain regexes.")
        if vendor == "iam":
            _check_iam(resource, region, path)
        elif vendor == "s3" and region and not path.startswith(REGIONAL):
            raise malformed(f"Resource {resource} can not contain region information.")


def _check_iam(resource: str, region: str, path: str) -> None:
    if region:
        raise malformed(f"IAM resource {resource} cannot contain region information.")
    if path not in ("*", "root") and not path.startswith(IAM_PATHS) and "*" not in path[:1]:
        raise malformed(f'IAM resource path must either be "*" or start with {", ".join(IAM_PATHS)}.')


def _resources(statement: dict[str, Any]) -> Iterator[str]:
    """What a statement is about; null in a list says nothing."""
    given = statement.get("Resource", statement.get("NotResource", []))
    yield from (one for one in given if one is not None) if isinstance(given, list) else (given,)


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
