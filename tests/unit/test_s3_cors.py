"""CORS: what a bucket's configuration lets a page in a browser do."""

from __future__ import annotations

import http.client
import sqlite3
from typing import Any

import pytest

from penstock.kernel import cors, ids

RULES = [
    {
        "AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://*.example.com"], "AllowedHeaders": ["x-amz-*", "Content-Type"],
        "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60,
    },
    {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]},
]  # fmt: skip


@pytest.fixture
def s3(client: Any) -> Any:
    return client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{ids.word(16)}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    return name


def ask(s3: Any, method: str, path: str, **headers: str) -> Any:
    connection = http.client.HTTPConnection(s3.meta.endpoint_url.partition("//")[2], timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        reply = connection.getresponse()
        reply.told = reply.read().decode()  # type: ignore[attr-defined]
        return reply
    finally:
        connection.close()


def preflight(s3: Any, bucket: str, origin: str, method: str, headers: str = "") -> Any:
    more = {"access_control_request_headers": headers} if headers else {}
    return ask(s3, "OPTIONS", f"/{bucket}/k", origin=origin, access_control_request_method=method, **more)


def test_a_bucket_without_a_configuration_lets_no_page_in(s3: Any, bucket: str) -> None:
    reply = preflight(s3, bucket, "https://a.example.com", "GET")
    assert (reply.status, "CORS is not enabled" in reply.told) == (403, True)
    assert preflight(s3, "no-such-bucket-here", "https://a", "GET").status == 403
    assert ask(s3, "OPTIONS", f"/{bucket}/k").status == 400


def test_a_preflight_is_answered_by_the_first_rule_that_fits(s3: Any, bucket: str) -> None:
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    reply = preflight(s3, bucket, "https://a.example.com", "PUT", "X-Amz-Date, content-type")
    told = reply.headers
    assert (reply.status, told["access-control-allow-origin"]) == (200, "https://a.example.com")
    assert told["access-control-allow-headers"] == "x-amz-date, content-type"
    assert (told["access-control-allow-methods"], told["access-control-max-age"]) == ("GET, PUT", "60")
    assert told["access-control-allow-credentials"] == "true"
    assert preflight(s3, bucket, "https://other.org", "GET").headers["access-control-allow-origin"] == "*"
    for origin, method, headers in (
        ("https://other.org", "PUT", ""), ("https://a.example.com", "PUT", "authorization"), ("https://a.example.com", "DELETE", ""),
    ):  # fmt: skip
        assert preflight(s3, bucket, origin, method, headers).status == 403


def test_an_answer_stays_what_it_is_when_the_configuration_cannot_be_read(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(cors, "rules_of", locked)
    path = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}).removeprefix(s3.meta.endpoint_url)
    reply = ask(s3, "GET", path, origin="https://a.example.com")
    assert (reply.status, reply.told) == (200, "x")
    refused = ask(s3, "GET", f"/{bucket}/k", origin="https://a.example.com")
    assert (refused.status, "AccessDenied" in refused.told) == (403, True)


def test_answers_and_errors_tell_the_page_that_it_may_read_them(s3: Any, bucket: str) -> None:
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    path = url.removeprefix(s3.meta.endpoint_url)
    reply = ask(s3, "GET", path, origin="https://a.example.com")
    assert (reply.status, reply.headers["access-control-expose-headers"]) == (200, "ETag")
    assert ask(s3, "GET", f"/{bucket}/k", origin="https://a.example.com").headers["access-control-allow-origin"]
    assert "access-control-allow-origin" not in ask(s3, "GET", path).headers
    assert "access-control-allow-origin" not in ask(s3, "DELETE", f"/{bucket}/k", origin="https://other.org").headers


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [("*", "a", True), ("a*c", "abc", True), ("a*a", "a", False), ("a", "A", False), ("*.b", "a.b", True)],
)
def test_a_pattern_may_hold_one_star(pattern: str, text: str, fits: bool) -> None:
    assert cors.matches(pattern, text) is fits
