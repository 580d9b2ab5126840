"""A front killed in the middle of an upload, an engine killed in the middle of commits: what boto3 was told is true."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from penstock.runs import sandbox
from tests.crash.families import Clan, raise_clan, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
BUCKET = "writes"
LARGE = random.Random(5).randbytes(24 << 20)


class Body(io.BytesIO):
    """Bytes to send; something happens once, in the middle of the third reading: the first two are for checksum and signature."""

    def __init__(self, data: bytes, happens: Callable[[], Any]):
        super().__init__(data)
        self._happens, self._left = happens, len(data) * 5 // 2
        self.happened = False

    def _count(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left <= 0 and not self.happened:
            self.happened = True
            self._happens()
        return piece

    def read(self, size: int | None = -1) -> bytes:
        return self._count(super().read(size))

    def read1(self, size: int | None = -1) -> bytes:
        return self._count(super().read1(size))


def cut_off(clan: Clan, url: str, data: bytes) -> None:
    """Sends half of a body to a presigned address, kills the front, and sends the rest into nothing."""
    connection = begin(url, data)
    assert clan.kill("front")
    with pytest.raises((OSError, http.client.HTTPException)):
        finish(connection, data[len(data) // 2 :])
    connection.close()


def begin(url: str, data: bytes) -> http.client.HTTPConnection:
    """Sends half of a body to a presigned address."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(len(data)))
    connection.endheaders()
    connection.send(data[: len(data) // 2])
    return connection


def finish(connection: http.client.HTTPConnection, rest: bytes) -> None:
    connection.send(rest)
    connection.getresponse()


@pytest.fixture(scope="module")
def clan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clan]:
    with raise_clan(tmp_path_factory.mktemp("writes")) as made:
        made.client("s3").create_bucket(Bucket=BUCKET)
        yield made


@pytest.fixture
def s3(clan: Clan) -> Any:
    return clan.client("s3")


def address(s3: Any, operation: str = "put_object", **params: Any) -> str:
    return str(s3.generate_presigned_url(operation, Params={"Bucket": BUCKET, **params}))


def keys(s3: Any) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def test_what_a_killed_engine_acknowledged_is_there_and_happened_once(clan: Clan, s3: Any) -> None:
    """The front keeps a change until the writer has answered, so boto3 has nothing to try again: a name taken would show it."""
    sm, role = clan.client("sagemaker", 1), clan.keys["role_arn"]
    over, acknowledged, wrong = threading.Event(), [], []

    def write(number: int) -> None:
        count = 0
        while not over.is_set():
            name = f"m-{number}-{count}"
            try:
                s3.put_object(Bucket=BUCKET, Key=f"small/{name}", Body=name.encode())
                sm.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": "python:3.11"})
                acknowledged.append(name)
            except Exception as error:
                wrong.append(f"{name}: {error}")
            count += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        done = len(acknowledged)
        until(lambda done=done: len(acknowledged) >= done + 15 or wrong, "fifteen writes")
        until(lambda: clan.kill("engine"), "the engine is there")
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    pages = sm.get_paginator("list_models").paginate()
    assert sorted(model["ModelName"] for page in pages for model in page["Models"]) == sorted(acknowledged)
    assert len(acknowledged) >= 60
    for name in acknowledged[::7]:
        assert s3.get_object(Bucket=BUCKET, Key=f"small/{name}")["Body"].read() == name.encode()


def test_an_upload_cut_off_by_a_killed_front_is_not_there(clan: Clan, s3: Any) -> None:
    cut_off(clan, address(s3, Key="cut"), LARGE)
    assert "cut" not in keys(s3)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="cut")


def test_an_overwrite_cut_off_leaves_the_old_object_whole(clan: Clan, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="kept", Body=LARGE[::-1])
    cut_off(clan, address(s3, Key="kept"), LARGE)
    assert s3.get_object(Bucket=BUCKET, Key="kept")["Body"].read() == LARGE[::-1]


def test_a_client_that_tries_again_uploads_it_after_all(clan: Clan, s3: Any) -> None:
    body = Body(LARGE, lambda: clan.kill("front"))
    answer = s3.put_object(Bucket=BUCKET, Key="again", Body=body)
    assert body.happened
    assert answer["ResponseMetadata"]["RetryAttempts"] > 0
    assert s3.get_object(Bucket=BUCKET, Key="again")["Body"].read() == LARGE


def test_a_part_cut_off_is_not_there_and_the_others_are(clan: Clan, s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    names = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload}
    pieces = [LARGE[: 8 << 20], LARGE[8 << 20 : 16 << 20], LARGE[16 << 20 :]]
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**names, PartNumber=1, Body=pieces[0])["ETag"]}]
    cut_off(clan, address(s3, "upload_part", Key="parts", UploadId=upload, PartNumber=2), pieces[1])
    assert [part["PartNumber"] for part in s3.list_parts(**names)["Parts"]] == [1]
    assert "parts" not in keys(s3)
    for number in (2, 3):
        etag = s3.upload_part(**names, PartNumber=number, Body=pieces[number - 1])["ETag"]
        parts.append({"PartNumber": number, "ETag": etag})
    s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == LARGE


def test_what_was_received_of_cut_off_uploads_is_given_back(clan: Clan, s3: Any) -> None:
    """At once where the front fell, after an hour where the porter did: here the files are made to look old."""

    def left() -> list[Path]:
        return list((clan.data / "blobs" / "tmp").iterdir())

    cut_off(clan, address(s3, Key="left"), LARGE)
    until(lambda: not left(), "the porter's giving up")
    connection = begin(address(s3, Key="left"), LARGE)
    until(lambda: bool(left()), "the first bytes in the file")
    assert clan.kill("porter")
    assert connection.getresponse().status == 503
    connection.close()
    lying = left()
    assert lying
    for path in lying:
        os.utime(path, (0, 0))
    clan.kill("engine")
    until(lambda: not any(path.exists() for path in lying), "the sweep")


def test_a_transfer_goes_on_while_front_and_engine_are_killed(clan: Clan, s3: Any) -> None:
    data = LARGE * 2
    over = threading.Event()

    def kill() -> None:
        for name in ("front", "engine", "front", "engine"):
            if over.wait(0.15):
                return
            clan.kill(name)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        s3.upload_fileobj(io.BytesIO(data), BUCKET, "transfer", Config=TransferConfig(5 << 20, 4, 5 << 20))
    finally:
        over.set()
        killer.join()
    into = io.BytesIO()
    s3.download_fileobj(BUCKET, "transfer", into)
    assert hashlib.sha256(into.getvalue()).digest() == hashlib.sha256(data).digest()


def test_an_engine_killed_while_it_joins_a_large_object_joins_it_again(clan: Clan, s3: Any) -> None:
    """The job that needs it has begun nothing by then; another job goes on meanwhile."""
    names = {"Bucket": BUCKET, "Key": "joined/large"}
    upload = s3.create_multipart_upload(**names)["UploadId"]
    part = os.urandom(64 << 20)
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**names, UploadId=upload, PartNumber=1, Body=part)["ETag"]}]
    s3.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
    upload = s3.create_multipart_upload(**names)["UploadId"]
    copies = [
        s3.upload_part_copy(**names, UploadId=upload, PartNumber=n, CopySource=f"{BUCKET}/joined/large")
        for n in range(1, 9)
    ]
    parts = [{"PartNumber": n, "ETag": copy["CopyPartResult"]["ETag"]} for n, copy in enumerate(copies, 1)]
    s3.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
    check = "import os; assert os.path.getsize('/opt/ml/processing/in/large') == 8 * (64 << 20)"
    sm = clan.client("sagemaker")
    temporary, killed = clan.data / "blobs" / "tmp", 0
    sm.create_processing_job(
        ProcessingJobName="joins", RoleArn=clan.keys["role_arn"],
        AppSpecification={"ImageUri": "python:3.11", "ContainerEntrypoint": ["python", "-c", check]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5}},
        ProcessingInputs=[
            {"InputName": "in", "S3Input": {
                "S3Uri": f"s3://{BUCKET}/joined/large", "LocalPath": "/opt/ml/processing/in", "S3DataType": "S3Prefix",
                "S3InputMode": "File"}}],
    )  # fmt: skip
    for _ in range(2):
        engine = until(lambda: clan.member("engine"), "the engine is there")
        until(lambda engine=engine: begun(temporary, engine), "the joining")
        killed += clan.kill("engine")
    ended = until(lambda: sm.describe_processing_job(ProcessingJobName="joins")["ProcessingJobStatus"] != "InProgress",
                  "the job's end")  # fmt: skip
    job = sm.describe_processing_job(ProcessingJobName="joins")
    assert (killed, ended, job["ProcessingJobStatus"]) == (2, True, "Completed"), job.get("FailureReason")
    reads = clan.reads()
    row = reads.object(BUCKET, "joined/large")
    reads.close()
    assert row is not None
    assert len(row.parts) == 1


def begun(temporary: Path, engine: int) -> bool:
    """Whether the engine writes a file beside the blobs."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size > 0 for path in temporary.glob(f"{engine}-*"))
    return False
