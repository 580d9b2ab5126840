"""S3: small objects at 8 connections, a large one through boto3, copies, listings; s3rver and moto beside it on request."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from bench import control
from bench.load import drive
from bench.world import Family, Row, pss_bytes

KEYS = 500
SMALL = os.urandom(2048).hex().encode()
BIG_BYTES = 256 << 20
LISTED = 10_000
SECONDS = 4.0
TIMES = 3
S3RVER = "3.7.1"


def measure(family: Family, peers: bool) -> list[Row]:
    url, keys = str(family.about["url"]), (family.keys["access_key_id"], family.keys["secret_access_key"])
    ours = small(url, keys)
    theirs: dict[str, tuple[float, float]] = {}
    if peers:
        with s3rver() as peer_url:
            theirs["s3rver"] = small(peer_url, ("S3RVER", "S3RVER"))
        with control.moto() as peer_url:
            theirs["moto's server"] = small(peer_url, ("a", "b"))
    rows = []
    for at, what in enumerate(("durable PUT", "GET")):
        budgets = {"s3rver": ">= 1.5 x", "moto's server": (">= 2 x", ">= 5 x")[at]}
        for name, rates in theirs.items() or (("", (None, None)),):
            rows.append(
                Row(f"{what} of 4 KB, 8 connections", "per s", ours[at], rates[at], name, budgets.get(name, ""), True)
            )
    return [*rows, *large(family), copied(family), listed(family, url, keys), *beside(family, url, keys, peers)]


# --- small objects


def signed(method: str, url: str, path: str, keys: tuple[str, str], body: bytes = b"", query: str = "") -> bytes:
    """The bytes of a signed request."""
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest(), "Host": url.partition("//")[2]}
    request = AWSRequest(method, f"{url}{path}{query}", data=body, headers=headers)
    S3SigV4Auth(Credentials(*keys), "s3", "us-east-1").add_auth(request)
    lines = [f"{method} {path}{query} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def small(url: str, keys: tuple[str, str]) -> tuple[float, float]:
    """PUTs and GETs of 4 KB a second."""
    client_of(url, keys).create_bucket(Bucket="bench")
    rates = []
    for method in ("PUT", "GET"):
        body = SMALL if method == "PUT" else b""
        requests = [signed(method, url, f"/bench/k{n}", keys, body) for n in range(KEYS)]
        if method == "PUT":
            drive_once(url, requests)  # all keys are there before they are read
        rates.append(statistics.median(drive(url, requests, SECONDS).rate for _ in range(TIMES)))
    return rates[0], rates[1]


def client_of(url: str, keys: tuple[str, str]) -> Any:
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
        config=Config(proxies={}, max_pool_connections=20),
    )  # fmt: skip


# --- large ones


def large(family: Family) -> list[Row]:
    """A file up and down through boto3, as it does it by itself; a copy with an MD5 on the same disk is the limit."""
    s3 = family.client("s3")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=family.data.parent) as folder:
        source, target = Path(folder) / "big", Path(folder) / "down"
        block = os.urandom(1 << 20)
        with source.open("wb") as file:
            for _ in range(BIG_BYTES >> 20):
                file.write(block)
        ups, downs, limits, memory = [], [], [], 0
        for _ in range(TIMES):
            limits.append(timed(lambda: copy_hashed(source, target)))
            ups.append(timed(lambda: s3.upload_file(str(source), "bench", "big")))
            downs.append(timed(lambda: s3.download_file("bench", "big", str(target))))
            memory = max(memory, pss_bytes(family.pids()))
        assert hashlib.md5(target.read_bytes()).digest() == hashlib.md5(source.read_bytes()).digest()
    mb = BIG_BYTES / 1e6
    limit = mb / statistics.median(limits)
    return [
        Row("256 MB up, boto3", "MB/s", mb / statistics.median(ups), limit, "a copy with MD5", ">= 0.5 x", True),
        Row("256 MB down, boto3", "MB/s", mb / statistics.median(downs), limit, "a copy with MD5", ">= 0.5 x", True),
        Row("memory of the family meanwhile (PSS)", "MB", memory / 1e6, None, "", "< 300 MB"),
    ]


def copy_hashed(source: Path, target: Path) -> None:
    digest = hashlib.md5()
    with source.open("rb") as read, target.open("wb") as write:
        while piece := read.read(1 << 20):
            digest.update(piece)
            write.write(piece)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def copied(family: Family) -> Row:
    """CopyObject of 1 GB."""
    s3 = family.client("s3")
    upload = s3.create_multipart_upload(Bucket="bench", Key="1gb")["UploadId"]
    parts = []
    for number in range(1, 5):
        copied = s3.upload_part_copy(
            Bucket="bench", Key="1gb", UploadId=upload, PartNumber=number, CopySource="bench/big"
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket="bench", Key="1gb", UploadId=upload, MultipartUpload={"Parts": parts})
    copy = lambda: s3.copy_object(Bucket="bench", Key="copy", CopySource="bench/1gb")  # noqa: E731
    copy()
    return Row(
        "CopyObject of 1 GB, boto3", "ms", 1000 * statistics.median(timed(copy) for _ in range(9)), None, "", "< 20 ms"
    )


# --- listings


def listed(family: Family, url: str, keys: tuple[str, str]) -> Row:
    """10,000 keys in pages of 1,000, raw HTTP over one connection."""
    family.client("s3").create_bucket(Bucket="bench-list")
    requests = [signed("PUT", url, f"/bench-list/folder/key-{n:06}", keys, b"x") for n in range(LISTED)]
    drive_once(url, requests)
    host = url.partition("//")[2]

    def walk() -> None:
        connection = http.client.HTTPConnection(host)
        token, seen = "", 0
        while True:
            query = f"?continuation-token={token}&list-type=2" if token else "?list-type=2"
            raw = signed("GET", url, "/bench-list", keys, b"", query)
            headers = dict(line.split(": ", 1) for line in raw.decode().split("\r\n")[1:] if line)
            connection.request("GET", f"/bench-list{query}", headers=headers)
            answer = connection.getresponse().read()
            seen += answer.count(b"<Key>")
            found = re.search(rb"<NextContinuationToken>([^<]+)<", answer)
            if not found:
                break
            token = found[1].decode().replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")
        connection.close()
        assert seen == LISTED, seen

    walk()
    seconds = statistics.median(timed(walk) for _ in range(5))
    return Row("ListObjectsV2 of 10,000 keys, raw HTTP", "ms", 1000 * seconds, None, "", "<= 150 ms")


def drive_once(url: str, requests: list[bytes]) -> None:
    """Sends each request once."""
    host, _, port = url.partition("//")[2].partition(":")

    def one(mine: list[bytes]) -> None:
        with contextlib.ExitStack() as opened:
            answers: Any = None
            for request in mine:
                if answers is None:  # a server that closes after each answer is connected to again
                    connection = opened.enter_context(socket.create_connection((host, int(port))))
                    answers = opened.enter_context(connection.makefile("rb"))
                connection.sendall(request)
                status = answers.readline()
                assert b" 200 " in status, status
                head = b"".join(iter(answers.readline, b"\r\n")).lower()
                length = re.search(rb"content-length: *(\d+)", head)
                answers.read(int(length[1]) if length else 0)
                if b"connection: close" in head or status.startswith(b"HTTP/1.0"):
                    opened.close()
                    answers = None

    threads = [threading.Thread(target=one, args=(requests[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- the control plane beside it


SPIN = (sys.executable, "-c", "print(1, flush=True)\nwhile True: pass")


def beside(family: Family, url: str, keys: tuple[str, str], peers: bool) -> list[Row]:
    """p99 of signed DescribeModel over one connection: idle, and while other processes load S3.

    And while they load the machine alone, by what asks nothing of Penstock: a loop on each core, the same uploads to s3rver. What is
    measured there is the machine's own, on which the loads and the one who measures run, too.
    """
    family.client("sagemaker").create_model(
        ModelName="beside", ExecutionRoleArn=family.keys["role_arn"], **control.BODY
    )
    describe = [control.signed(url, keys, "DescribeModel", {"ModelName": "beside"})]
    ours = [sys.executable, "-m", "bench.s3", url, *keys]
    with contextlib.ExitStack() as opened:
        loads = {
            "4 KB GETs and PUTs": [[*ours, "small"]],
            "256 MB uploads": [[*ours, "large"]],
            "a loop on each core, no request to us": [[*SPIN]] * (os.cpu_count() or 1),
        }
        if peers:
            peer = opened.enter_context(s3rver())
            client_of(peer, ("S3RVER", "S3RVER")).create_bucket(Bucket="bench")
            theirs = [sys.executable, "-m", "bench.s3", peer, "S3RVER", "S3RVER", "large"]
            loads["256 MB uploads to s3rver, no request to us"] = [theirs]
        idle: list[float] = []
        loaded: dict[str, list[float]] = {what: [] for what in loads}
        for _ in range(TIMES):  # they take turns, so that what else the machine does meets all of them
            idle.append(drive(url, describe, SECONDS / 2, 1).percentile(0.99))
            for what, commands in loads.items():
                with loading(commands):
                    loaded[what].append(drive(url, describe, SECONDS / 2, 1).percentile(0.99))
    calm = 1000 * statistics.median(idle)
    return [
        Row(
            f"p99 of DescribeModel beside {what}", "ms", 1000 * statistics.median(seconds), calm, "idle p99",
            "the machine's own" if "no request to us" in what else "<= 3 x",
        )
        for what, seconds in loaded.items()
    ]  # fmt: skip


@contextmanager
def loading(commands: list[list[str]]) -> Iterator[None]:
    """Processes that load something, once each has said that it began."""
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        for each in running:
            assert each.stdout is not None
            each.stdout.readline()
        yield
    finally:
        for each in running:
            each.terminate()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


def keep_loading(url: str, access_key: str, secret: str, work: str) -> None:
    """Loads S3 until it is ended, and takes its file with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    keys = (access_key, secret)
    requests = [
        signed(method, url, f"/bench/k{n}", keys, SMALL if method == "PUT" else b"")
        for n in range(KEYS)
        for method in ("GET", "PUT")
    ]
    while work == "small":
        print("began", flush=True)
        drive(url, requests, 60.0)
    s3 = client_of(url, keys)
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(1 << 20) * (BIG_BYTES >> 20))
        file.flush()
        print("began", flush=True)
        while True:
            s3.upload_file(file.name, "bench", "beside")


# --- peers


@contextmanager
def s3rver() -> Iterator[str]:
    """s3rver (npm), in a folder made for it once; skipped with a word where there is no npm."""
    folder = Path.home() / ".cache" / "penstock-bench" / "s3rver"
    if not (folder / "node_modules" / "s3rver").exists():
        if shutil.which("npm") is None:
            raise SystemExit("s3rver needs node and npm")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", f"s3rver@{S3RVER}"], cwd=folder, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as data:
        script = folder / "node_modules" / "s3rver" / "bin" / "s3rver.js"
        command = ["node", str(script), "-a", "127.0.0.1", "-p", str(port), "-d", data, "--silent"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    keep_loading(*sys.argv[1:5])
