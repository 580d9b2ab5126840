"""STS's operations."""

from __future__ import annotations

from typing import Any

from penstock.kernel import jsontext
from penstock.kernel.auth import key_ref, make_key, root_of
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.services.sts import rules
from penstock.store.records import Document

SESSION_S = 3600
TOKEN_S = 43_200


def get_caller_identity(call: Call) -> dict[str, Any]:
    """Says as whom the request was signed."""
    return {"UserId": call.caller.user_id or call.account, "Account": call.account, "Arn": call.caller.arn}


def assume_role(call: Call) -> dict[str, Any]:
    """Gives temporary credentials of a role.

    Raises: ServiceError AccessDenied for a role that is not there, or of an account that does not trust the caller.
    Differs: within an account every caller may assume every role; the hour's limit of role chaining is not held. What a
        job assumes ends with the job. A session whose role is deleted is refused; at AWS it has no permissions left.
    """
    given = call.params
    role = _role(call, given["RoleArn"])
    duration_s = given.get("DurationSeconds", SESSION_S)
    if duration_s > role.body.get("MaxSessionDuration", SESSION_S):
        raise ServiceError(
            "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    session = given["RoleSessionName"]
    caller = Caller(
        account=role.account,
        arn=f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{session}",
        user_id=f"{role.body['RoleId']}:{session}",
        session_policy=_policy(given.get("Policy", "")),
        run=call.caller.run,
    )
    root = root_of(call.app.store, call.caller)
    key = call.put(make_key(caller, call.now, call.now + duration_s, root, role))
    answer = {"Credentials": _credentials(key), "AssumedRoleUser": {"AssumedRoleId": caller.user_id, "Arn": caller.arn}}
    if source := given.get("SourceIdentity"):
        answer["SourceIdentity"] = source
    return answer


def get_session_token(call: Call) -> dict[str, Any]:
    """Gives temporary credentials of the caller's own, good for as long as the user is, whatever becomes of the key.

    Raises: ServiceError AccessDenied where the caller's are temporary already.
    Differs: a session whose user is deleted is refused; at AWS it has no permissions left.
    """
    if call.caller.access_key.startswith("ASIA"):
        raise ServiceError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
    user = call.app.store.by_arn(call.caller.arn)
    expires = call.now + call.params.get("DurationSeconds", TOKEN_S)
    key = call.put(make_key(call.caller, call.now, expires, holder=user))
    return {"Credentials": _credentials(key)}


def get_access_key_info(call: Call) -> dict[str, Any]:
    """Names the account that an access key belongs to.

    Raises: ServiceError for a key that is not there.
    """
    key = call.find(key_ref(call.params["AccessKeyId"]))
    if key is None:
        raise ServiceError("ValidationError", "Invalid access key id.")
    return {"Account": key.body["_caller"]["account"]}


def _role(call: Call, arn: str) -> Document:
    role = call.app.store.by_arn(arn)
    denied = ServiceError(
        "AccessDenied", f"User: {call.caller.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}", 403
    )
    if role is None or role.kind != "iam.role":
        raise denied
    if role.account != call.account and not rules.trusts(
        role.body["AssumeRolePolicyDocument"], call.caller.arn, call.account
    ):
        raise denied
    return role


def _policy(text: str) -> str:
    if text:
        try:
            jsontext.read(text)
        except ValueError:
            raise ServiceError("MalformedPolicyDocument", "The policy is not in the valid JSON format.") from None
    return text


def _credentials(key: Document) -> dict[str, Any]:
    names = ("SecretAccessKey", "SessionToken", "Expiration")
    return {"AccessKeyId": key.name, **{name: key.body[name] for name in names}}
