"""AWS Signature Version 4, checked: signed headers, presigned addresses, and the signatures of streamed chunks.

Pure functions: the secret is handed in, the moment too. What `scope` reads, `verify` proves; nothing that `scope` gives
may be trusted before. Canonical forms differ by service: S3 signs a path as it is sent, all others normalise it and
encode it again.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_to_bytes

from penstock.kernel import sigv2
from penstock.wire.message import Request

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_S = 15 * 60
LONGEST_PRESIGNED_S = 7 * 24 * 3600
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_S3 = frozenset(("s3", "s3express", "s3-object-lambda"))
_WORDS = frozenset((UNSIGNED, STREAMING, STREAMING_TRAILER, STREAMING_UNSIGNED_TRAILER))
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\Z")
_CLEAN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?\Z")
_CLEAN_QUERY = re.compile(r"[A-Za-z0-9._~%&=-]*\Z")

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_MISMATCH_S3 = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)
_JSON, _QUERY, _S3_FAMILY = 0, 1, 2
_ANSWERS: dict[str, tuple[tuple[str, int, str], ...]] = {
    # kind: (code, status, sentence) of the json services, of the query services, of S3; {} is the fault's own message
    "unsigned": (
        ("MissingAuthenticationTokenException", 400, "Missing Authentication Token"),
        ("MissingAuthenticationToken", 403, "Request is missing Authentication Token"),
        ("AccessDenied", 403, "Access Denied"),
    ),
    "malformed": (
        ("IncompleteSignatureException", 400, "{}"),
        ("IncompleteSignature", 400, "{}"),
        ("AuthorizationHeaderMalformed", 400, "The authorization header is malformed; {}"),
    ),
    "malformed-query": (
        ("IncompleteSignatureException", 400, "{}"),
        ("IncompleteSignature", 400, "{}"),
        ("AuthorizationQueryParametersError", 400, "{}"),
    ),
    "unsupported": (
        ("IncompleteSignatureException", 400, "{}"),
        ("IncompleteSignature", 400, "{}"),
        ("InvalidRequest", 400, "{}"),
    ),
    "unknown-key": (
        ("UnrecognizedClientException", 400, "The security token included in the request is invalid."),
        ("InvalidClientTokenId", 403, "The security token included in the request is invalid."),
        ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
    ),
    "unknown-token": (
        ("UnrecognizedClientException", 400, "The security token included in the request is invalid."),
        ("InvalidClientTokenId", 403, "The security token included in the request is invalid."),
        ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
    ),
    "expired-token": (
        ("ExpiredTokenException", 400, "The security token included in the request is expired"),
        ("ExpiredToken", 403, "The security token included in the request is expired"),
        ("ExpiredToken", 400, "The provided token has expired."),
    ),
    "mismatch": (
        ("InvalidSignatureException", 400, _MISMATCH),
        ("SignatureDoesNotMatch", 403, _MISMATCH),
        ("SignatureDoesNotMatch", 403, _MISMATCH_S3),
    ),
    "scope": (
        ("InvalidSignatureException", 400, "{}"),
        ("SignatureDoesNotMatch", 403, "{}"),
        ("AuthorizationHeaderMalformed", 400, "The authorization header is malformed; {}"),
    ),
    "skewed": (
        ("InvalidSignatureException", 400, "{}"),
        ("SignatureDoesNotMatch", 403, "{}"),
        ("RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."),
    ),
    "expired": (
        ("InvalidSignatureException", 400, "{}"),
        ("RequestExpired", 400, "Request has expired."),
        ("AccessDenied", 403, "Request has expired"),
    ),
    "early": (
        ("InvalidSignatureException", 400, "{}"),
        ("SignatureDoesNotMatch", 403, "{}"),
        ("AccessDenied", 403, "Request is not valid yet"),
    ),
    "payload": (
        ("InvalidSignatureException", 400, _MISMATCH),
        ("SignatureDoesNotMatch", 403, _MISMATCH),
        (
            "XAmzContentSHA256Mismatch",
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    ),
    "unsigned-headers": (
        ("InvalidSignatureException", 400, "{}"),
        ("SignatureDoesNotMatch", 403, "{}"),
        ("AccessDenied", 403, "{}"),
    ),
    "payload-header": (
        ("InvalidSignatureException", 400, "{}"),
        ("SignatureDoesNotMatch", 403, "{}"),
        ("InvalidRequest", 400, "{}"),
    ),
}


class AuthError(Exception):
    """A request that is not signed as it must be.

    `kind`: unsigned, malformed, malformed-query, unsupported, unknown-key, unknown-token, expired-token, mismatch,
    scope, skewed, expired, early, payload, payload-header, unsigned-headers.
    """

    def __init__(self, kind: str, message: str = ""):
        self.kind, self.message = kind, message
        super().__init__(f"{kind}: {message}")

    def answer(self, service: str | None, protocol: str) -> tuple[str, str, int]:
        """Gives (code, message, status) as the service's family says it."""
        family = _S3_FAMILY if service in _S3 or protocol == "rest-xml" else _QUERY if protocol == "query" else _JSON
        code, status, sentence = _ANSWERS[self.kind][family]
        if protocol == "rest-json":
            status = 403
        return code, sentence.replace("{}", self.message), status


@dataclass(slots=True)
class Scope:
    """What a signature says of itself."""

    access_key: str
    date: str
    """YYYYMMDD."""
    region: str
    service: str
    signature: str
    signed_headers: tuple[str, ...]
    stamp: str
    """The signing moment as signed: YYYYMMDDTHHMMSSZ."""
    amz_date: float
    """The same as seconds since 1970."""
    token: str | None = None
    kind: str = "header"
    """"header", "query" (a presigned address) or "old-query" (one by sigv2)."""
    expires_s: int = 0
    """How long a presigned address holds."""
    payload_hash: str = ""
    """x-amz-content-sha256 as given; empty where it was not."""

    @property
    def credential(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"

    @property
    def is_s3(self) -> bool:
        return self.service in _S3

    @property
    def is_chunked(self) -> bool:
        """Whether the body is aws-chunked."""
        return self.payload_hash.startswith("STREAMING-")


# --- reading --------------------------------------------------------------------------------------------------------


def scope(request: Request) -> Scope | None:
    """Gives what a request's signature says of itself; None where it is not signed.

    Raises: AuthError when malformed.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None:
        return _from_header(authorization, request)
    if "X-Amz-" in request.query:
        given = dict(_query_pairs(request.query))
        if "X-Amz-Algorithm" in given or "X-Amz-Signature" in given:
            return _from_query({key: unquote(value) for key, value in given.items()}, request)
    if "AWSAccessKeyId=" in request.query:
        return _from_old_query(request)
    return None


def _unsupported() -> AuthError:
    sentence = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    return AuthError("unsupported", sentence)


def _from_header(text: str, request: Request) -> Scope:
    algorithm, _, rest = text.partition(" ")
    if algorithm != ALGORITHM:
        if algorithm.startswith("AWS4-ECDSA"):
            raise AuthError("unsupported", "Signature Version 4A (AWS4-ECDSA-P256-SHA256) is not served.")
        raise _unsupported()
    fields: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not fields.get(name)]
    headers = request.headers
    stamp = headers.get("x-amz-date") or _stamp_of_date(headers.get("date"))
    if missing or not stamp:
        sentences = [f"Authorization header requires '{name}' parameter." for name in missing]
        if not stamp:
            sentences.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
        raise AuthError("malformed", " ".join(sentences))
    access_key, date, region, service = _credential(fields["Credential"], "malformed")
    return Scope(
        access_key=access_key,
        date=date,
        region=region,
        service=service,
        signature=fields["Signature"],
        signed_headers=tuple(fields["SignedHeaders"].split(";")),
        stamp=stamp,
        amz_date=_moment(stamp, "malformed"),
        token=headers.get("x-amz-security-token"),
        payload_hash=headers.get("x-amz-content-sha256", ""),
    )


def _from_query(given: dict[str, str], request: Request) -> Scope:
    needed = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
    if any(not given.get(name) for name in needed):
        sentence = (
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
        raise AuthError("malformed-query", sentence)
    if given["X-Amz-Algorithm"] != ALGORITHM:
        raise AuthError("malformed-query", 'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    access_key, date, region, service = _credential(given["X-Amz-Credential"], "malformed-query")
    return Scope(
        access_key=access_key,
        date=date,
        region=region,
        service=service,
        signature=given["X-Amz-Signature"],
        signed_headers=tuple(given["X-Amz-SignedHeaders"].split(";")),
        stamp=given["X-Amz-Date"],
        amz_date=_moment(given["X-Amz-Date"], "malformed-query"),
        token=given.get("X-Amz-Security-Token"),
        kind="query",
        expires_s=_expiry(given.get("X-Amz-Expires"), service),
        payload_hash=given.get("X-Amz-Content-Sha256") or request.headers.get("x-amz-content-sha256", ""),
    )


def _from_old_query(request: Request) -> Scope:
    """A presigned S3 address of the old form. It names no region: S3's first one is taken."""
    address = sigv2.read(request)
    if address is None:
        sentence = "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
        raise AuthError("malformed-query", sentence)
    if not (address.expires.isascii() and address.expires.isdigit()):
        raise AuthError("malformed-query", f"Invalid date (should be seconds since epoch): {address.expires[:100]}")
    return Scope(
        access_key=address.access_key,
        date="",
        region="us-east-1",
        service="s3",
        signature=address.signature,
        signed_headers=(),
        stamp=address.expires,
        amz_date=float(address.expires),
        token=address.token,
        kind="old-query",
    )


def _expiry(text: str | None, service: str) -> int:
    if text is None and service not in _S3:
        return SKEW_S  # the other services do not insist on it
    if text is None or not (text.isascii() and text.isdigit()):
        raise AuthError("malformed-query", "X-Amz-Expires should be a number")
    if int(text) > LONGEST_PRESIGNED_S:
        raise AuthError("malformed-query", "X-Amz-Expires must be less than a week (in seconds); that is, 604800.")
    return int(text)


@lru_cache(maxsize=1024)
def _credential(text: str, kind: str) -> tuple[str, str, str, str]:
    parts = text.split("/")
    if len(parts) < 5 or parts[-1] != "aws4_request" or not all(parts):
        sentence = (
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{text[:200]}'"
        )
        raise AuthError(kind, sentence)
    return "/".join(parts[:-4]), parts[-4], parts[-3], parts[-2]


@lru_cache(maxsize=256)
def _moment(stamp: str, kind: str) -> float:
    found = _STAMP.match(stamp)
    if found is None:
        raise AuthError(kind, _bad_date(stamp))
    year, month, day, hour, minute, second = (int(each) for each in found.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise AuthError(kind, _bad_date(stamp))
    return float(timegm((year, month, day, hour, minute, second)))


def _bad_date(stamp: str) -> str:
    where = "See http://en.wikipedia.org/wiki/ISO_8601"
    return f"Date must be in ISO-8601 'basic format'. Got '{stamp[:100]}'. {where}"


def _stamp_of_date(text: str | None) -> str:
    if not text:
        return ""
    if _STAMP.match(text):
        return text
    try:
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(parsedate_to_datetime(text).timestamp()))
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


# --- proving --------------------------------------------------------------------------------------------------------


class ChunkVerifier:
    """Checks the chain of a streamed body's chunk signatures, each made over the one before."""

    def __init__(self, key: bytes, scope: Scope):
        self.signed_trailer = scope.payload_hash == STREAMING_TRAILER
        self._key = key
        self._head = f"{scope.stamp}\n{scope.credential}\n"
        self._before = scope.signature

    def chunk(self, sha256: str, signature: str) -> None:
        """Raises AuthError where the chunk with this digest was not signed so."""
        self._check(f"{ALGORITHM}-PAYLOAD\n{self._head}{self._before}\n{EMPTY_SHA256}\n{sha256}", signature)

    def trailer(self, sha256: str, signature: str) -> None:
        """Raises AuthError where the trailing headers with this digest were not signed so."""
        self._check(f"{ALGORITHM}-TRAILER\n{self._head}{self._before}\n{sha256}", signature)

    def _check(self, text: str, signature: str) -> None:
        wanted = hmac.digest(self._key, text.encode(), "sha256").hex()
        if not _same(wanted, signature):
            raise AuthError("mismatch")
        self._before = wanted


def verify(request: Request, scope: Scope, secret: str, now: float, body_sha256: str | None) -> ChunkVerifier | None:
    """Proves a request's signature. Gives the verifier of its chunks where the body is chunk-signed.

    Takes: `secret` of the scope's access key; `body_sha256` in hex where the body is known, None while it still streams
    (then its digest must be compared with `scope.payload_hash` by whoever receives it).
    Raises: AuthError.
    """
    if scope.kind == "old-query":
        if scope.amz_date < now:
            raise AuthError("expired")
        if not _same(sigv2.sign(request, scope.stamp, secret), scope.signature):
            raise AuthError("mismatch")
        return None
    _check_moment(scope, now)
    payload = _payload_hash(request, scope, body_sha256)
    if "host" not in scope.signed_headers:
        sentence = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        raise AuthError("malformed-query" if scope.kind == "query" else "malformed", sentence)
    _check_signed_headers(request, scope)
    key = signing_key(secret, scope.date, scope.region, scope.service)
    headers = _canonical_headers(request, scope)
    for canonical in _canonical_requests(request, scope, headers, payload):
        text = f"{ALGORITHM}\n{scope.stamp}\n{scope.credential}\n{hashlib.sha256(canonical).hexdigest()}"
        if _same(hmac.digest(key, text.encode(), "sha256").hex(), scope.signature):
            if body_sha256 is not None and _DIGEST.match(payload) and payload != body_sha256:
                raise AuthError("payload")
            return ChunkVerifier(key, scope) if payload in (STREAMING, STREAMING_TRAILER) else None
    raise AuthError("mismatch")


def _same(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Gives the key that a secret makes for a day, a region and a service."""
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _check_moment(scope: Scope, now: float) -> None:
    if scope.stamp[:8] != scope.date:
        sentence = (
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{scope.date}' != '{scope.stamp[:8]}', from '{scope.stamp}'."
        )
        raise AuthError("scope", sentence)
    if scope.amz_date > now + SKEW_S:
        limit = f"{_stamp(now + SKEW_S)} ({_stamp(now)} + 15 min.)"
        sentence = f"Signature not yet current: {scope.stamp} is still later than {limit}"
        raise AuthError("early" if scope.kind == "query" else "skewed", sentence)
    if scope.kind == "query":
        if scope.amz_date + scope.expires_s < now:
            sentence = f"Signature expired: {scope.stamp} is now earlier than {_stamp(now - scope.expires_s)}"
            raise AuthError("expired", sentence)
    elif scope.amz_date < now - SKEW_S:
        limit = f"{_stamp(now - SKEW_S)} ({_stamp(now)} - 15 min.)"
        sentence = f"Signature expired: {scope.stamp} is now earlier than {limit}"
        raise AuthError("skewed", sentence)


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def _payload_hash(request: Request, scope: Scope, body_sha256: str | None) -> str:
    """Gives what the canonical request says of the body.

    Only S3 lets a body go unsigned. The other services make the digest of what they received, whatever the header says:
    who signed the word has signed something else.
    """
    given = scope.payload_hash
    if given == UNSIGNED and not scope.is_s3:
        raise AuthError("mismatch")
    if given:
        if given in _WORDS or _DIGEST.match(given):
            return given
        if given.startswith("STREAMING-"):
            raise AuthError("unsupported", f"x-amz-content-sha256 {given[:100]} is not served.")
        sentence = (
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
        )
        raise AuthError("payload-header", sentence)
    if scope.is_s3:
        if scope.kind == "query":
            return UNSIGNED
        raise AuthError("payload-header", "Missing required header for this request: x-amz-content-sha256")
    return body_sha256 if body_sha256 is not None else hashlib.sha256(request.body).hexdigest()


def _check_signed_headers(request: Request, scope: Scope) -> None:
    """S3 refuses x-amz- headers that are not signed: they would change what the signer meant."""
    if not scope.is_s3:
        return
    loose = [
        name
        for name in request.headers
        if name.startswith("x-amz-") and name not in scope.signed_headers and name != "x-amz-content-sha256"
    ]
    if loose:
        sentence = f"There were headers present in the request which were not signed: {', '.join(loose)}"
        raise AuthError("unsigned-headers", sentence)


def _canonical_headers(request: Request, scope: Scope) -> str:
    headers, lines = request.headers, []
    for name in scope.signed_headers:
        lines.append(f"{name}:{' '.join(headers.get(name, '').split())}\n")
    return f"{''.join(lines)}\n{';'.join(scope.signed_headers)}"


def _canonical_requests(request: Request, scope: Scope, headers: str, payload: str) -> Iterator[bytes]:
    """Gives the canonical request as the standard makes it, then, where clients are known to differ, as they do."""
    seen = set()
    for path in _canonical_paths(request.signed_path or request.path, scope.is_s3):
        for query in _canonical_queries(request.query, scope.kind == "query"):
            canonical = f"{request.method}\n{path}\n{query}\n{headers}\n{payload}"
            if canonical not in seen:
                seen.add(canonical)
                yield canonical.encode()
                if not canonical.isascii():
                    # Header bytes come as Latin-1; whoever sent UTF-8 has signed these bytes.
                    yield canonical.encode("latin-1", "ignore")


def _canonical_paths(path: str, s3: bool) -> Iterator[str]:
    path = path or "/"
    if s3:
        yield path
        yield quote(unquote_to_bytes(path), safe="/~")
        return
    if _CLEAN_PATH.match(path):
        yield path
        return
    yield quote(_normalised(path), safe="/~")
    yield quote(path, safe="/~")
    yield path


def _normalised(path: str) -> str:
    """Gives a path without empty and dot segments."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end


def _query_pairs(query: str) -> list[tuple[str, str]]:
    found = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            found.append((name, value))
    return found


def _canonical_queries(query: str, presigned: bool) -> Iterator[str]:
    if not query:
        yield ""
        return
    pairs = _query_pairs(query)
    if presigned:
        pairs = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    yield _joined(pairs)
    if not _CLEAN_QUERY.match(query) or "%" in query:
        yield _joined([(_again(name), _again(value)) for name, value in pairs])


def _again(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


def _joined(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
