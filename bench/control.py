"""The control plane: signed DescribeModel and CreateModel over HTTP at 8 connections; moto's server beside it on request."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from bench.world import Family, Row, median_of

CONNECTIONS = 8
SECONDS = 3.0
BODY = {
    "PrimaryContainer": {
        "Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1", "ModelDataUrl": "s3://bench/model.tar.gz",
        "Environment": {"SAGEMAKER_REGION": "us-east-1", "SAGEMAKER_CONTAINER_LOG_LEVEL": "20"},
    },
}  # fmt: skip


def measure(family: Family, peers: bool) -> list[Row]:
    url, keys = str(family.about["url"]), (family.keys["access_key_id"], family.keys["secret_access_key"])
    role = family.keys["role_arn"]
    family.client("sagemaker").create_model(ModelName="bench", ExecutionRoleArn=role, **BODY)
    describe = median_of(
        3, lambda: load(url, lambda _: signed(url, keys, "DescribeModel", {"ModelName": "bench"}), SECONDS, True)
    )
    create = median_of(
        1,
        lambda: load(
            url,
            lambda n: signed(url, keys, "CreateModel", {"ModelName": f"bench-{n}", "ExecutionRoleArn": role, **BODY}),
            4000,
            False,
        ),
    )
    their = {"describe": None, "create": None}
    if peers:
        with moto() as moto_url:
            client = boto3.client(
                "sagemaker",
                endpoint_url=moto_url,
                region_name="us-east-1",
                aws_access_key_id="a",
                aws_secret_access_key="b",
                config=Config(proxies={}),
            )
            client.create_model(ModelName="bench", ExecutionRoleArn=role, **BODY)
            their["describe"] = median_of(
                3,
                lambda: load(
                    moto_url,
                    lambda _: signed(moto_url, ("a", "b"), "DescribeModel", {"ModelName": "bench"}),
                    SECONDS,
                    True,
                ),
            )
            their["create"] = median_of(
                1,
                lambda: load(
                    moto_url,
                    lambda n: signed(
                        moto_url,
                        ("a", "b"),
                        "CreateModel",
                        {"ModelName": f"bench-{n}", "ExecutionRoleArn": role, **BODY},
                    ),
                    800,
                    False,
                ),
            )
    return [
        Row(
            "signed DescribeModel, 8 connections",
            "per s",
            describe,
            their["describe"],
            "moto's server",
            ">= 12 x",
            True,
        ),
        Row(
            "signed CreateModel, durable, 8 connections",
            "per s",
            create,
            their["create"],
            "moto's server (in memory)",
            "stated",
            True,
        ),
    ]


def signed(url: str, keys: tuple[str, str], operation: str, params: dict[str, Any]) -> bytes:
    """The bytes of a signed request."""
    body = json.dumps(params)
    host = url.partition("//")[2]
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"SageMaker.{operation}", "Host": host}
    request = AWSRequest("POST", f"{url}/", data=body, headers=headers)
    SigV4Auth(Credentials(*keys), "sagemaker", "us-east-1").add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    return ("\r\n".join(["POST / HTTP/1.1", *lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body).encode()


def load(url: str, make: Callable[[int], bytes], amount: float, for_seconds: bool) -> float:
    """Requests a second over all connections: for some seconds with one request again and again, or so many different ones."""
    host, _, port = url.partition("//")[2].partition(":")
    requests = [make(0)] if for_seconds else [make(n) for n in range(int(amount))]  # signed before the clock starts

    async def one(which: int, until: float) -> int:
        mine = requests if for_seconds else requests[which::CONNECTIONS]
        reader = writer = None
        done = 0
        while time.perf_counter() < until and (for_seconds or done < len(mine)):
            if writer is None:  # a server that closes after each answer pays for it
                reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(mine[0 if for_seconds else done])
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
            assert b" 200 " in head.partition(b"\r\n")[0], head
            length = int(next(x for x in head.split(b"\r\n") if x.startswith(b"content-length")).partition(b":")[2])
            await reader.readexactly(length)
            done += 1
            if b"connection: close" in head or head.startswith(b"http/1.0"):
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        return done

    async def all_of_them() -> float:
        began = time.perf_counter()
        until = began + (amount if for_seconds else 120)
        done = await asyncio.gather(*(one(n, until) for n in range(CONNECTIONS)))
        return sum(done) / (time.perf_counter() - began)

    return uvloop.run(all_of_them())


@contextmanager
def moto() -> Any:
    """moto's server, in an environment made for it once."""
    folder = Path.home() / ".cache" / "penstock-bench" / "moto"
    if not (folder / "bin" / "moto_server").exists():
        subprocess.run(["uv", "venv", "--quiet", "--clear", str(folder)], check=True)
        subprocess.run(
            [
                "uv",
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(folder / "bin" / "python"),
                "moto[server,sagemaker,s3]",
            ],
            check=True,
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [folder / "bin" / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=out,
            stderr=out,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
        )
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
