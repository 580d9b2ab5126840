"""Cross-origin requests: what a bucket's CORS configuration lets a page in a browser do, and the headers that tell it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from penstock.kernel.buckets import ref_of
from penstock.kernel.errors import ServiceError
from penstock.store.base import Store
from penstock.wire.message import Headers, Reply, Request

VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
_NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
    "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)


def preflight(store: Store, request: Request) -> Reply:
    """Answers a browser that asks whether it may. No signature is needed: a browser sends none.

    Raises: ServiceError BadRequest, AccessForbidden.
    """
    headers = request.headers
    origin, method = headers.get("origin"), headers.get("access-control-request-method")
    if not origin:
        raise ServiceError("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        raise ServiceError("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    asked = [
        name.strip().lower() for name in headers.get("access-control-request-headers", "").split(",") if name.strip()
    ]
    name, _, key = request.path.removeprefix("/").partition("/")
    rules = rules_of(store, unquote(name))
    if rules is None:
        raise _forbidden("CORSResponse: Bucket not found", method, key)
    if not rules:
        raise _forbidden("CORSResponse: CORS is not enabled for this bucket.", method, key)
    rule = find_rule(rules, origin, method, asked)
    if rule is None:
        raise _forbidden(_NOT_ALLOWED, method, key)
    told = tell(rule, origin)
    if asked:
        told["access-control-allow-headers"] = ", ".join(asked)
    return Reply(200, told, b"")


def _forbidden(sentence: str, method: str, key: str) -> ServiceError:
    known = {"Method": method, "ResourceType": "OBJECT" if key else "BUCKET"}
    return ServiceError("AccessForbidden", sentence, 403, **known)


def add_headers(store: Store, request: Request, reply: Reply) -> None:
    """Lets the page that sent a request read its answer, where the bucket's configuration says so."""
    name = unquote(request.path.removeprefix("/").partition("/")[0])
    rules = rules_of(store, name) if name else None
    if not rules:
        return
    rule = find_rule(rules, request.headers["origin"], request.method, ())
    if rule is not None:
        reply.headers.update(tell(rule, request.headers["origin"]))


def rules_of(store: Store, name: str) -> list[dict[str, Any]] | None:
    """A bucket's rules; None where there is no such bucket."""
    bucket = store.get(ref_of(name))
    if bucket is None:
        return None
    given = (bucket.body.get("_settings") or {}).get("CORSConfiguration") or {}
    return given.get("CORSRules") or []


def find_rule(
    rules: Sequence[Mapping[str, Any]], origin: str, method: str, headers: Sequence[str]
) -> Mapping[str, Any] | None:
    """The first rule that lets that origin use that method with those headers (lower case)."""
    for rule in rules:
        if method not in rule["AllowedMethods"] or not any(matches(text, origin) for text in rule["AllowedOrigins"]):
            continue
        allowed = [text.lower() for text in rule.get("AllowedHeaders") or []]
        if all(any(matches(text, name) for text in allowed) for name in headers):
            return rule
    return None


def matches(pattern: str, text: str) -> bool:
    """Tells whether a text fits a pattern that may hold one `*`."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)


def tell(rule: Mapping[str, Any], origin: str) -> Headers:
    """The headers that tell a browser what the rule lets it do."""
    anybody = "*" in rule["AllowedOrigins"]
    told = {
        "access-control-allow-origin": "*" if anybody else origin,
        "access-control-allow-methods": ", ".join(rule["AllowedMethods"]),
        "vary": VARY,
    }
    if not anybody:
        told["access-control-allow-credentials"] = "true"
    if rule.get("ExposeHeaders"):
        told["access-control-expose-headers"] = ", ".join(rule["ExposeHeaders"])
    if rule.get("MaxAgeSeconds") is not None:
        told["access-control-max-age"] = str(rule["MaxAgeSeconds"])
    return told
