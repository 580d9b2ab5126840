"""Who made or changed a resource, as CreatedBy and LastModifiedBy show it."""

from __future__ import annotations

from typing import Any

from penstock.kernel.call import Call


def author(call: Call) -> dict[str, Any]:
    """The caller as a UserContext; there are no Studio profiles."""
    identity = {"Arn": call.caller.arn}
    if call.caller.user_id:
        identity["PrincipalId"] = call.caller.user_id
    return {"IamIdentity": identity}
