"""The operations on a function's policy."""

from __future__ import annotations

import json
import re
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.lambda_.state import (
    FUNCTION,
    LATEST,
    Named,
    alias_ref,
    configuration_of,
    conflict,
    function_of,
    missing,
    named,
    new_revision,
    refused,
)
from penstock.store.records import Document

POLICY_BYTES = 20_480


def add_permission(call: Call) -> dict[str, Any]:
    """Keeps a statement.

    Differs: policies are kept, not enforced: services of the same account may invoke every function.
    """
    given, wanted = call.params, named(call)
    if wanted.qualifier == LATEST:
        raise refused(f"We currently do not support adding policies for {LATEST}.")
    function = _holder(call, wanted)
    policy = _policy(function, wanted)
    if given.get("RevisionId") and given["RevisionId"] != (policy or {}).get("RevisionId"):
        raise ServiceError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest "
            "Revision Id",
            412,
        )
    statements = list((policy or {}).get("Statement", []))
    if any(each["Sid"] == given["StatementId"] for each in statements):
        raise conflict(
            f"The statement id ({given['StatementId']}) provided already exists. Please provide a new statement id, or remove "
            "the existing statement."
        )
    statement = _statement(call, wanted)
    _keep(call, function, wanted, [*statements, statement])
    return {"Statement": json.dumps(statement)}


def get_policy(call: Call) -> dict[str, Any]:
    wanted = named(call)
    function = call.find(FUNCTION.ref(call, wanted.name))
    policy = _policy(function, wanted) if function is not None else None
    if policy is None:
        raise missing("The resource you requested does not exist.")
    told = {"Version": "2012-10-17", "Id": "default", "Statement": policy["Statement"]}
    return {"Policy": json.dumps(told), "RevisionId": policy["RevisionId"]}


def remove_permission(call: Call) -> None:
    wanted = named(call)
    if call.find(FUNCTION.ref(call, wanted.name)) is None:
        raise missing(f"No policy found for: {wanted.arn(call)}")
    function = _holder(call, wanted)
    policy = _policy(function, wanted)
    if policy is None:
        raise missing("No policy is associated with the given resource.")
    statements = policy["Statement"]
    left = [each for each in statements if each["Sid"] != call.params["StatementId"]]
    if len(left) == len(statements):
        raise missing(f"Statement {call.params['StatementId']} is not found in resource policy.")
    _keep(call, function, wanted, left)


def _holder(call: Call, wanted: Named) -> Document:
    """Raises: ServiceError ResourceNotFoundException."""
    function = function_of(call, Named(wanted.name))
    is_alias = re.fullmatch(r"[a-zA-Z0-9-_]+", wanted.qualifier) and not wanted.qualifier.isdecimal()
    if is_alias and call.find(alias_ref(function, wanted.qualifier)) is None:
        raise missing(f"Cannot find alias arn: {wanted.arn(call)}")
    return configuration_of(call, wanted)[0]


def _policy(function: Document, wanted: Named) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (function.body.get("_policies") or {}).get(wanted.qualifier)
    return found


def _keep(call: Call, function: Document, wanted: Named, statements: list[dict[str, Any]]) -> None:
    if len(json.dumps(statements)) > POLICY_BYTES:
        raise ServiceError("PolicyLengthExceededException", f"The final policy size is bigger than the limit ({POLICY_BYTES}).")
    policies = dict(function.body.get("_policies") or {})
    policies.pop(wanted.qualifier, None)
    if statements:
        policies[wanted.qualifier] = {"Statement": statements, "RevisionId": new_revision()}
    FUNCTION.save(call, function, _policies=policies or None)


def _statement(call: Call, wanted: Named) -> dict[str, Any]:
    """Raises: ServiceError for a principal that is none."""
    given = call.params
    principal = given["Principal"]
    if principal == "*":
        who: Any = "*"
    elif re.fullmatch(r"\d{12}", principal):
        who = {"AWS": f"arn:aws:iam::{principal}:root"}
    elif principal.startswith("arn:"):
        who = {"AWS": principal}
    elif re.fullmatch(r"[a-z0-9.-]+\.(amazonaws\.com|amazon\.com)(\.cn)?", principal):
        who = {"Service": principal}
    else:
        raise refused("The provided principal was invalid. Please check the principal and try again.")
    statement = {"Sid": given["StatementId"], "Effect": "Allow", "Principal": who, "Action": given["Action"]}
    statement["Resource"] = wanted.arn(call)
    conditions: dict[str, Any] = {}
    for member, operator, name in (
        ("SourceArn", "ArnLike", "AWS:SourceArn"),
        ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
        ("EventSourceToken", "StringEquals", "lambda:EventSourceToken"),
        ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
        ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
    ):
        if given.get(member):
            conditions.setdefault(operator, {})[name] = given[member]
    return statement | ({"Condition": conditions} if conditions else {})
