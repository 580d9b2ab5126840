"""Forms that a page in a browser posts to a bucket, as `generate_presigned_post` makes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
from typing import Any

import pytest

from penstock.kernel import ids
from penstock.wire.formdata import FormReader, TooLong
from penstock.wire.values import Malformed

BIG = bytes(range(256)) * 1200


@pytest.fixture
def s3(client: Any) -> Any:
    return client("s3", signature_version="s3v4")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{ids.word(16)}"
    s3.create_bucket(Bucket=name)
    return name


def encode(fields: dict[str, str], data: bytes | None, filename: str = "f.txt") -> tuple[str, bytes]:
    lines = [
        f'--xYz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if data is not None:
        head = f'--xYz\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: text/x\r\n\r\n'
        lines += [head.encode(), data, b"\r\n"]
    return "multipart/form-data; boundary=xYz", b"".join(lines) + b"--xYz--\r\n"


def post(s3: Any, bucket: str, fields: dict[str, str], data: bytes | None = b"hello", **headers: str) -> Any:
    """Posts the form; gives the answer, with its body in `told`."""
    kind, body = encode(fields, data)
    connection = http.client.HTTPConnection(s3.meta.endpoint_url.partition("//")[2], timeout=60)
    try:
        connection.request("POST", f"/{bucket}", body, {"content-type": kind, **headers})
        reply = connection.getresponse()
        reply.told = reply.read().decode()  # type: ignore[attr-defined]
        return reply
    finally:
        connection.close()


def signed(s3: Any, bucket: str, key: str = "k", fields: Any = None, conditions: Any = None) -> dict[str, str]:
    made: dict[str, str] = s3.generate_presigned_post(bucket, key, Fields=dict(fields or {}), Conditions=conditions)[
        "fields"
    ]
    return made


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("data", [b"", b"hello", b"\r\n--xY\r\n--xY", BIG])
def test_a_signed_form_makes_an_object(client: Any, bucket: str, version: str, data: bytes) -> None:
    s3 = client("s3", signature_version=version)
    reply = post(s3, bucket, signed(s3, bucket, "up/${filename}"), data)
    assert (reply.status, reply.headers["etag"]) == (204, f'"{hashlib.md5(data).hexdigest()}"')
    assert client("s3").get_object(Bucket=bucket, Key="up/f.txt")["Body"].read() == data


def test_fields_say_of_the_object_what_headers_would(s3: Any, bucket: str) -> None:
    tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"
    fields = {"Content-Type": "text/y", "x-amz-meta-who": "Zoë", "tagging": tags, "x-ignore-me": "1"}
    conditions = [{"Content-Type": "text/y"}, ["starts-with", "$x-amz-meta-who", "Z"], ["eq", "$tagging", tags]]
    assert post(s3, bucket, signed(s3, bucket, fields=fields, conditions=conditions)).status == 204
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ContentType"], head["Metadata"]) == ("text/y", {"who": "=?UTF-8?Q?Zo=C3=AB?="})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b c"}]


def test_a_field_that_could_be_no_header_is_refused(s3: Any, bucket: str) -> None:
    for name in ("x-amz-meta-a b", "x-amz-meta-é", "x-amz-meta-€: x"):
        fields = signed(s3, bucket, fields={name: "v"}, conditions=[{name: "v"}])
        assert "<Code>InvalidArgument</Code>" in post(s3, bucket, fields).told
    fields = signed(s3, bucket, fields={"x-amz-storage-class": "x"}, conditions=[{"x-amz-storage-class": "x"}])
    assert "<Code>InvalidStorageClass</Code>" in post(s3, bucket, fields).told
    fields = signed(s3, bucket, fields={"content-type": "a\nb"}, conditions=[{"content-type": "a\nb"}])
    assert "<Code>InvalidArgument</Code>" in post(s3, bucket, fields).told


def test_a_form_chooses_its_answer(s3: Any, bucket: str) -> None:
    for status in ("200", "201", "999"):
        given = {"success_action_status": status}
        reply = post(s3, bucket, signed(s3, bucket, fields=given, conditions=[given]))
        assert reply.status == {"200": 200, "201": 201}.get(status, 204)
        assert ("<Key>k</Key>" in reply.told) == (status == "201")
    given = {"success_action_redirect": "http://localhost/there?a=b"}
    reply = post(s3, bucket, signed(s3, bucket, fields=given, conditions=[given]))
    assert (reply.status, reply.headers["location"].split("&")[:2]) == (
        303, ["http://localhost/there?a=b", f"bucket={bucket}"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"x-amz-signature": "0" * 64}, 403, "SignatureDoesNotMatch"),
        ({"x-amz-credential": "NOBODY/20260101/us-east-1/s3/aws4_request", "x-amz-date": "20260101T000000Z"}, 403, "InvalidAccessKeyId"),
        ({"x-amz-algorithm": "ROT13"}, 400, "InvalidArgument"),
        ({"x-amz-date": None}, 400, "InvalidArgument"),
        ({"policy": None}, 400, "InvalidArgument"),
        ({"policy": None, "x-amz-signature": None}, 403, "AccessDenied"),
        ({"key": None}, 400, "InvalidArgument"),
        ({"key": "other"}, 403, "AccessDenied"),
        ({"acl": "private"}, 403, "AccessDenied"),
    ],
)  # fmt: skip
def test_another_form_than_the_signed_one_is_refused(
    s3: Any, bucket: str, change: dict[str, str | None], status: int, code: str
) -> None:
    fields = {name: value for name, value in (signed(s3, bucket) | change).items() if value is not None}
    reply = post(s3, bucket, fields)
    assert (reply.status, f"<Code>{code}</Code>" in reply.told) == (status, True), reply.told


def test_a_form_holds_to_its_size(s3: Any, bucket: str) -> None:
    fields = signed(s3, bucket, conditions=[["content-length-range", 2, 70_000]])
    for data, status, code in ((b"x", 400, "EntityTooSmall"), (b"x" * 70_001, 400, "EntityTooLarge"), (b"xx", 204, "")):
        reply = post(s3, bucket, fields, data)
        assert (reply.status, code in reply.told) == (status, True)
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 2


def test_a_form_is_for_its_bucket_and_has_a_file(s3: Any, bucket: str) -> None:
    other = f"test-{ids.word(16)}"
    s3.create_bucket(Bucket=other)
    assert "Policy Condition failed" in post(s3, other, signed(s3, bucket)).told
    assert "Policy Condition failed" in post(s3, other, {"bucket": bucket, **signed(s3, bucket)}).told
    assert "exactly one file" in post(s3, bucket, signed(s3, bucket), None).told
    assert "MaxPostPreDataLengthExceeded" in post(s3, bucket, {"x": "y" * 30_000, **signed(s3, bucket)}).told


def policy_of(s3: Any, client: Any, policy: Any) -> dict[str, str]:
    """A form that is signed, whatever its policy says."""
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    digest = hmac.digest(client.keys["secret_access_key"].encode(), text.encode(), "sha1")
    signature = base64.b64encode(digest).decode()
    return {"key": "k", "AWSAccessKeyId": client.keys["access_key_id"], "policy": text, "signature": signature}


LATER = "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ([], "InvalidPolicyDocument"),
        ({"conditions": []}, "InvalidPolicyDocument"),
        ({"expiration": LATER}, "InvalidPolicyDocument"),
        ({"expiration": "tomorrow", "conditions": []}, "InvalidPolicyDocument"),
        ({"expiration": "2001-01-01T00:00:00Z", "conditions": []}, "Policy expired"),
        ({"expiration": LATER, "conditions": []}, "Extra input fields"),
        ({"expiration": LATER, "conditions": [["like", "$key", "k"]]}, "InvalidPolicyDocument"),
        ({"expiration": LATER, "conditions": [["content-length-range", 1]]}, "InvalidPolicyDocument"),
        ({"expiration": LATER, "conditions": [{"key": "k", "bucket": "b"}]}, "InvalidPolicyDocument"),
    ],
)
def test_a_policy_that_says_nothing_good_is_refused(s3: Any, bucket: str, client: Any, policy: Any, code: str) -> None:
    reply = post(s3, bucket, policy_of(s3, client, policy))
    assert reply.status in (400, 403)
    assert code in reply.told


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_form_is_read_however_it_is_cut(size: int) -> None:
    kind, body = encode({"a": "1", "B": "\r\n-"}, b"\r\n--xY" * 50)
    reader = FormReader(kind)
    given = b"".join(reader.feed(body[at : at + size]) for at in range(0, len(body), size))
    assert (reader.fields, reader.filename, given, reader.done) == (
        {"a": "1", "b": "\r\n-"}, "f.txt", b"\r\n--xY" * 50, True,
    )  # fmt: skip


def test_a_form_that_is_none_is_malformed() -> None:
    with pytest.raises(Malformed):
        FormReader("multipart/form-data")
    with pytest.raises(TooLong):
        FormReader("multipart/form-data; boundary=x").feed(b"y" * 30_000)
    with pytest.raises(Malformed):
        FormReader("multipart/form-data; boundary=x").feed(b"--x\r\nContent-Disposition: form-data\r\n\r\n")
