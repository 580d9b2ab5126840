"""Who calls: access keys, and the check of a request's signature against them.

An access key is a document of kind iam.access-key, found by its id alone: the account is what it tells. Temporary ones (of
AssumeRole, of a run) carry a session token and a moment at which they end.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

from penstock.kernel import ids, sigv2, sigv4
from penstock.kernel.call import Caller
from penstock.store.base import Store
from penstock.store.records import GLOBAL, Document, Query, Ref
from penstock.wire.message import Request

KEY = "iam.access-key"


def key_ref(access_key: str) -> Ref:
    return Ref(KEY, GLOBAL, GLOBAL, access_key)


def make_key(
    caller: Caller, now: float, expires: float | None = None, root: str = "", holder: Document | None = None
) -> Document:
    """A new access key that stands for the caller; with `expires` a temporary one, with a session token.

    Takes: `root`, the key with which this one ends: what a run makes of its credentials is good for as long as the run;
        `holder`, the user or role with which it ends, whose permissions it has.
    Gives: a document to put; body: SecretAccessKey, SessionToken and Expiration when temporary.
    """
    name = ("ASIA" if expires else "AKIA") + ids.word(16, ids.UPPER)
    body: dict[str, Any] = {
        "SecretAccessKey": secrets.token_urlsafe(30),
        "_caller": {
            "account": caller.account,
            "arn": caller.arn,
            "user_id": caller.user_id or ids.word(17, ids.UPPER),
            "session_policy": caller.session_policy,
            "run": caller.run,
        },
    }
    if root:
        body["_root"] = root
    if holder:
        body["_holder"] = [*holder.ref, holder.created]
    if expires:
        body |= {"SessionToken": secrets.token_urlsafe(96), "Expiration": expires}
    return Document(
        kind=KEY,
        account=GLOBAL,
        region=GLOBAL,
        name=name,
        parent="" if caller.run else caller.account,
        label=caller.run,  # not as the parent: that has eight indexes, and these come and go with every job
        status="Active",
        created=now,
        updated=now,
        body=body,
    )


def root_of(store: Store, caller: Caller) -> str:
    """The key that a run was given, whichever of those made of it the caller uses; nothing for people."""
    key = store.get(key_ref(caller.access_key)) if caller.run else None
    return str(key.body.get("_root", key.name)) if key else ""


def keys_of_run(store: Store, run: str) -> list[Document]:
    """All keys that a run has: the one it was given, and those it made of it."""
    own = store.page(Query(kind=KEY, account=GLOBAL, region=GLOBAL, label=run, limit=100_000))
    return [*own, *store.page(Query(kind=KEY, parent=run, limit=100_000))]  # of a Penstock before this one, some have it as parent


def key_of(store: Store, scope: sigv4.Scope) -> Document:
    """The key that a request names, whoever signed it.

    Raises: sigv4.AuthError.
    """
    key = store.get(key_ref(scope.access_key))
    if key is None or key.status != "Active":
        raise sigv4.AuthError("unknown-key", scope.access_key)
    return key


def authenticate(
    store: Store, request: Request, scope: sigv4.Scope, now: float, body_sha256: str | None
) -> tuple[Caller, Any]:
    """The caller whose secret signed the request, and the verifier of its chunks (None where the body is not chunk-signed).

    Raises: sigv4.AuthError for an unknown or ended key, a wrong session token, a signature that does not match, a date too far off.
    """
    key = key_of(store, scope)
    token = key.body.get("SessionToken")
    if token is not None and not hmac.compare_digest(token, scope.token or ""):
        raise sigv4.AuthError("unknown-token", "The security token included in the request is invalid.")
    if token is not None and key.body["Expiration"] < now:
        raise sigv4.AuthError("expired-token", "The security token included in the request is expired")
    if _is_orphan(store, key):
        raise sigv4.AuthError("unknown-key", scope.access_key)
    chunks = sigv4.verify(request, scope, key.body["SecretAccessKey"], now, body_sha256)
    if scope.kind == "old-query":
        request.headers.update(sigv2.carried(request))
    known = key.body["_caller"]
    caller = Caller(access_key=key.name, **known)
    if request.run is not None and caller.run != request.run:
        raise sigv4.AuthError("unknown-key", "These credentials are not this run's.")
    return caller, chunks


def _is_orphan(store: Store, key: Document) -> bool:
    """Whether the key, or the user or role, with which this one ends is gone; another of the same name is another."""
    if (root := key.body.get("_root")) and store.get(key_ref(root)) is None:
        return True
    if not (holder := key.body.get("_holder")):
        return False
    *ref, created = holder
    found = store.get(Ref(*ref))
    return found is None or found.created != created
