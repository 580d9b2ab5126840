"""Large bodies that the porter carries: what is kept, what a client sees, and what happens when somebody goes away."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock import front as fronts
from penstock.front import Front
from penstock.porter import Carrier, Porter
from penstock.runs import handout
from tests.conftest import Boto, House, serving
from tests.fuzz.shots import Keys, Shot, Signature, wire

LARGE = os.urandom(1 << 20) * 3 + b"and a tail"
WAIT_S = 60.0


@contextlib.contextmanager
def listened(attend: Any) -> Iterator[Path]:
    """A socket where a porter listens, or somebody who passes for one."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-porter-"))
    listening = handout.listen(folder / "porter.sock")
    thread = threading.Thread(target=attend, args=(listening,))
    thread.start()
    try:
        yield folder / "porter.sock"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(WAIT_S)
        listening.close()
        shutil.rmtree(folder)


@contextlib.contextmanager
def refusing_to_keep(house: House, porter: Porter) -> Iterator[str]:
    """A server whose front takes no body in by itself, and is out of patience after a second."""

    async def never(*_: Any) -> None:
        raise AssertionError("the front took the body in itself")

    app = replace(house.app, settings=replace(house.app.settings, patience_s=1.0))
    with pytest.MonkeyPatch.context() as patched, serving(Front(app, porter)) as url:
        patched.setattr(fronts, "keep", never)
        yield url


class Raw:
    """One connection, and signed requests over it."""

    def __init__(self, url: str, keys: dict[str, str]):
        host, _, port = url.partition("//")[2].partition(":")
        self.keys = Keys.of(keys, url)
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.answers = self.socket.makefile("rb")

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        shot = Shot("s3", "PutObject", "s3", method, path, dict(headers), body)
        Signature(self.keys, "s3").sign(shot)
        return wire(shot)

    def answer(self) -> tuple[int, bytes]:
        status = int(self.answers.readline().split()[1])
        length = 0
        while line := self.answers.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return status, self.answers.read(length)

    def close(self) -> None:
        self.answers.close()
        self.socket.close()


@pytest.fixture
def keys(house: House) -> dict[str, str]:
    return house.account()


@pytest.fixture
def raw(house: House, keys: dict[str, str]) -> Iterator[Raw]:
    carrier = Carrier(house.app.blobs)
    with listened(carrier.serve) as path, refusing_to_keep(house, Porter(path)) as url:
        connection = Raw(url, keys)
        connection.socket.sendall(connection.request("PUT", f"/{bucket_of(keys)}"))
        assert connection.answer()[0] == 200
        yield connection
        connection.close()


def bucket_of(keys: dict[str, str]) -> str:
    return f"porter-{keys['account']}"


def test_a_connection_goes_on_after_bodies_that_were_carried(raw: Raw, keys: dict[str, str]) -> None:
    bucket = bucket_of(keys)
    for number in range(3):
        raw.socket.sendall(raw.request("PUT", f"/{bucket}/{number}", LARGE + b"%d" % number))
        assert raw.answer()[0] == 200
        raw.socket.sendall(raw.request("GET", f"/{bucket}/{number}"))
        assert raw.answer() == (200, LARGE + b"%d" % number)


def test_a_body_that_comes_before_and_after_it_is_lent_is_whole(raw: Raw, keys: dict[str, str]) -> None:
    whole = raw.request("PUT", f"/{bucket_of(keys)}/split", LARGE)
    head = len(whole) - len(LARGE)
    for end in (head + 10, head + 70_000, len(whole)):
        begin = {head + 10: 0, head + 70_000: head + 10, len(whole): head + 70_000}[end]
        raw.socket.sendall(whole[begin:end])
    assert raw.answer()[0] == 200
    raw.socket.sendall(raw.request("GET", f"/{bucket_of(keys)}/split"))
    assert raw.answer() == (200, LARGE)


def test_a_carried_body_with_another_digest_is_refused_and_the_connection_goes_on(
    raw: Raw, keys: dict[str, str]
) -> None:
    request = raw.request("PUT", f"/{bucket_of(keys)}/other", LARGE)
    raw.socket.sendall(request[:-1] + b"X")
    status, said = raw.answer()
    assert (status, b"XAmzContentSHA256Mismatch" in said) == (400, True)
    raw.socket.sendall(raw.request("HEAD", f"/{bucket_of(keys)}"))
    assert raw.answer()[0] == 200


def test_a_client_that_stops_sending_is_told_and_let_go(raw: Raw, keys: dict[str, str]) -> None:
    raw.socket.sendall(raw.request("PUT", f"/{bucket_of(keys)}/slow", LARGE)[:-100])
    status, said = raw.answer()
    assert (status, b"RequestTimeout" in said, raw.answers.read()) == (400, True, b"")


def test_a_client_that_goes_away_leaves_nothing(raw: Raw, keys: dict[str, str], house: House) -> None:
    def there() -> set[str]:
        return set(os.listdir(Path(house.app.blobs.root) / "tmp"))

    before = there()
    raw.socket.sendall(raw.request("PUT", f"/{bucket_of(keys)}/gone", LARGE)[:-100])
    deadline = time.monotonic() + WAIT_S
    while there() == before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert there() != before
    raw.close()
    while there() != before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert there() == before


def test_boto3_has_its_parts_carried_with_the_checksums_it_asks_for(raw: Raw, keys: dict[str, str]) -> None:
    boto = Boto(f"http://{raw.keys.host}", keys)
    s3, bucket = boto("s3"), bucket_of(keys)
    answered = s3.put_object(Bucket=bucket, Key="sums", Body=LARGE, ChecksumAlgorithm="SHA1")
    assert answered["ETag"].strip('"') == hashlib.md5(LARGE).hexdigest()
    assert "ChecksumSHA1" in answered
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    given: dict[str, Any] = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    parts = []
    for number in (1, 2):
        body = LARGE * 2 if number == 1 else LARGE
        parts.append({"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=body, **given)["ETag"]})
    s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **given)
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == LARGE * 3
    boto.close()


def test_a_body_is_taken_in_by_the_front_where_there_is_no_porter(
    house: House, keys: dict[str, str], tmp_path: Path
) -> None:
    with serving(Front(house.app, Porter(tmp_path / "nobody.sock"))) as url:
        boto = Boto(url, keys)
        boto("s3").create_bucket(Bucket=bucket_of(keys))
        boto("s3").put_object(Bucket=bucket_of(keys), Key="alone", Body=LARGE)
        assert boto("s3").get_object(Bucket=bucket_of(keys), Key="alone")["Body"].read() == LARGE
        boto.close()


def test_a_porter_that_falls_with_a_body_in_its_hands_answers_503_and_the_client_may_try_again(
    house: House, keys: dict[str, str]
) -> None:
    def fall(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        message = handout.receive(connection)
        assert message
        os.close(message[1][0])
        connection.close()

    with listened(fall) as path, serving(Front(house.app, Porter(path))) as url:
        raw = Raw(url, keys)
        raw.socket.sendall(raw.request("PUT", f"/{bucket_of(keys)}"))
        raw.answer()
        with contextlib.suppress(ConnectionError):
            raw.socket.sendall(raw.request("PUT", f"/{bucket_of(keys)}/fell", LARGE))
        status, said = raw.answer()
        assert (status, b"ServiceUnavailable" in said) == (503, True)
        raw.close()
