"""Accounts: each has the role that programs act as, and keys of its own."""

from __future__ import annotations

import json
import secrets
from typing import Any

from penstock.kernel import auth, ids
from penstock.kernel.app import App
from penstock.kernel.call import Call, Caller
from penstock.kernel.errors import ServiceError
from penstock.store.records import GLOBAL, Change, Document, Query, Ref

ROLE = "SageMakerExecutionRole"
KIND = "penstock.account"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com", "events.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}


def add(app: App, account: str | None = None) -> tuple[Change, dict[str, str]]:
    """A new account: its document, its role, and a key that acts as the role (as a notebook of SageMaker's does).

    Gives: the change to commit, and the key: account, access_key_id, secret_access_key, role_arn.
    Raises: ServiceError EntityAlreadyExists.
    """
    call = _call_of(app, account or "".join(str(secrets.randbelow(10)) for _ in range(12)))
    call.put(Document(kind=KIND, account=GLOBAL, region=GLOBAL, name=call.account, created=call.now))
    return call.change, _give_key(call, _make_role(call))


def establish(app: App, account: str) -> tuple[Change, dict[str, str]]:
    """The first account, as `add` makes it; one that is there, whose key nobody knows any more, gets another."""
    call = _call_of(app, account)
    if call.find(Ref(KIND, GLOBAL, GLOBAL, account)) is None:
        return add(app, account)
    try:
        role = call.other("iam", "GetRole", RoleName=ROLE)["Role"]
    except ServiceError:  # deleted by its owner
        role = _make_role(call)
    return call.change, _give_key(call, role)


def _call_of(app: App, account: str) -> Call:
    """A call of the account's root."""
    root = Caller(account=account, arn=f"arn:aws:iam::{account}:root")
    region, now = app.settings.region, app.clock.now()
    return Call(
        app=app, caller=root, service="iam", operation="", region=region, params={}, request_id=ids.request_id(), now=now
    )  # fmt: skip


def _make_role(call: Call) -> dict[str, Any]:
    trust, purpose = json.dumps(TRUST), "What programs and jobs act as."
    made = call.other("iam", "CreateRole", RoleName=ROLE, AssumeRolePolicyDocument=trust, Description=purpose)
    role: dict[str, Any] = made["Role"]
    return role


def _give_key(call: Call, role: dict[str, Any]) -> dict[str, str]:
    account = call.account
    actor = Caller(
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{ROLE}/penstock",
        user_id=f"{role['RoleId']}:penstock",
    )
    key = auth.make_key(actor, call.now)
    call.put(key)
    return {
        "account": account,
        "access_key_id": key.name,
        "secret_access_key": str(key.body["SecretAccessKey"]),
        "role_arn": str(role["Arn"]),
    }


def names(app: App) -> list[str]:
    """The ids of all accounts, oldest first."""
    return [document.name for document in app.store.page(Query(kind=KIND, limit=100_000))]
