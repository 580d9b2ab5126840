"""The host of functions as a process of this Python, and a Runtime API of the test's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

HOST = Path(penstock.__file__).parent / "containers" / "penstock_lambda"
COUNTS = """
import os, signal, threading, time
count, heard = 0, []
signal.signal(signal.SIGUSR1, lambda *_: heard.append("usr1"))

def forever():
    global count
    while True:
        count += 1
        time.sleep(0.001)

def handler(event, context):
    if event == "begin":
        threading.Thread(target=forever, daemon=True).start()
    if event == "wait":
        before = count
        while count < before + 10:
            time.sleep(0.001)
    return [count, heard, os.getpid()]
"""


class Api:
    """A Runtime API with one worker."""

    def __init__(self, folder: Path):
        (folder / "task").mkdir()
        (folder / "task" / "counts.py").write_text(COUNTS)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(60)
        given = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.listening.getsockname()[1]}", "_HANDLER": "counts.handler",
            "LAMBDA_TASK_ROOT": str(folder / "task"), "PATH": os.environ["PATH"],
        }  # fmt: skip
        self.host = subprocess.Popen([sys.executable, str(HOST)], env=given, stdout=subprocess.DEVNULL)
        self.accept()

    def accept(self) -> None:
        self.connection, _ = self.listening.accept()
        self.connection.settimeout(60)
        self.file = self.connection.makefile("rb")
        self.request()  # GET /invocation/next

    def request(self) -> tuple[str, bytes]:
        first, length = self.file.readline().decode(), 0
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        return first, self.file.read(length)

    def reply(self, body: bytes, head: str = "") -> None:
        self.connection.sendall(f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def invoke(self, event: Any) -> Any:
        self.reply(json.dumps(event).encode(), "Lambda-Runtime-Aws-Request-Id: r\r\nLambda-Runtime-Deadline-Ms: 1\r\n")
        first, body = self.request()
        assert first.startswith("POST /2018-06-01/runtime/invocation/r/response")
        self.reply(b"{}")
        self.request()
        return json.loads(body)

    def close(self) -> None:
        self.host.kill()
        self.host.wait(60)
        self.file.close()
        self.connection.close()
        self.listening.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.close()


def test_a_functions_threads_stand_still_between_invocations_and_go_on_in_the_next(api: Api) -> None:
    api.invoke("begin")
    before = api.invoke("wait")[0]
    time.sleep(0.5)  # a thread that did not stand still would count some hundreds in it
    after = api.invoke("look")[0]
    assert after - before < 50
    assert api.invoke("wait")[0] >= after + 10


def test_a_function_that_stands_still_hears_signals_and_finds_another_server(api: Api) -> None:
    pid = api.invoke("begin")[2]
    os.kill(pid, 10)
    assert api.invoke("look")[1] == ["usr1"]
    api.file.close()
    api.connection.close()
    api.accept()
    assert api.invoke("look")[2] == pid
