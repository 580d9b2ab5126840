"""Clients that are slow on purpose: they hold nobody up, and are ended after a bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.conftest import Boto
from tests.fuzz.judge import Gun
from tests.fuzz.shots import Keys, Shot, Signature, wire
from tests.fuzz.stage import Stage, raised

WAIT_S = 60.0
PATIENCE_S = 2.0
CROWD = 60


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with raised(PATIENCE_S) as made:
        yield made


def connect(stage: Stage) -> socket.socket:
    host, _, port = stage.url.partition("//")[2].partition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_S)


def upload(stage: Stage, size: int) -> bytes:
    """The head of a signed upload of so many bytes."""
    keys = Keys.of(stage.keys, stage.url)
    shot = Shot("s3", "PutObject", "s3", "PUT", "/fuzz-bucket/slow", {}, b"x" * size)
    Signature(keys, "s3").sign(shot)
    return wire(shot).removesuffix(shot.body)


def call(stage: Stage) -> bytes:
    """The head of a signed call whose body never comes."""
    headers = {"x-amz-target": "SageMaker.ListModels", "content-type": "application/x-amz-json-1.1"}
    shot = Shot("sagemaker", "ListModels", "sagemaker", "POST", "/", headers, b"{" + b" " * 1000 + b"}")
    Signature(Keys.of(stage.keys, stage.url), "sagemaker").sign(shot)
    return wire(shot).removesuffix(shot.body)


def trickle(connection: socket.socket, byte: bytes = b"x", pause_s: float = 0.2) -> bytes:
    """Sends a byte now and then until the server has had enough. Gives what it said."""
    connection.settimeout(pause_s)
    said, deadline = b"", time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            try:
                connection.sendall(byte)
                piece = connection.recv(65536)
            except (ConnectionError, BrokenPipeError):
                return said
            if not piece:
                return said
            said += piece
            time.sleep(pause_s / 4)
    raise AssertionError(f"still connected after {WAIT_S:g} s; it said {said!r}")


HEADS: dict[str, tuple[Callable[[Stage], bytes], bytes]] = {
    "half a head": (lambda stage: b"GET / HTTP/1.1\r\nhost: a\r\nx-filler: ", b"408 Request Timeout"),
    "empty lines": (lambda stage: b"\r\n", b""),
    "a call's body": (call, b"RequestTimeout"),
    "an upload": (lambda stage: upload(stage, 100_000), b"RequestTimeout"),
    "a refused upload": (lambda stage: upload(stage, 100_000).replace(b"Signature=", b"Signature=0"), b"403"),
}


def test_a_client_that_sends_a_byte_now_and_then_is_ended(stage: Stage) -> None:
    def ended(name: str) -> bytes:
        with connect(stage) as connection:
            connection.sendall(HEADS[name][0](stage))
            return trickle(connection, b"\n" if name == "empty lines" else b"x")

    with ThreadPoolExecutor(len(HEADS)) as pool:
        said = dict(zip(HEADS, pool.map(ended, HEADS), strict=True))
    assert [name for name, (_, words) in HEADS.items() if words not in said[name]] == [], said


def test_a_client_that_neither_sends_nor_takes_is_ended(stage: Stage) -> None:
    boto = Boto(stage.url, stage.keys)
    size = 48 << 20
    boto("s3").put_object(Bucket="fuzz-bucket", Key="large", Body=b"x" * size)
    boto.close()
    shot = Shot("s3", "GetObject", "s3", "GET", "/fuzz-bucket/large")
    Signature(Keys.of(stage.keys, stage.url), "s3").sign(shot)
    with connect(stage) as taker, connect(stage) as silent:
        taker.sendall(wire(shot))
        assert taker.recv(100).startswith(b"HTTP/1.1 200")
        assert silent.recv(1) == b""
        time.sleep(PATIENCE_S)  # what is being tested is that time passes
        taken = 0
        with suppress(ConnectionError):
            while piece := taker.recv(1 << 20):
                taken += len(piece)
        assert taken < size // 2


def test_a_steady_upload_is_not_ended(stage: Stage) -> None:
    body = b"x" * 60_000
    with connect(stage) as connection:
        connection.sendall(upload(stage, len(body)))
        for at in range(0, len(body), 6000):  # longer than the patience in all, and never near it between two pieces
            connection.sendall(body[at : at + 6000])
            time.sleep(PATIENCE_S / 8)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_crowd_of_slow_clients_holds_nobody_up(stage: Stage) -> None:
    over, held = threading.Event(), []
    for number in range(CROWD):
        connection = connect(stage)
        connection.sendall(upload(stage, 50_000) if number % 2 else b"GET / HTTP/1.1\r\nx: ")
        held.append(connection)

    def feed() -> None:
        while not over.wait(0.1):
            for connection in held:
                with suppress(OSError):
                    connection.send(b"x")

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        gun = Gun(stage)
        shot = Shot("s3", "ListObjectsV2", "s3", "GET", "/fuzz-bucket?list-type=2", twist="plain")
        for _ in range(200):
            answer = gun.fire(shot)
            assert answer
            assert answer.status == 200
        gun.close()
    finally:
        over.set()
        feeder.join()
        for connection in held:
            connection.close()
