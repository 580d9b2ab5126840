"""Operations on roles."""

from __future__ import annotations

import itertools
from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call
from penstock.services.iam import holders
from penstock.services.iam.rules import check_trust, encoded
from penstock.services.iam.state import PROFILE, ROLE, USER, conflict, nothing
from penstock.store.records import Document, Query

LONGEST_S = 3600


def create_role(call: Call) -> dict[str, Any]:
    """Makes a role. Raises: ServiceError EntityAlreadyExists, MalformedPolicyDocument."""
    check_trust(call.params["AssumeRolePolicyDocument"])
    longest_s = call.params.get("MaxSessionDuration", LONGEST_S)
    role = holders.create_holder(call, ROLE, "AROA", "RoleId", MaxSessionDuration=longest_s)
    shown = _shown(role)
    return {"Role": {**shown, "Tags": call.params["Tags"]} if call.params.get("Tags") else shown}


def get_role(call: Call) -> dict[str, Any]:
    role = ROLE.get(call)
    return {"Role": {**holders.show_tagged(call, ROLE, role), **_shown(role)}}


def list_roles(call: Call) -> dict[str, Any]:
    answer = holders.page_holders(call, ROLE, "Roles")
    for role in answer["Roles"]:
        role["AssumeRolePolicyDocument"] = encoded(role["AssumeRolePolicyDocument"])
    return answer


def update_role(call: Call) -> dict[str, Any]:
    role = ROLE.get(call)
    given = {name: call.params[name] for name in ("Description", "MaxSessionDuration") if name in call.params}
    ROLE.save(call, role, **given)
    return {}


def update_role_description(call: Call) -> dict[str, Any]:
    return {"Role": _shown(ROLE.save(call, ROLE.get(call), Description=call.params["Description"]))}


def update_assume_role_policy(call: Call) -> None:
    ROLE.save(call, ROLE.get(call), AssumeRolePolicyDocument=check_trust(call.params["PolicyDocument"]))


def delete_role(call: Call) -> None:
    """Raises: ServiceError DeleteConflict while it has policies or is in an instance profile."""
    role = ROLE.get(call)
    if call.app.store.count(Query(kind=PROFILE.kind, account=call.account, parent=role.name)):
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    holders.delete_holder(call, ROLE)


def put_role_policy(call: Call) -> None:
    holders.put_inline(call, ROLE)


def get_role_policy(call: Call) -> dict[str, Any]:
    return holders.get_inline(call, ROLE)


def list_role_policies(call: Call) -> dict[str, Any]:
    return holders.page_inline(call, ROLE)


def delete_role_policy(call: Call) -> None:
    holders.delete_inline(call, ROLE)


def attach_role_policy(call: Call) -> None:
    holders.attach(call, ROLE)


def detach_role_policy(call: Call) -> None:
    holders.detach(call, ROLE)


def list_attached_role_policies(call: Call) -> dict[str, Any]:
    return holders.page_attached(call, ROLE)


def put_role_permissions_boundary(call: Call) -> None:
    holders.put_boundary(call, ROLE.get(call), call.params["PermissionsBoundary"])


def delete_role_permissions_boundary(call: Call) -> None:
    holders.delete_boundary(call, ROLE.get(call))


def tag_role(call: Call) -> None:
    holders.put_tags(call, ROLE.get(call))


def untag_role(call: Call) -> None:
    holders.delete_tags(call, ROLE.get(call))


def list_role_tags(call: Call) -> dict[str, Any]:
    return holders.page_tags(call, ROLE.get(call))


def simulate_principal_policy(call: Call) -> dict[str, Any]:
    """Says which of the actions a role or user may do.

    Differs: "allowed" for all of them: policies are kept, not enforced yet, so that is what would happen.
    Raises: ServiceError NoSuchEntity for a principal that is not there.
    """
    source = call.params["PolicySourceArn"]
    if not any(resource.find(call, source) for resource in (ROLE, USER)):
        raise nothing(f"The entity with ARN {source} cannot be found.")
    pairs = itertools.product(call.params["ActionNames"], call.params.get("ResourceArns") or ["*"])
    items = [
        {
            "EvalActionName": action,
            "EvalResourceName": arn,
            "EvalDecision": "allowed",
            "MatchedStatements": [],
            "MissingContextValues": [],
        }
        for action, arn in dict.fromkeys(pairs)
    ]
    return pages.cut(
        call,
        "EvaluationResults",
        items,
        lambda item: [item["EvalActionName"], item["EvalResourceName"]],
        paging=pages.MARKERS,
    )


def _shown(role: Document) -> dict[str, Any]:
    shown = ROLE.describe(role)
    return {**shown, "AssumeRolePolicyDocument": encoded(shown["AssumeRolePolicyDocument"])}
