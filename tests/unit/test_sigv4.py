"""Signatures, made by botocore's and awscrt's own signers and by the examples in AWS's documentation."""

from __future__ import annotations

import hashlib
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.crt.auth import CrtS3SigV4Auth, CrtS3SigV4QueryAuth, CrtSigV4Auth

from penstock.kernel import sigv4
from penstock.kernel.sigv4 import AuthError
from penstock.wire.chunked import Malformed, decode
from penstock.wire.message import Request

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
URL = "http://127.0.0.1:4600"


def signed(
    signer: Any,
    service: str,
    url: str,
    method: str = "POST",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    token: str | None = None,
    **options: Any,
) -> Request:
    """What a client that signs with this class puts on the wire."""
    request = AWSRequest(method, URL + url, headers=headers or {}, data=body)
    request.context.update({"payload_signing_enabled": True, "signing": {}})
    signer(Credentials(KEY, SECRET, token), service, "eu-west-1", **options).add_auth(request)
    ready = request.prepare()
    parts = urlsplit(ready.url)
    sent = {name.lower(): value if isinstance(value, str) else value.decode() for name, value in ready.headers.items()}
    sent.setdefault("host", "127.0.0.1:4600")
    return Request(method, parts.path, parts.query, sent, body)


def proved(request: Request, secret: str = SECRET, now: float | None = None, body: bytes | None = None) -> Any:
    scope = sigv4.scope(request)
    assert scope is not None
    digest = hashlib.sha256(request.body if body is None else body).hexdigest()
    return sigv4.verify(request, scope, secret, time.time() if now is None else now, digest)


def refused(request: Request, **options: Any) -> str:
    with pytest.raises(AuthError) as caught:
        proved(request, **options)
    return caught.value.kind


PATHS = [
    "/",
    "/endpoints/my-endpoint/invocations",
    "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/invocations",
    "/a%20b/%C3%BC",
    "/a//b/./c/../d/",
    "/x?b=2&a=1&a=0&empty=",
    "/x?q=a%20b%2Bc%26d&%C3%A4=1",
]
KEYS = [
    *("/bucket/key", "/bucket/a%20b//c/../d%2B%C3%BC", "/bucket/k?uploads"),
    "/bucket?list-type=2&prefix=a%2Fb%20c&max-keys=1",
]


@pytest.mark.parametrize("signer", [SigV4Auth, CrtSigV4Auth])
@pytest.mark.parametrize("url", PATHS)
def test_signed_headers_of_a_service_other_than_s3_are_proved(signer: Any, url: str) -> None:
    assert proved(signed(signer, "lambda", url, body=b'{"a":1}')) is None


@pytest.mark.parametrize("signer", [S3SigV4Auth, CrtS3SigV4Auth])
@pytest.mark.parametrize("url", KEYS)
def test_signed_headers_of_s3_are_proved_over_the_path_as_sent(signer: Any, url: str) -> None:
    assert proved(signed(signer, "s3", url, "PUT", b"bytes", {"x-amz-meta-a": "two  spaces"})) is None


@pytest.mark.parametrize("signer", [S3SigV4QueryAuth, CrtS3SigV4QueryAuth])
@pytest.mark.parametrize("url", KEYS)
def test_presigned_addresses_of_s3_are_proved_without_their_body(signer: Any, url: str) -> None:
    assert proved(signed(signer, "s3", url, "PUT", expires=60), body=b"anything") is None


def test_a_presigned_address_of_another_service_is_proved() -> None:
    request = signed(SigV4QueryAuth, "sts", "/?Action=GetCallerIdentity&Version=2011-06-15", "GET", expires=60)
    assert proved(request) is None


def test_the_scope_says_who_where_and_what_for() -> None:
    scope = sigv4.scope(signed(SigV4Auth, "sagemaker", "/", token="session-token"))
    assert scope is not None
    assert (scope.access_key, scope.region, scope.service, scope.token, scope.kind) == (
        KEY,
        "eu-west-1",
        "sagemaker",
        "session-token",
        "header",
    )


def test_a_presigned_scope_holds_token_and_expiry() -> None:
    scope = sigv4.scope(signed(S3SigV4QueryAuth, "s3", "/b/k", "GET", token="a+token/=", expires=77))
    assert scope is not None
    assert (scope.kind, scope.expires_s, scope.token) == ("query", 77, "a+token/=")


def test_a_request_without_a_signature_has_no_scope() -> None:
    assert sigv4.scope(Request("GET", "/b/k", "prefix=x", {"host": "h"})) is None


def test_another_secret_does_not_prove() -> None:
    assert refused(signed(SigV4Auth, "sagemaker", "/"), secret="another") == "mismatch"


def test_another_body_does_not_prove() -> None:
    assert refused(signed(SigV4Auth, "sagemaker", "/", body=b"{}"), body=b'{"a":1}') == "mismatch"


def test_another_body_than_the_signed_digest_is_told_by_s3() -> None:
    request = signed(S3SigV4Auth, "s3", "/b/k", "PUT", b"bytes")
    assert refused(request, body=b"other") == "payload"


@pytest.mark.parametrize(
    "change",
    [
        lambda request: setattr(request, "path", "/b/other"),
        lambda request: setattr(request, "query", "versionId=1"),
        lambda request: setattr(request, "method", "DELETE"),
        lambda request: request.headers.update({"x-amz-meta-a": "changed"}),
        lambda request: request.headers.update({"host": "elsewhere"}),
        lambda request: request.headers.pop("x-amz-meta-a"),
    ],
)
def test_a_changed_request_does_not_prove(change: Any) -> None:
    request = signed(S3SigV4Auth, "s3", "/b/k", "PUT", b"bytes", {"x-amz-meta-a": "given"})
    change(request)
    assert refused(request) == "mismatch"


def test_an_added_amz_header_is_refused_by_s3() -> None:
    request = signed(S3SigV4QueryAuth, "s3", "/b/k", "PUT", b"", expires=60)
    request.headers["x-amz-acl"] = "public-read"
    assert refused(request) == "unsigned-headers"


def test_a_header_signature_holds_fifteen_minutes_both_ways() -> None:
    request = signed(SigV4Auth, "sagemaker", "/")
    now = time.time()
    assert proved(request, now=now + 890) is None
    assert proved(request, now=now - 890) is None
    assert refused(request, now=now + 910) == "skewed"
    assert refused(request, now=now - 910) == "skewed"


def test_a_presigned_address_ends_when_it_says() -> None:
    request = signed(S3SigV4QueryAuth, "s3", "/b/k", "GET", expires=60)
    now = time.time()
    assert proved(request, now=now + 58) is None
    assert refused(request, now=now + 62) == "expired"
    assert refused(request, now=now - 1000) == "early"


def test_a_presigned_address_of_more_than_a_week_is_refused() -> None:
    with pytest.raises(AuthError, match="less than a week"):
        sigv4.scope(signed(S3SigV4QueryAuth, "s3", "/b/k", "GET", expires=604801))


def test_host_must_be_signed() -> None:
    request = signed(SigV4Auth, "sagemaker", "/")
    request.headers["authorization"] = request.headers["authorization"].replace("SignedHeaders=host;", "SignedHeaders=")
    assert refused(request) == "malformed"


@pytest.mark.parametrize("service", ["sagemaker", "sts", "lambda"])
def test_a_body_goes_unsigned_to_s3_only(service: str) -> None:
    class Unsigned(SigV4Auth):
        def payload(self, request: Any) -> str:
            return sigv4.UNSIGNED

    given = {"x-amz-content-sha256": sigv4.UNSIGNED}
    assert refused(signed(Unsigned, service, "/", body=b"{}", headers=given)) == "mismatch"
    assert proved(signed(Unsigned, "s3", "/b/k", "PUT", b"bytes", headers=given)) is None


def test_a_presigned_address_of_another_service_has_the_digest_of_its_body() -> None:
    request = signed(SigV4QueryAuth, "sts", "/?Action=GetCallerIdentity&Version=2011-06-15", "GET")
    assert proved(request) is None
    assert refused(request, body=b"another") == "mismatch"


def test_s3_wants_the_payload_header() -> None:
    request = signed(SigV4Auth, "s3", "/b/k", "PUT", b"bytes")
    assert refused(request) == "payload-header"


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        ("AWS4-HMAC-SHA256 Credential=a/b/c", "malformed"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c,SignedHeaders=host,Signature=x", "malformed"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a/20200101/s3/aws4_request,SignedHeaders=host,Signature=x", "unsupported"),
        ("AWS AKIA:signature", "unsupported"),
        ("Bearer token", "unsupported"),
        ("", "unsupported"),
    ],
)
def test_what_is_no_signature_of_version_4_is_refused(authorization: str, kind: str) -> None:
    request = Request("GET", "/", "", {"host": "h", "authorization": authorization, "x-amz-date": "20200101T000000Z"})
    with pytest.raises(AuthError) as caught:
        sigv4.scope(request)
    assert caught.value.kind == kind


@pytest.mark.parametrize("stamp", ["", "yesterday", "20201301T000000Z", "2020-01-01T00:00:00Z"])
def test_a_date_that_is_none_is_malformed(stamp: str) -> None:
    request = signed(SigV4Auth, "sagemaker", "/")
    request.headers["x-amz-date"] = stamp
    with pytest.raises(AuthError) as caught:
        sigv4.scope(request)
    assert caught.value.kind == "malformed"


def test_a_scope_of_another_day_is_refused() -> None:
    request = signed(SigV4Auth, "sagemaker", "/")
    request.headers["x-amz-date"] = "20200101T000000Z"
    assert refused(request) == "scope"


@pytest.mark.parametrize(
    ("kind", "service", "protocol", "answer"),
    [
        ("mismatch", "sagemaker", "json", ("InvalidSignatureException", 400)),
        ("mismatch", "lambda", "rest-json", ("InvalidSignatureException", 403)),
        ("mismatch", "sts", "query", ("SignatureDoesNotMatch", 403)),
        ("mismatch", "s3", "rest-xml", ("SignatureDoesNotMatch", 403)),
        ("unknown-key", "sagemaker", "json", ("UnrecognizedClientException", 400)),
        ("unknown-key", "iam", "query", ("InvalidClientTokenId", 403)),
        ("unknown-key", "s3", "rest-xml", ("InvalidAccessKeyId", 403)),
        ("expired-token", "sagemaker", "json", ("ExpiredTokenException", 400)),
        ("expired-token", "s3", "rest-xml", ("ExpiredToken", 400)),
        ("unsigned", "sts", "query", ("MissingAuthenticationToken", 403)),
        ("unsigned", "s3", "rest-xml", ("AccessDenied", 403)),
        ("skewed", "s3", "rest-xml", ("RequestTimeTooSkewed", 403)),
        ("expired", "s3", "rest-xml", ("AccessDenied", 403)),
    ],
)
def test_each_family_of_services_has_its_own_words(
    kind: str, service: str, protocol: str, answer: tuple[str, int]
) -> None:
    code, message, status = AuthError(kind, "why").answer(service, protocol)
    assert (code, status) == answer
    assert message


# The two examples of streamed uploads in AWS's documentation: 65 KB of "a" in chunks of 64 KB.
STREAM_NOW = 1369353600.0
STREAM_HEADERS = {
    "host": "s3.amazonaws.com",
    "x-amz-date": "20130524T000000Z",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
    "x-amz-decoded-content-length": "66560",
    "content-encoding": "aws-chunked",
}


def streamed(payload: str, signature: str, **more: str) -> Request:
    headers = {**STREAM_HEADERS, "x-amz-content-sha256": payload, **more}
    names = ";".join(sorted(headers))
    credential = f"{KEY}/20130524/us-east-1/s3/aws4_request"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}"
    return Request("PUT", "/examplebucket/chunkObject.txt", "", headers)


def body_of(*signatures: str, trailer: str = "") -> bytes:
    sizes = (65536, 1024, 0)
    parts = []
    for size, signature in zip(sizes, signatures, strict=True):
        parts.append(f"{size:x};chunk-signature={signature}\r\n{'a' * size}" + ("\r\n" if size else ""))
    return "".join(parts).encode() + trailer.encode() + b"\r\n"


CHUNKS = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
TRAILER_CHUNKS = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def chunk_verifier() -> Any:
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    request = streamed(sigv4.STREAMING, seed, **{"content-length": "66824"})
    return sigv4.verify(request, sigv4.scope(request), SECRET, STREAM_NOW, None)  # type: ignore[arg-type]


def trailer_verifier() -> Any:
    seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    request = streamed(sigv4.STREAMING_TRAILER, seed, **{"x-amz-trailer": "x-amz-checksum-crc32c"})
    return sigv4.verify(request, sigv4.scope(request), SECRET, STREAM_NOW, None)  # type: ignore[arg-type]


def test_the_documented_chain_of_chunks_is_proved() -> None:
    body, trailers = decode(body_of(*CHUNKS), chunk_verifier(), 66560)
    assert (body, trailers) == (b"a" * 66560, {})


def test_the_documented_chain_with_a_trailer_is_proved() -> None:
    trailer = f"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n"
    body, trailers = decode(body_of(*TRAILER_CHUNKS, trailer=trailer), trailer_verifier(), 66560)
    assert (len(body), trailers) == (66560, {"x-amz-checksum-crc32c": "sOO8/Q=="})


def test_a_chunk_out_of_its_place_is_refused() -> None:
    with pytest.raises(AuthError, match="mismatch"):
        decode(body_of(CHUNKS[1], CHUNKS[0], CHUNKS[2]), chunk_verifier())


def test_a_changed_chunk_is_refused() -> None:
    with pytest.raises(AuthError, match="mismatch"):
        decode(body_of(*CHUNKS).replace(b"aaaa", b"aaab", 1), chunk_verifier())


def test_a_changed_trailer_is_refused() -> None:
    trailer = f"x-amz-checksum-crc32c:AAAAAA==\r\nx-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n"
    with pytest.raises(AuthError, match="mismatch"):
        decode(body_of(*TRAILER_CHUNKS, trailer=trailer), trailer_verifier())


def test_a_trailer_without_its_signature_is_refused() -> None:
    with pytest.raises(Malformed, match="unexpectedly"):
        decode(body_of(*TRAILER_CHUNKS, trailer="x-amz-checksum-crc32c:sOO8/Q==\r\n"), trailer_verifier())


def test_a_signed_stream_with_unsigned_chunks_is_refused() -> None:
    with pytest.raises(Malformed, match="no signature"):
        decode(b"3\r\nabc\r\n0\r\n\r\n", chunk_verifier())


def test_an_unsigned_stream_with_a_trailer_needs_no_verifier() -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    given = {"x-amz-trailer": "x-amz-checksum-crc32", "x-amz-content-sha256": sigv4.STREAMING_UNSIGNED_TRAILER}
    request = signed(SigV4Auth, "s3", "/b/k", "PUT", body, given)
    assert sigv4.scope(request).is_chunked  # type: ignore[union-attr]
    assert proved(request) is None
    assert decode(body) == (b"hello", {"x-amz-checksum-crc32": "NhCmhg=="})
