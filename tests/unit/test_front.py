"""The edge over HTTP: who is refused, and with which words."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from penstock.front import Front
from penstock.kernel import auth
from penstock.kernel.call import Caller
from penstock.runs.base import ImageError
from penstock.store.records import Change
from penstock.wire import models
from tests.conftest import Boto, House

TARGET = {"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"}


def headers_of(house: House, keys: dict[str, str], service: str = "sagemaker", **more: str) -> dict[str, str]:
    """What a client would sign for ListModels."""
    given = TARGET | more
    request = AWSRequest("POST", house.url + "/", headers=given, data=b"{}")
    credentials = Credentials(keys["access_key_id"], keys["secret_access_key"], keys.get("token"))
    SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return {**dict(request.headers.items()), "Host": house.url.partition("//")[2]}


def post(house: House, headers: dict[str, str], body: bytes = b"{}") -> tuple[int, str]:
    """Status and error code of an answer."""
    connection = http.client.HTTPConnection(house.url.partition("//")[2], timeout=10)
    connection.request("POST", "/", body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text).get("__type", "").rpartition("#")[2] if text.startswith("{") else text


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("sagemaker", "ListPipelineVersions"),
        ("sagemaker", "ListTrainingJobsForHyperParameterTuningJob"),
        ("ecr", "BatchDeleteImage"),
        ("ecr", "DeleteRepository"),
    ],
)
def test_what_reads_or_unlinks_much_runs_beside_the_event_loop(house: House, service: str, name: str) -> None:
    operation = house.app.function(models.service(service).operations[name])
    assert getattr(operation, "slow", False)


def test_who_waits_for_an_answer_about_an_image_holds_up_nobody(
    house: House, client: Boto, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, goes_on = threading.Event(), threading.Event()

    def check(_: str) -> None:
        checks.set()
        assert goes_on.wait(60)
        raise ImageError("No environment is known for the image slow:1. Nothing stands for it.")

    monkeypatch.setattr(house.app, "images", mock.Mock(asks=lambda _: True, check=check))
    job = {
        "ProcessingJobName": "Slow", "RoleArn": client.role, "AppSpecification": {"ImageUri": "slow:1"},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    }  # fmt: skip
    sagemaker = client("sagemaker")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(sagemaker.create_processing_job, **job)
        try:
            assert checks.wait(60)
            assert sagemaker.list_models()["Models"] == []
        finally:
            goes_on.set()
        with pytest.raises(ClientError, match="Nothing stands for it"):
            made.result(60)


def test_a_signed_request_is_answered(house: House) -> None:
    assert post(house, headers_of(house, house.account())) == (200, "")


def test_an_unsigned_request_is_refused(house: House) -> None:
    assert post(house, TARGET) == (400, "MissingAuthenticationTokenException")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("us-east-1", "eu-west-1", "InvalidSignatureException"),
        ("/sagemaker/", "/logs/", "UnknownOperationException"),
        ("Signature=", "Signature=0", "InvalidSignatureException"),
    ],
)
def test_a_changed_scope_or_signature_is_refused(house: House, old: str, new: str, code: str) -> None:
    headers = headers_of(house, house.account())
    headers["Authorization"] = headers["Authorization"].replace(old, new)
    assert post(house, headers) == (400, code)


def test_another_body_than_the_signed_one_is_refused(house: House) -> None:
    status, code = post(house, headers_of(house, house.account()), b'{"MaxResults":1}')
    assert (status, code) == (400, "InvalidSignatureException")


@pytest.mark.parametrize("shift_s", [-16 * 60, 16 * 60])
def test_a_date_too_far_off_is_refused(house: House, shift_s: int) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + shift_s))
    moment = mock.Mock(strftime=lambda _: stamp)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        headers = headers_of(house, house.account())
    assert headers["X-Amz-Date"] == stamp
    assert post(house, headers) == (400, "InvalidSignatureException")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4600", "amazonaws.com.evil.example", "127.0.0.1.nip.io"]
)
def test_a_foreign_host_is_refused_before_all(house: House, host: str) -> None:
    assert post(house, headers_of(house, house.account()) | {"Host": host}) == (400, "InvalidHost")


def test_an_operation_that_is_not_served_is_named(client: Boto) -> None:
    with pytest.raises(ClientError, match="CreateEdgeDeploymentPlan") as caught:
        client("sagemaker").create_edge_deployment_plan(
            EdgeDeploymentPlanName="a", ModelConfigs=[], DeviceFleetName="fleet"
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_body_beyond_the_limit_is_refused(house: House) -> None:
    headers = headers_of(house, house.account())
    status, code = post(house, headers, b" " * (house.app.settings.max_body_bytes + 1))
    assert (status, code) == (413, "RequestEntityTooLarge")


def test_a_client_that_goes_away_in_its_body_leaves_no_object(house: House, client: Boto) -> None:
    s3 = client("s3")
    bucket = f"gone-{client.account}"
    s3.create_bucket(Bucket=bucket)
    request = AWSRequest("PUT", f"{house.url}/{bucket}/key", data=b"x" * 300_000)
    credentials = Credentials(client.keys["access_key_id"], client.keys["secret_access_key"])
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(house.url.partition("//")[2], timeout=10)
    connection.putrequest("PUT", f"/{bucket}/key")
    for name, value in (*request.headers.items(), ("Content-Length", "300000")):
        connection.putheader(name, value)
    connection.endheaders(b"x" * 200_000)
    connection.close()
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "CRC64NVME"])
def test_chunked_bodies_with_trailing_checksums_are_taken(client: Boto, algorithm: str) -> None:
    s3 = client("s3")
    bucket = f"trailing-{client.account}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100_000, ChecksumAlgorithm=algorithm)
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found["ContentLength"] == 100_000
    assert found[f"Checksum{algorithm}"]


def test_what_another_account_has_is_not_seen(house: House, client: Boto) -> None:
    client("sagemaker").create_model_package_group(ModelPackageGroupName="mine")
    other = Boto(house.url, house.account())
    assert other("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    with pytest.raises(ClientError, match="does not exist"):
        other("sagemaker").describe_model_package_group(ModelPackageGroupName="mine")
    other.close()


# --- a run's own socket
def through(house: House, run: str, keys: dict[str, str]) -> int:
    """The status that a request gets on the socket of a run."""
    headers = headers_of(house, keys)
    answer: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        answer.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Front(house.app).of_run(run)(scope, receive, send))
    return int(answer[0]["status"])


def test_a_runs_socket_takes_the_runs_credentials_until_they_end(house: House) -> None:
    caller = Caller(account="123456789012", arn="arn:aws:sts::123456789012:assumed-role/r/job", run="run-a")
    now = time.time()
    key = auth.make_key(caller, now, now + 60)
    house.app.store.commit(Change(puts=[key]))
    keys = {
        "access_key_id": key.name,
        "secret_access_key": key.body["SecretAccessKey"],
        "token": key.body["SessionToken"],
    }
    assert through(house, "run-a", keys) == 200
    assert through(house, "run-b", keys) in (400, 403)
    assert through(house, "run-a", keys | {"token": "another"}) in (400, 403)
    stored = house.app.store.get(key.ref)
    assert stored is not None
    house.app.store.commit(Change(deletes=[stored]))
    assert through(house, "run-a", keys) in (400, 403)


def test_a_runs_socket_refuses_an_accounts_credentials(house: House) -> None:
    assert through(house, "run-c", house.account()) in (400, 403)
