"""Whom a role trusts: the part of trust policies that keeps accounts apart."""

from __future__ import annotations

import fnmatch
import json
import re
from typing import Any

ASSUMED = re.compile(r"arn:aws:sts::(\d{12}):assumed-role/([^/]+)/")


def trusts(policy: str, caller_arn: str, account: str) -> bool:
    """Whether a trust policy lets the caller assume its role.

    Differs: conditions are not looked at; a statement that has one does not allow.
    """
    allowed = False
    for statement in _listed(json.loads(policy).get("Statement", [])):
        if not _acts(statement) or not _names(statement.get("Principal", {}), caller_arn, account):
            continue
        if statement.get("Effect") == "Deny":
            return False
        allowed = allowed or not statement.get("Condition")
    return allowed


def _acts(statement: dict[str, Any]) -> bool:
    given = [action for action in _listed(statement.get("Action", [])) if isinstance(action, str)]
    return any(fnmatch.fnmatchcase("sts:assumerole", action.lower()) for action in given)


def _names(principal: Any, caller_arn: str, account: str) -> bool:
    given = principal.get("AWS", []) if isinstance(principal, dict) else []
    names = ["*"] if principal == "*" else [name for name in _listed(given) if isinstance(name, str)]
    return any(
        name in ("*", account, f"arn:aws:iam::{account}:root", caller_arn) or _is_role(name, caller_arn)
        for name in names
    )


def _is_role(name: str, caller_arn: str) -> bool:
    """A session's ARN has the role's name without its path."""
    assumed = ASSUMED.match(caller_arn)
    if not assumed:
        return False
    return name.startswith(f"arn:aws:iam::{assumed[1]}:role/") and name.rpartition("/")[2] == assumed[2]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
