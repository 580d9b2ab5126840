"""The policy that a browser's form carries: who signed it, and what it lets the form upload.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.kernel import sigv4
from penstock.kernel.auth import key_ref
from penstock.kernel.call import Caller
from penstock.kernel.errors import ServiceError
from penstock.store.base import Store
from penstock.wire.values import Malformed, read_moment

FREE = frozenset(("x-amz-signature", "awsaccesskeyid", "signature", "policy", "file", "x-amz-security-token"))
"""Fields that a policy need not name."""
_NEEDED = ("x-amz-credential", "x-amz-date", "x-amz-signature")


@dataclass(slots=True)
class Allowed:
    """What a form may do: as whom, and how many bytes it may bring."""

    caller: Caller
    region: str
    least_bytes: int = 0
    most_bytes: int | None = None

    def check_size(self, size_bytes: int, whole: bool) -> None:
        """Raises: ServiceError EntityTooLarge as soon as there are too many; EntityTooSmall at the end."""
        if self.most_bytes is not None and size_bytes > self.most_bytes:
            sizes = {"ProposedSize": size_bytes, "MaxSizeAllowed": self.most_bytes}
            raise ServiceError("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", 400, **sizes)
        if whole and size_bytes < self.least_bytes:
            sizes = {"ProposedSize": size_bytes, "MinSizeAllowed": self.least_bytes}
            raise ServiceError(
                "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", 400, **sizes
            )


def allow(store: Store, bucket: str, fields: Mapping[str, str], now: float, run: str | None = None) -> Allowed:
    """Gives what the form may do, after its signature and each condition but the size were held against it.

    Takes: `fields` by lower-case names, with `key` as the object is to be named.
    Raises: ServiceError AccessDenied, InvalidArgument, InvalidPolicyDocument; AuthError.
    """
    allowed = _authenticate(store, fields, now, run)
    policy = _read(fields["policy"])
    if _expiration(policy) < now:
        raise ServiceError("AccessDenied", "Invalid according to Policy: Policy expired.", 403)
    _check(policy, {**fields, "bucket": bucket}, allowed)
    return allowed


# --- who


def _authenticate(store: Store, fields: Mapping[str, str], now: float, run: str | None) -> Allowed:
    if "policy" not in fields or not (
        "x-amz-algorithm" in fields or "awsaccesskeyid" in fields or "signature" in fields
    ):
        if "policy" not in fields and "x-amz-signature" not in fields and "signature" not in fields:
            raise ServiceError("AccessDenied", "Access Denied", 403)  # nobody: no bucket is open to all
        raise needs("Policy" if "policy" not in fields else "AWSAccessKeyId")
    if "x-amz-algorithm" in fields:
        access_key, region, made = _by_version_4(fields)
    else:
        for name, shown in (("awsaccesskeyid", "AWSAccessKeyId"), ("signature", "Signature")):
            if name not in fields:
                raise needs(shown)
        access_key, region = fields["awsaccesskeyid"], "us-east-1"

        def made(secret: str) -> str:
            digest = hmac.digest(secret.encode(), fields["policy"].encode(), "sha1")
            return base64.b64encode(digest).decode()

    key = store.get(key_ref(access_key))
    if key is None or key.status != "Active":
        raise sigv4.AuthError("unknown-key", access_key)
    token = key.body.get("SessionToken")
    if token is not None and not hmac.compare_digest(token.encode(), fields.get("x-amz-security-token", "").encode()):
        raise sigv4.AuthError("unknown-token", "The security token included in the request is invalid.")
    if token is not None and key.body["Expiration"] < now:
        raise sigv4.AuthError("expired-token", "The security token included in the request is expired")
    given = fields.get("x-amz-signature") or fields.get("signature") or ""
    if not hmac.compare_digest(made(key.body["SecretAccessKey"]).encode(), given.encode()):
        raise sigv4.AuthError("mismatch")
    caller = Caller(access_key=key.name, **key.body["_caller"])
    if run is not None and caller.run != run:
        raise sigv4.AuthError("unknown-key", "These credentials are not this run's.")
    return Allowed(caller, region)


def _by_version_4(fields: Mapping[str, str]) -> tuple[str, str, Any]:
    if fields["x-amz-algorithm"] != sigv4.ALGORITHM:
        sentence = f"X-Amz-Algorithm only supports {sigv4.ALGORITHM}"
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="X-Amz-Algorithm")
    for name in _NEEDED:
        if not fields.get(name):
            raise needs("-".join(word.capitalize() for word in name.split("-")))
    parts = fields["x-amz-credential"].rsplit("/", 4)
    if (
        len(parts) != 5
        or parts[3] != "s3"
        or parts[4] != "aws4_request"
        or not fields["x-amz-date"].startswith(parts[1])
    ):
        sentence = 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        raise ServiceError("InvalidArgument", sentence, 400, ArgumentName="X-Amz-Credential")
    access_key, date, region, service, _ = parts

    def made(secret: str) -> str:
        key = sigv4.signing_key(secret, date, region, service)
        return hmac.digest(key, fields["policy"].encode(), "sha256").hex()

    return access_key, region, made


def needs(name: str) -> ServiceError:
    """The answer to a form without a field that it must have."""
    sentence = (
        f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the fields."
    )
    return ServiceError("InvalidArgument", sentence, 400, ArgumentName=name, ArgumentValue="")


# --- what


def _read(text: str) -> dict[str, Any]:
    try:
        policy = json.loads(base64.b64decode(text, validate=False))
    except (binascii.Error, ValueError, RecursionError):
        policy = None
    if not isinstance(policy, dict):
        raise _invalid("Invalid JSON.")
    if "expiration" not in policy:
        raise _invalid("Policy missing expiration.")
    if not isinstance(policy.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    return policy


def _invalid(what: str) -> ServiceError:
    return ServiceError("InvalidPolicyDocument", f"Invalid Policy: {what}")


def _expiration(policy: Mapping[str, Any]) -> float:
    given = policy["expiration"]
    try:
        if not isinstance(given, str) or "T" not in given:
            raise Malformed("no date")
        return read_moment(given)
    except Malformed:
        raise _invalid(f"Invalid 'expiration' value: '{given}'") from None


def _check(policy: Mapping[str, Any], fields: Mapping[str, str], allowed: Allowed) -> None:
    """Holds the fields against each condition, and finds those that none speaks of."""
    named = set(FREE) | {"bucket"}
    for condition in policy["conditions"]:
        kind, name, value = _plain(condition)
        if kind == "content-length-range":
            allowed.least_bytes, allowed.most_bytes = int(name), int(value)
            continue
        named.add(name)
        given = fields.get(name)
        holds = given is not None and (given == value if kind == "eq" else given.startswith(value))
        holds = holds or (given is None and kind == "starts-with" and not value)
        if kind == "starts-with" and name == "content-type" and given is not None:
            holds = all(each.strip().startswith(value) for each in given.split(","))
        if not holds:
            shown = json.dumps(condition) if isinstance(condition, list) else json.dumps(["eq", f"${name}", value])
            sentence = f"Invalid according to Policy: Policy Condition failed: {shown}"
            raise ServiceError("AccessDenied", sentence, 403)
    extra = [name for name in fields if name not in named and not name.startswith("x-ignore-")]
    if extra:
        sentence = f"Invalid according to Policy: Extra input fields: {', '.join(sorted(extra))}"
        raise ServiceError("AccessDenied", sentence, 403)


def _plain(condition: Any) -> tuple[str, str, str]:
    """Gives (eq, starts-with or content-length-range; the field or the least; the value or the most)."""
    if isinstance(condition, dict):
        if len(condition) != 1:
            raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        name, value = next(iter(condition.items()))
        if not isinstance(value, str):
            raise _invalid("Invalid Simple-Condition: value must be a string.")
        return "eq", name.lower(), value
    if not isinstance(condition, list) or len(condition) != 3 or not isinstance(condition[0], str):
        raise _invalid("Invalid Condition: wrong number of arguments.")
    kind, name, value = condition[0].lower(), condition[1], condition[2]
    if kind == "content-length-range":
        try:
            return kind, str(int(name)), str(int(value))
        except (TypeError, ValueError, OverflowError):
            raise _invalid("Invalid content-length-range: not a number.") from None
    if kind not in ("eq", "starts-with"):
        raise _invalid(f"Invalid Condition: unknown operation '{condition[0]}'.")
    if not isinstance(name, str) or not isinstance(value, str) or not name.startswith("$"):
        raise _invalid("Invalid Condition: the field must begin with '$'.")
    return kind, name[1:].lower(), value
