"""Accounts: each has the role that programs act as, and keys of its own."""

from __future__ import annotations

import json
import secrets

from penstock.kernel import auth, ids
from penstock.kernel.app import App
from penstock.kernel.call import Call, Caller
from penstock.store.records import GLOBAL, Change, Document, Query

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
    """
    account = account or "".join(str(secrets.randbelow(10)) for _ in range(12))
    now = app.clock.now()
    root = Caller(account=account, arn=f"arn:aws:iam::{account}:root")
    call = Call(
        app=app,
        caller=root,
        service="iam",
        operation="",
        region=app.settings.region,
        params={},
        request_id=ids.request_id(),
        now=now,
    )
    role = call.other(
        "iam",
        "CreateRole",
        RoleName=ROLE,
        AssumeRolePolicyDocument=json.dumps(TRUST),
        Description="What programs and jobs act as.",
    )["Role"]
    actor = Caller(
        account=account,
        arn=f"arn:aws:sts::{account}:assumed-role/{ROLE}/penstock",
        user_id=f"{role['RoleId']}:penstock",
    )
    key = auth.make_key(actor, now)
    call.put(key)
    call.put(Document(kind=KIND, account=GLOBAL, region=GLOBAL, name=account, created=now))
    keys = {
        "account": account,
        "access_key_id": key.name,
        "secret_access_key": str(key.body["SecretAccessKey"]),
        "role_arn": str(role["Arn"]),
    }
    return call.change, keys


def names(app: App) -> list[str]:
    """The ids of all accounts, oldest first."""
    return [document.name for document in app.store.page(Query(kind=KIND, limit=100_000))]
