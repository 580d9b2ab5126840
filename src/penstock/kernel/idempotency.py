"""Idempotency tokens: the same token with the same parameters gives the first answer again, and does nothing.

Which operations have a token is in botocore's model. SDKs fill tokens by themselves, so most are used once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.kernel.errors import invalid
from penstock.store.records import Token

if TYPE_CHECKING:
    from penstock.kernel.call import Call
    from penstock.wire.models import Operation

KEPT_S = 8 * 3600.0


def answer(call: Call, operation: Operation, function: Callable[[Call], dict[str, Any] | None]) -> dict[str, Any]:
    """Runs the function, unless its token was answered before.

    Raises: ServiceError (ValidationException) for a token that was used with other parameters.
    """
    member = operation.idempotency_member
    token = call.params.get(member) if member else None
    if not token:
        return function(call) or {}
    digest = _digest({name: value for name, value in call.params.items() if name != member})
    name = f"{call.service}:{call.operation}"
    known = call.app.store.token(call.account, call.region, name, token)
    if known:
        if known[0] != digest:
            raise invalid(f"The {member} {token} was used before, with other parameters.")
        return dict(known[1])
    result = function(call) or {}
    call.row(
        Token(
            account=call.account,
            region=call.region,
            operation=name,
            token=token,
            digest=digest,
            result=result,
            expires=call.now + KEPT_S,
        )
    )
    return result


def _digest(params: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(params, order="deterministic")).hexdigest()
