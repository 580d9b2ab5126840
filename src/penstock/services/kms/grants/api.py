"""Operations on grants: kept and shown."""

from __future__ import annotations

import secrets
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.kms.state import GRANT, alive, key_of
from penstock.store.records import Document

KEPT = ("GranteePrincipal", "RetiringPrincipal", "Operations", "Constraints", "Name")


def create_grant(call: Call) -> dict[str, Any]:
    """Keeps a grant.

    Differs: who is granted nothing may use the key all the same.
    """
    key = alive(key_of(call))
    given = {name: call.params[name] for name in KEPT if name in call.params}
    if "GranteePrincipal" not in given:
        raise ServiceError("ValidationException", "A grant needs a grantee principal.")
    if name := given.get("Name"):
        for known in GRANT.all(call, key.name):
            if known.body.get("Name") == name and all(known.body.get(one) == given.get(one) for one in KEPT):
                return {"GrantId": known.name, "GrantToken": known.body["_token"]}
    token = secrets.token_hex(32)
    body = {**given, "KeyId": key.arn, "IssuingAccount": f"arn:aws:iam::{call.account}:root", "_token": token}
    body.setdefault("Name", "")
    grant = GRANT.create(call, secrets.token_hex(32), body=body, parent=key.name)
    return {"GrantId": grant.name, "GrantToken": token}


def list_grants(call: Call) -> dict[str, Any]:
    key = alive(key_of(call))
    asked = {name: call.params[name] for name in ("GrantId", "GranteePrincipal") if call.params.get(name)}
    return GRANT.page(
        call, "Grants", descending=False, parent=key.name,
        keep=lambda grant: all(grant.body.get(name) == value for name, value in asked.items()),
    )  # fmt: skip


def list_retirable_grants(call: Call) -> dict[str, Any]:
    principal = call.params.get("RetiringPrincipal")
    return GRANT.page(
        call, "Grants", descending=False, keep=lambda grant: grant.body.get("RetiringPrincipal") == principal
    )


def revoke_grant(call: Call) -> None:
    call.delete(_grant(call, call.params["GrantId"]))


def retire_grant(call: Call) -> None:
    """Takes a grant away, named by its token or by its key and id."""
    if token := call.params.get("GrantToken"):
        found = next((one for one in GRANT.all(call, limit=10_000) if one.body["_token"] == token), None)
        if found is None:
            raise ServiceError("InvalidGrantTokenException", "The grant token is not valid.")
        call.delete(found)
        return
    if "KeyId" not in call.params or "GrantId" not in call.params:
        raise ServiceError("ValidationException", "Either the grant token or the key and the grant's id are needed.")
    call.delete(_grant(call, call.params["GrantId"]))


def _grant(call: Call, name: str) -> Document:
    key, grant = alive(key_of(call)), GRANT.get(call, name)
    if grant.parent != key.name:
        raise GRANT.error(GRANT.missing, call, name)
    return grant
