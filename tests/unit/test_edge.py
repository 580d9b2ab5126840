"""The edge over HTTP, by hand: what hosts mean, how bodies come, whose requests see what."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from penstock.front import Front
from penstock.kernel.errors import ServiceError
from tests.conftest import Boto, House

TARGET = {"x-amz-target": "SageMaker.ListModels", "content-type": "application/x-amz-json-1.1"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's code, in whichever form it was told."""
        text = self.body.decode()
        if found := re.search(r"<Code>([^<]+)</Code>", text):
            return found[1]
        return str(json.loads(text)["__type"]).rpartition("#")[2] if text.startswith("{") else ""

    @property
    def message(self) -> str:
        text = self.body.decode()
        if found := re.search(r"<Message>([^<]*)</Message>", text):
            return found[1]
        told = json.loads(text)
        return str(told.get("message") or told.get("Message") or "")


def plain(request: AWSRequest) -> dict[str, str]:
    """The headers of a signed request, without the length: whoever sends it says how long it is."""
    given = request.prepare().headers.items()
    texts = {name: value if isinstance(value, str) else value.decode() for name, value in given}
    return {name: value for name, value in texts.items() if name.lower() != "content-length"}


@dataclass
class Raw:
    """Requests made by hand, signed by botocore's own signer."""

    url: str
    keys: dict[str, str]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def sign(
        self,
        service: str,
        method: str = "POST",
        path: str = "/",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        region: str = "us-east-1",
        secret: str | None = None,
    ) -> dict[str, str]:
        request = AWSRequest(
            method,
            self.url + path,
            headers={**(TARGET if service == "sagemaker" else {}), **(headers or {})},
            data=body,
        )
        signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        keys = Credentials(self.keys["access_key_id"], secret or self.keys["secret_access_key"])
        request.context.update({"payload_signing_enabled": True})
        signer(keys, service, region).add_auth(request)
        return plain(request)

    def send(self, headers: dict[str, str], method: str = "POST", path: str = "/", body: bytes = b"") -> Answer:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if not {"Content-Length", "Transfer-Encoding"} & set(headers):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def ask(self, service: str = "sagemaker", body: bytes = b"{}", **options: Any) -> Answer:
        """A signed request, sent."""
        headers = self.sign(service, body=body, **options)
        return self.send(headers, options.get("method", "POST"), options.get("path", "/"), body)


@pytest.fixture
def raw(house: House) -> Raw:
    return Raw(house.url, house.account())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the signer's clock forward by seconds."""

    def move(seconds: float) -> None:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: moment.replace(tzinfo=None))

    return move


# --- who asks


def test_a_signed_request_by_hand_is_answered(raw: Raw) -> None:
    answer = raw.ask()
    assert (answer.status, json.loads(answer.body)) == (200, {"Models": []})
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"
    assert answer.headers["x-amzn-requestid"]


def test_an_unsigned_request_for_an_object_is_refused(raw: Raw) -> None:
    answer = raw.send({}, "GET", "/a-bucket/a-key")
    assert (answer.status, answer.code) == (403, "AccessDenied")


@pytest.mark.parametrize(("service", "code"), [("s3", "SignatureDoesNotMatch"), ("lambda", "InvalidSignatureException")])
def test_an_address_that_is_too_long_is_refused_in_the_services_form(raw: Raw, service: str, code: str) -> None:
    path = "/2015-03-31/functions" if service == "lambda" else "/a-bucket"
    answer = raw.ask(service, body=b"", method="GET", path=f"{path}?uploads=&delimiter={'a' * 70_000}")
    assert (answer.status, answer.headers.get("x-amzn-errortype") or answer.code) == (403, code)


@pytest.mark.parametrize(
    ("service", "status", "code"),
    [("sagemaker", 400, "InvalidSignatureException"), ("s3", 403, "SignatureDoesNotMatch")],
)
def test_a_signature_by_another_secret_is_refused(raw: Raw, service: str, status: int, code: str) -> None:
    answer = raw.ask(service, secret="another", body=b"", **({"method": "GET"} if service == "s3" else {}))
    assert (answer.status, answer.code) == (status, code)


def test_an_unknown_key_is_refused(raw: Raw) -> None:
    answer = Raw(raw.url, raw.keys | {"access_key_id": "AKIAIOSFODNN7EXAMPLE"}).ask()
    assert (answer.status, answer.code) == (400, "UnrecognizedClientException")


@pytest.mark.parametrize("seconds", [-14 * 60, 14 * 60])
def test_a_clock_that_is_a_little_off_is_good_enough(raw: Raw, now: Any, seconds: float) -> None:
    now(seconds)
    assert raw.ask().status == 200


def test_a_skewed_date_is_told_in_the_words_of_s3(raw: Raw, now: Any) -> None:
    now(-3600)
    answer = raw.ask("s3", method="GET", body=b"")
    assert (answer.status, answer.code) == (403, "RequestTimeTooSkewed")


def test_a_scope_for_a_service_that_is_not_there_says_so(raw: Raw) -> None:
    answer = raw.send(raw.sign("dynamodb", body=b"{}") | {"x-amz-target": "DynamoDB_20120810.ListTables"}, body=b"{}")
    assert answer.status in (400, 501)
    assert "dynamodb" in answer.body.decode().lower()


@pytest.mark.parametrize("region", ["..", "us east", "US-EAST-1", "a" * 60])
def test_a_scope_for_no_region_is_refused(raw: Raw, region: str) -> None:
    answer = raw.ask(region=region)
    assert (answer.status, answer.code) == (400, "InvalidSignatureException")


def test_credentials_of_a_session_are_useless_without_their_token(raw: Raw, client: Boto) -> None:
    given = client("sts").get_session_token()["Credentials"]
    keys = {"access_key_id": given["AccessKeyId"], "secret_access_key": given["SecretAccessKey"]}
    answer = Raw(raw.url, keys).ask()
    assert (answer.status, answer.code) == (400, "UnrecognizedClientException")


# --- by which name


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4600", "localhost.evil.example", "amazonaws.com.evil.io", ""]
)
def test_a_foreign_host_is_refused(raw: Raw, host: str) -> None:
    answer = raw.send({"Host": host}, "GET", "/_penstock/health")
    assert answer.status == 400
    assert b"InvalidHost" in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:4600", "LOCALHOST", "[::1]:4600"])
def test_our_own_names_are_known(raw: Raw, host: str) -> None:
    answer = raw.send({"Host": host}, "GET", "/_penstock/health")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("host", "meant"),
    [
        ("127.0.0.1:4600", (None, None)),
        ("sts.us-east-1.amazonaws.com", ("sts", None)),
        ("sts.amazonaws.com:443", ("sts", None)),
        ("iam.amazonaws.com", ("iam", None)),
        ("logs.eu-central-1.amazonaws.com", ("logs", None)),
        ("api.sagemaker.us-west-2.amazonaws.com", ("sagemaker", None)),
        ("metrics.sagemaker.us-west-2.amazonaws.com", ("sagemaker-metrics", None)),
        ("sagemaker.us-west-2.api.aws", ("sagemaker", None)),
        ("runtime.sagemaker.us-west-2.amazonaws.com", (None, None)),
        ("nothing-we-know.us-west-2.amazonaws.com", (None, None)),
        ("s3.amazonaws.com", ("s3", None)),
        ("s3.us-west-2.amazonaws.com", ("s3", None)),
        ("s3-us-west-2.amazonaws.com", ("s3", None)),
        ("s3.dualstack.us-west-2.amazonaws.com", ("s3", None)),
        ("s3-fips.us-gov-west-1.amazonaws.com", ("s3", None)),
        ("s3.cn-north-1.amazonaws.com.cn", ("s3", None)),
        ("bucket.s3.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3.us-west-2.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3-us-west-2.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3.dualstack.us-west-2.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3-fips.dualstack.us-east-1.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3-accelerate.amazonaws.com", ("s3", "bucket")),
        ("bucket.s3-accelerate.dualstack.amazonaws.com", ("s3", "bucket")),
        ("my.dotted.bucket.s3.us-west-2.amazonaws.com", ("s3", "my.dotted.bucket")),
        ("of.s3.bucket.s3.us-west-2.amazonaws.com", ("s3", "of.s3.bucket")),
        ("bucket.s3.cn-north-1.amazonaws.com.cn", ("s3", "bucket")),
        ("bucket.s3.localhost:4600", ("s3", "bucket")),
        ("bucket.localhost:4600", ("s3", "bucket")),
        ("10.1.2.3:4600", (None, None)),
        ("sm-pysdk-t-us-west-2.s3.us-west-2.amazonaws.com", ("telemetry", None)),
    ],
)
def test_a_host_means_a_service_and_a_bucket(house: House, host: str, meant: tuple[str | None, str | None]) -> None:
    assert Front(house.app).meant_by(host) == meant


@pytest.mark.parametrize(
    "host", ["evil.example", "notamazonaws.com", "s3.amazonaws.com.evil.io", "s3.evil.example", ":80"]
)
def test_a_host_that_is_neither_ours_nor_awss_is_named(house: House, host: str) -> None:
    with pytest.raises(ServiceError, match="does not answer for the host"):
        Front(house.app).meant_by(host)


def test_telemetry_is_answered_unsigned(raw: Raw) -> None:
    host = "sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com"
    assert raw.send({"Host": host}, "GET", "/telemetry?x-feature=1").status == 200


# --- what is asked


def test_an_operation_that_does_not_exist_is_unknown(raw: Raw) -> None:
    answer = raw.ask(headers={"x-amz-target": "SageMaker.MakeCoffee"})
    assert (answer.status, answer.code) == (400, "UnknownOperationException")


def test_a_body_that_is_no_json_is_told(raw: Raw) -> None:
    answer = raw.ask(body=b"{not json")
    assert (answer.status, answer.code) == (400, "SerializationException")


def test_a_bug_is_answered_without_its_inside(raw: Raw, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(house.app.store), "page", lambda *_: 1 / 0)
    answer = raw.ask()
    assert (answer.status, answer.code) == (500, "InternalFailure")
    assert b"division" not in answer.body


def test_who_is_overtaken_looks_again(client: Boto, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker, commit, turns = client("sagemaker"), house.app.store.commit_async, ["first"]

    async def commit_late(change: Any) -> Any:
        if turns and turns.pop():  # somebody else takes the name between our look and our commit
            await asyncio.to_thread(sagemaker.create_model_package_group, ModelPackageGroupName="taken")
        return await commit(change)

    monkeypatch.setattr(type(house.app.store), "commit_async", lambda _, change: commit_late(change))
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_model_package_group(ModelPackageGroupName="taken")


# --- bodies


def test_a_body_beyond_the_limit_of_unknown_length_is_refused(raw: Raw, house: House) -> None:
    size = house.app.settings.max_body_bytes + (1 << 20)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size)
    headers = raw.sign("sagemaker", body=b" " * size) | {"Transfer-Encoding": "chunked"}
    assert raw.send(headers, body=body).status == 413


def test_a_form_without_a_length_is_answered(raw: Raw) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = raw.sign("sts", body=body, headers=form) | {"Transfer-Encoding": "chunked"}
    answer = raw.send(headers, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert raw.keys["account"] in answer.body.decode()


def test_an_empty_form_is_answered(raw: Raw) -> None:
    headers = raw.sign("sts", headers={"content-type": "application/x-www-form-urlencoded"})
    answer = raw.send(headers | {"Transfer-Encoding": "chunked"}, body=b"0\r\n\r\n")
    assert (answer.status, answer.code) == (400, "MissingAction")


@pytest.mark.parametrize("length", ["-1", "x", "1 2"])
def test_a_length_that_is_none_is_no_request(raw: Raw, length: str) -> None:
    assert raw.send(raw.sign("sagemaker") | {"Content-Length": length}, body=b"{}").status == 400


def aws_chunked(body: bytes, trailer: str) -> bytes:
    return b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(body), body, trailer.encode())


@pytest.mark.parametrize("right", [True, False])
def test_a_chunked_body_with_a_trailing_checksum_is_taken_by_other_services_than_s3(raw: Raw, right: bool) -> None:
    body = b'{"MaxResults":1}'
    crc = b64encode(zlib.crc32(body if right else b"another").to_bytes(4, "big")).decode()
    sent = aws_chunked(body, f"x-amz-checksum-crc32:{crc}")
    extra = {
        "content-encoding": "aws-chunked",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    answer = raw.send(sign_streaming(raw, extra), body=sent)
    assert answer.status == (200 if right else 400), answer.body


def sign_streaming(raw: Raw, extra: dict[str, str]) -> dict[str, str]:
    class Signer(botocore.auth.SigV4Auth):
        def payload(self, request: Any) -> str:
            return extra["x-amz-content-sha256"]

    request = AWSRequest("POST", raw.url + "/", headers=TARGET | extra)
    keys = Credentials(raw.keys["access_key_id"], raw.keys["secret_access_key"])
    Signer(keys, "sagemaker", "us-east-1").add_auth(request)
    return plain(request)


def test_a_chunked_body_that_is_cut_off_is_refused(raw: Raw) -> None:
    extra = {
        "content-encoding": "aws-chunked",
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": "16",
    }
    answer = raw.send(sign_streaming(raw, extra), body=b'10\r\n{"Max')
    assert (answer.status, answer.code) == (400, "IncompleteBody")


def test_an_object_shorter_than_its_length_is_not_kept(raw: Raw) -> None:
    s3 = Boto(raw.url, raw.keys)("s3")
    s3.create_bucket(Bucket="too-short")
    body = b"0123456789"
    extra = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "11"}
    headers = raw.sign("s3", "PUT", "/too-short/key", body, extra)
    answer = raw.send(headers, "PUT", "/too-short/key", b"a\r\n%s\r\n0\r\n\r\n" % body)
    assert answer.status == 400
    assert "Contents" not in s3.list_objects_v2(Bucket="too-short")
    s3.close()


def test_an_error_before_the_body_leaves_the_connection_usable(raw: Raw) -> None:
    connection = http.client.HTTPConnection(*raw.address, timeout=10)
    connection.request("POST", "/", b"x" * (1 << 20), TARGET)
    first = connection.getresponse()
    assert (first.status, bool(first.read())) == (400, True)
    connection.request("GET", "/_penstock/health")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()


# --- whose


def test_what_is_in_one_region_is_in_no_other(raw: Raw) -> None:
    here, there = Boto(raw.url, raw.keys), Boto(raw.url, raw.keys, "eu-west-1")
    here("sagemaker").create_model_package_group(ModelPackageGroupName="here")
    assert there("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    arn = there("sagemaker").create_model_package_group(ModelPackageGroupName="here")["ModelPackageGroupArn"]
    assert ":eu-west-1:" in arn
    here.close(), there.close()


def test_what_is_of_one_account_is_of_no_other(raw: Raw, client: Boto) -> None:
    mine = Boto(raw.url, raw.keys)
    mine("sagemaker").create_model_package_group(ModelPackageGroupName="mine")
    assert client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    with pytest.raises(ClientError, match="does not exist"):
        client("sagemaker").describe_model_package_group(ModelPackageGroupName="mine")
    mine("s3").create_bucket(Bucket="mine-alone")
    mine("s3").put_object(Bucket="mine-alone", Key="key", Body=b"1")
    with pytest.raises(ClientError, match="AccessDenied"):
        client("s3").get_object(Bucket="mine-alone", Key="key")
    mine.close()


def test_the_digest_of_an_object_is_compared_with_the_signed_one(raw: Raw) -> None:
    s3 = Boto(raw.url, raw.keys)("s3")
    s3.create_bucket(Bucket="digests")
    headers = raw.sign("s3", "PUT", "/digests/key", b"0123456789")
    answer = raw.send(headers, "PUT", "/digests/key", b"9876543210")
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    s3.close()
