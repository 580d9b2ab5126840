"""A shot: one request, and the twist that is given to it on its way. Cases that are kept are shots, as JSON."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote

EMPTY = hashlib.sha256(b"").hexdigest()
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
LISTS, MAPS, XML = b"[" * 50_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b"<a>" * 20_000 + b"</a>" * 20_000
FIELDS, DOTS = b"&a=1" * 100_001, b".".join([b"a"] * 20_000) + b"=1"
TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass
class Shot:
    """A request before it is signed, and its twist."""

    service: str
    operation: str
    signing: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    twist: str = ""

    def kept(self, why: str) -> str:
        """The shot as the text of a case."""
        told = asdict(self) | {"body": base64.b64encode(self.body).decode(), "why": why}
        return json.dumps(told, indent=1) + "\n"

    @classmethod
    def read(cls, text: str) -> Shot:
        told = json.loads(text)
        told.pop("why", None)
        return cls(**told | {"body": base64.b64decode(told["body"])})


@dataclass
class Keys:
    access: str
    secret: str
    host: str

    @classmethod
    def of(cls, keys: dict[str, str], url: str) -> Keys:
        return cls(keys["access_key_id"], keys["secret_access_key"], url.partition("//")[2])


# --- signing


@lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


@dataclass
class Signature:
    """What goes into a signature, each part of which a twist may change."""

    keys: Keys
    service: str
    region: str = "us-east-1"
    moment: float = 0.0
    digest: str = ""

    @property
    def stamp(self) -> str:
        moment = datetime.datetime.fromtimestamp(self.moment or time.time(), datetime.UTC)
        return moment.strftime("%Y%m%dT%H%M%SZ")

    def sign(self, shot: Shot) -> str:
        """Signs the shot's headers; gives the signature."""
        stamp = self.stamp
        digest = self.digest or (hashlib.sha256(shot.body).hexdigest() if shot.body else EMPTY)
        shot.headers |= {"host": shot.headers.get("host", self.keys.host), "x-amz-date": stamp}
        shot.headers["x-amz-content-sha256"] = digest
        path, _, query = shot.path.partition("?")
        names = sorted(name for name in shot.headers if name not in ("connection", "expect", "content-length"))
        canonical = "\n".join(
            [
                shot.method, path if self.service == "s3" else quote(path, safe="/-_.~"), _canonical(query),
                *(f"{name}:{' '.join(shot.headers[name].split())}" for name in names), "", ";".join(names), digest,
            ]
        )  # fmt: skip
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
        signature = self.mac(f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}")
        shot.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.keys.access}/{scope}, SignedHeaders={';'.join(names)}, "
            f"Signature={signature}"
        )
        return signature

    def mac(self, text: str) -> str:
        key = signing_key(self.keys.secret, self.stamp[:8], self.region, self.service)
        return hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()


def _canonical(query: str) -> str:
    return "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&"))) if query else ""


def wire(shot: Shot, length: str | None = None) -> bytes:
    """The bytes of a signed shot."""
    lines = [f"{shot.method} {shot.path} HTTP/1.1".encode("latin-1", "replace")]
    headers = dict(shot.headers)
    if length is None and "transfer-encoding" not in headers and (shot.body or shot.method in ("POST", "PUT")):
        length = str(len(shot.body))
    if length is not None:
        headers["content-length"] = length
    lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", shot.body])


# --- twists: each makes the bytes of a shot

Twist = Callable[[Shot, Keys, Keys], bytes]
TWISTS: dict[str, Twist] = {}
REFUSED: set[str] = set()
"""Twists after which nothing may succeed."""
LOOSE: set[str] = set()
"""Twists after which the service is not known: an error may be of any form."""
BROKEN: set[str] = set()
"""Twists that break HTTP itself: a connection that ends is an answer."""


def twist(*marks: set[str]) -> Callable[[Twist], Twist]:
    def keep(function: Twist) -> Twist:
        name = function.__name__.strip("_").replace("_", "-")
        TWISTS[name] = function
        for mark in marks:
            mark.add(name)
        return function

    return keep


def signed(shot: Shot, keys: Keys, **parts: Any) -> bytes:
    Signature(keys, parts.pop("service", shot.signing), **parts).sign(shot)
    return wire(shot)


def bent(name: str, change: Callable[[Shot], None], *marks: set[str]) -> None:
    """A twist that changes the shot before it is signed."""

    def bend(shot: Shot, keys: Keys, other: Keys) -> bytes:
        change(shot)
        return signed(shot, keys)

    bend.__name__ = name
    twist(*marks)(bend)


def _set(**headers: str) -> Callable[[Shot], None]:
    return lambda shot: shot.headers.update({name.replace("_", "-"): value for name, value in headers.items()})


def _body(change: Callable[[bytes], bytes]) -> Callable[[Shot], None]:
    def bend(shot: Shot) -> None:
        shot.body = change(shot.body)

    return bend


def _path(change: Callable[[str], str]) -> Callable[[Shot], None]:
    def bend(shot: Shot) -> None:
        shot.path = change(shot.path)

    return bend


def _method(method: str) -> Callable[[Shot], None]:
    def bend(shot: Shot) -> None:
        shot.method = method

    return bend


@twist()
def plain(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys)


@twist()
def others_keys(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, other)


for _name, _change in {
    "body-cut": _body(lambda body: body[: len(body) // 2]),
    "body-garbage": _body(lambda body: bytes(range(256)) + body),
    "body-empty": _body(lambda body: b""),
    "body-not-utf8": _body(lambda body: body.replace(b"a", b"\xff\xfe") or b"\xff"),
    "body-nul": _body(lambda body: body.replace(b"a", b"\x00")),
    "body-surrogate": _body(lambda body: body.replace(b"a", b"\\ud800").replace(b"e", b"\xed\xa0\x80")),
    "body-deep-lists": _body(lambda body: LISTS),
    "body-deep-maps": _body(lambda body: MAPS),
    "body-deep-xml": _body(lambda body: XML),
    "body-deep-query": _body(lambda body: body[:60] + b"&" + DOTS),
    "body-doctype": _body(lambda body: b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'),
    "body-number": _body(lambda body: b"1" * 5000),
    "body-scalar": _body(lambda body: b"null"),
    "body-list": _body(lambda body: b"[]"),
    "body-doubled": _body(lambda body: body + body),
    "body-many-fields": _body(lambda body: body[:60] + FIELDS),
    "type-none": lambda shot: shot.headers.pop("content-type", None),
    "type-other": _set(content_type="text/html"),
    "type-form": _set(content_type="application/x-www-form-urlencoded"),
    "type-cbor": _set(content_type="application/cbor", smithy_protocol="rpc-v2-cbor"),
    "type-json": _set(content_type="application/x-amz-json-1.1"),
    "gzip-garbage": _set(content_encoding="gzip"),
    "gzip-bomb": lambda shot: (
        shot.headers.update({"content-encoding": "gzip"}),
        setattr(shot, "body", bomb()),
    ),
    "sha-word": _set(x_amz_checksum_sha256="not base64", content_md5="x"),
    "date-header": _set(if_modified_since="yesterday", range="bytes=9-1,,", expires="\xff"),
    "token-garbage": _set(x_amz_security_token="x" * 5000),
    "expect": _set(expect="100-continue"),
}.items():
    bent(_name, _change)
for _name, _change in {
    "target-garbage": _set(x_amz_target="SageMaker.No\xffSuch"),
    "target-other": _set(x_amz_target="Logs_20140328.DescribeLogGroups"),
    "host-foreign": _set(host="evil.example"),
    "host-bucket": _set(host="fuzz-bucket.s3.us-east-1.amazonaws.com"),
    "host-garbage": _set(host="[::1"),
    "method-patch": _method("PATCH"),
    "method-get": _method("GET"),
    "method-head": _method("HEAD"),
    "method-options": _method("OPTIONS"),
    "path-percent": _path(lambda path: path + "/%zz%ff%00"),
    "path-slashes": _path(lambda path: "//" + path + "//..//."),
    "path-long": _path(lambda path: path + "/" + "a" * 3000),
    "query-garbage": _path(lambda path: path + ("&" if "?" in path else "?") + "a=%ff&=&&x=%zz&versionId=%00"),
    "query-action": _path(lambda path: path + ("&" if "?" in path else "?") + "Action=ListRoles&Version=9"),
}.items():
    bent(_name, _change, LOOSE)


@lru_cache(maxsize=1)
def bomb() -> bytes:
    """Forty megabytes of nothing, packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(b" " * 40_000_000) + packer.flush()


# --- the signature


@twist(REFUSED, LOOSE)
def unsigned(shot: Shot, keys: Keys, other: Keys) -> bytes:
    shot.headers["host"] = keys.host
    return wire(shot)


@twist(REFUSED)
def wrong_secret(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, Keys(keys.access, other.secret, keys.host))


@twist(REFUSED)
def unknown_key(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, Keys("AKIAIOSFODNN7EXAMPLE", keys.secret, keys.host))


@twist(REFUSED)
def expired(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, moment=time.time() - 20 * 60)


@twist(REFUSED)
def ancient(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, moment=1.0)


@twist(REFUSED)
def future(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, moment=time.time() + 20 * 60)


@twist()
def region_other(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, region="eu-north-1")


@twist(REFUSED)
def region_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, region="../../etc")


@twist(REFUSED)
def region_forged(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["authorization"] = shot.headers["authorization"].replace("us-east-1", "eu-west-1")
    return wire(shot)


@twist(REFUSED, LOOSE)
def service_forged(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    wrong = "sts" if shot.signing != "sts" else "logs"
    shot.headers["authorization"] = shot.headers["authorization"].replace(f"/{shot.signing}/", f"/{wrong}/")
    return wire(shot)


@twist(LOOSE)
def service_other(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, service="s3" if shot.signing != "s3" else "iam")


@twist(REFUSED, LOOSE)
def service_unserved(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, service="dynamodb")


@twist(REFUSED, LOOSE)
def service_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return signed(shot, keys, service="no..such\xff")


@twist(REFUSED)
def body_swapped(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.body += b" "
    return wire(shot)


@twist(REFUSED)
def path_swapped(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.path += ("&" if "?" in shot.path else "?") + "x-id=Other"
    return wire(shot)


@twist(REFUSED)
def header_added(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["x-amz-meta-late"] = "x"
    shot.headers["x-amz-date"] = "20200101T000000Z"
    return wire(shot)


@twist(REFUSED, LOOSE)
def credential_malformed(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["authorization"] = shot.headers["authorization"].replace("/aws4_request", "")
    return wire(shot)


@twist(REFUSED, LOOSE)
def authorization_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    shot.headers |= {"host": keys.host, "authorization": "AWS4-HMAC-SHA256 ,,=,Credential=\xff////,Signature"}
    return wire(shot)


@twist(REFUSED, LOOSE)
def date_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["x-amz-date"] = "99999999T999999Z"
    return wire(shot)


@twist(REFUSED, LOOSE)
def basic_auth(shot: Shot, keys: Keys, other: Keys) -> bytes:
    shot.headers |= {"host": keys.host, "authorization": "Basic YTpi"}
    return wire(shot)


def _presigned(shot: Shot, keys: Keys, expires: str, moment: float = 0.0) -> bytes:
    made = Signature(keys, shot.signing, moment=moment)
    scope = f"{made.stamp[:8]}/us-east-1/{shot.signing}/aws4_request"
    path, _, query = shot.path.partition("?")
    given = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{keys.access}/{scope}", "X-Amz-Date": made.stamp,
        "X-Amz-Expires": expires, "X-Amz-SignedHeaders": "host",
    }  # fmt: skip
    query = "&".join(
        [*([query] if query else []), *(f"{name}={quote(value, safe='')}" for name, value in given.items())]
    )
    digest = "UNSIGNED-PAYLOAD" if shot.signing == "s3" else hashlib.sha256(shot.body).hexdigest()
    canonical = "\n".join([shot.method, path, _canonical(query), f"host:{keys.host}", "", "host", digest])
    text = f"AWS4-HMAC-SHA256\n{made.stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    shot.headers["host"] = keys.host
    shot.path = f"{path}?{query}&X-Amz-Signature={made.mac(text)}"
    return wire(shot)


@twist()
def presigned(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return _presigned(shot, keys, "60")


@twist(REFUSED)
def presigned_expired(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return _presigned(shot, keys, "60", time.time() - 3600)


@twist(REFUSED, LOOSE)
def presigned_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    return _presigned(shot, keys, "1e9\u0663" if shot.signing == "s3" else "99999999999999999999")


@twist(REFUSED, LOOSE)
def presigned_old(shot: Shot, keys: Keys, other: Keys) -> bytes:
    shot.headers["host"] = keys.host
    query = f"AWSAccessKeyId={keys.access}&Signature=eA%3D%3D&Expires={10**30}"
    shot.path += ("&" if "?" in shot.path else "?") + query
    return wire(shot)


# --- the length, and chunks


def _lengthy(length: Callable[[int], str], *marks: set[str], name: str) -> None:
    def bend(shot: Shot, keys: Keys, other: Keys) -> bytes:
        Signature(keys, shot.signing).sign(shot)
        return wire(shot, length(len(shot.body)))

    bend.__name__ = name
    twist(BROKEN, LOOSE, *marks)(bend)


_lengthy(lambda size: str(size + 10), name="length-over")
_lengthy(lambda size: str(max(0, size - 3)), name="length-under")
_lengthy(lambda size: "-1", REFUSED, name="length-negative")
_lengthy(lambda size: "1e3", REFUSED, name="length-word")
_lengthy(lambda size: "9" * 30, REFUSED, name="length-huge")
_lengthy(lambda size: str(10**14), name="length-large")


@twist(BROKEN, LOOSE)
def transfer_garbage(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["transfer-encoding"] = "chunked"
    shot.body = b"zz\r\n" + shot.body
    return wire(shot)


@twist(BROKEN, LOOSE)
def transfer_both(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["transfer-encoding"] = "chunked"
    return wire(shot, str(len(shot.body)))


@twist()
def transfer_chunked(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["transfer-encoding"] = "chunked"
    head, tail = (b"%x\r\n%s\r\n" % (len(shot.body), shot.body) if shot.body else b""), b"0\r\n\r\n"
    shot.body = head + tail
    return wire(shot)


@twist(BROKEN, LOOSE)
def header_huge(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    shot.headers["x-filler"] = "x" * 100_000
    return wire(shot)


@twist(BROKEN, LOOSE)
def header_broken(shot: Shot, keys: Keys, other: Keys) -> bytes:
    Signature(keys, shot.signing).sign(shot)
    return wire(shot).replace(b"\r\nhost", b"\r\n: \x00\x01 bad\r\nhost", 1)


def _streamed(
    name: str,
    change: Callable[[bytes], bytes],
    *marks: set[str],
    signed_chunks: bool = True,
    said: Callable[[int], int] = lambda size: size,
) -> None:
    """A twist that sends the body as aws-chunked, changed."""

    def bend(shot: Shot, keys: Keys, other: Keys) -> bytes:
        body, made = shot.body or b"x", Signature(keys, shot.signing, digest=STREAMING if signed_chunks else TRAILER)
        shot.headers |= {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(said(len(body)))}
        if not signed_chunks:
            shot.headers["x-amz-trailer"] = "x-amz-checksum-crc32"
        before, parts = made.sign(shot), []
        for piece in (body, b""):
            extension = ""
            if signed_chunks:
                scope = f"{made.stamp[:8]}/us-east-1/{shot.signing}/aws4_request"
                text = f"AWS4-HMAC-SHA256-PAYLOAD\n{made.stamp}\n{scope}\n{before}\n{EMPTY}\n"
                before = made.mac(text + hashlib.sha256(piece).hexdigest())
                extension = f";chunk-signature={before}"
            parts.append(f"{len(piece):x}{extension}\r\n".encode() + piece + (b"\r\n" if piece else b""))
        crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        parts.append(b"\r\n" if signed_chunks else f"x-amz-checksum-crc32:{crc}\r\n\r\n".encode())
        shot.body = change(b"".join(parts))
        return wire(shot)

    bend.__name__ = name
    twist(*marks)(bend)


def _forged(body: bytes) -> bytes:
    at = body.index(b"chunk-signature=") + 16
    return body[:at] + b"0" * 64 + body[at + 64 :]


_streamed("chunks", lambda body: body)
_streamed("chunks-unsigned", lambda body: body, signed_chunks=False)
_streamed("chunks-forged", _forged, REFUSED)
_streamed("chunks-cut", lambda body: body[:-30], REFUSED)
_streamed("chunks-size", lambda body: b"-" + body, REFUSED)
_streamed("chunks-size-huge", lambda body: b"f" * 17 + body, REFUSED)
_streamed("chunks-more", lambda body: body + b"5\r\nabcde", REFUSED)
_streamed("chunks-length", lambda body: body, REFUSED, said=lambda size: size + 1)
_streamed("chunks-line", lambda body: b"1" + b";a" * 20_000, REFUSED)
_streamed("chunks-trailer", lambda body: body.replace(b"crc32:", b"crc32:AAAA"), REFUSED, signed_chunks=False)
_streamed("chunks-trailer-word", lambda body: body.replace(b":", b""), REFUSED, signed_chunks=False)
