"""Operations on aliases."""

from __future__ import annotations

import re
from typing import Any

from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.kms.state import ALIAS, alive, invalid, key_of
from penstock.store.records import Document

NAME = re.compile(r"alias/[a-zA-Z0-9/_-]+")


def create_alias(call: Call) -> None:
    name = _name(call)
    key = _target(call)
    ALIAS.create(call, name, body={"TargetKeyId": key.name}, parent=key.name)


def update_alias(call: Call) -> None:
    alias = ALIAS.get(call, _name(call))
    key = _target(call)
    alias.parent = key.name
    ALIAS.save(call, alias, TargetKeyId=key.name)


def delete_alias(call: Call) -> None:
    ALIAS.delete(call, _name(call))


def list_aliases(call: Call) -> dict[str, Any]:
    """The account's aliases, or those of a key.

    Differs: AWS's own (alias/aws/...) are not there.
    """
    parent = key_of(call).name if call.params.get("KeyId") else None
    return ALIAS.page(call, "Aliases", order="name", descending=False, parent=parent)


def _target(call: Call) -> Document:
    given: str = call.params["TargetKeyId"]
    if given.rpartition(":")[2].startswith("alias/"):
        raise invalid("Aliases must refer to keys. Not aliases")
    return alive(key_of(call, given))


def _name(call: Call) -> str:
    name: str = call.params["AliasName"]
    if not name.startswith("alias/"):
        raise invalid("Invalid identifier")
    if name.startswith("alias/aws/"):
        raise ServiceError("NotAuthorizedException", "")
    if not NAME.fullmatch(name):
        if ":" in name:
            raise invalid(f"{name} contains invalid characters for an alias")
        raise invalid(
            f"1 validation error detected: Value '{name}' at 'aliasName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"
        )
    return name
