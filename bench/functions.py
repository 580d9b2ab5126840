"""A function's first call and those that follow, beside python in bubblewrap and an echo over a Unix socket."""

from __future__ import annotations

import io
import os
import socket
import statistics
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.steps import bare
from bench.world import Family, Row

IMAGE = "public.ecr.aws/lambda/python:3.11"
COLD, WARM, AT_ONCE, CALLS = 12, 400, 4, 800
CODE = "def handler(event, context):\n    return event\n"
PAYLOAD = b'{"key": "value"}'


def measure(family: Family) -> list[Row]:
    python = family.environment_of(IMAGE) / "bin" / "python"
    client = family.client("lambda")
    names = [create(client, family.keys["role_arn"], f"f{number}") for number in range(COLD + 1)]
    first, start = zip(
        *((timed(lambda name=name: call(client, name)), bare(python, 1)) for name in names[1:]), strict=True
    )
    call(client, names[0])
    with Echo() as echo:
        warm, limit = zip(
            *((timed(lambda: call(client, names[0])), timed(echo.ask)) for _ in range(WARM)), strict=True
        )
    rate = at_once(family, names[0])
    return [
        row("the first call of a function (cold start)", first, start, "python in bubblewrap", "< 300 ms"),
        row("a warm call", warm, limit, "an echo over a Unix socket", "< 5 ms"),
        Row(f"warm calls, {AT_ONCE} at a time", "/s", rate, higher_is_better=True),
    ]


def row(what: str, ours: tuple[float, ...], limit: tuple[float, ...], name: str, budget: str) -> Row:
    notes = {"p90 ms": statistics.quantiles(ours, n=10)[8] * 1e3, "most ms": max(ours) * 1e3}
    return Row(what, "ms", statistics.median(ours) * 1e3, statistics.median(limit) * 1e3, name, budget, notes=notes)


def create(client: Any, role: str, name: str) -> str:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        packed.writestr("app.py", CODE)
    client.create_function(
        FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=role, Code={"ZipFile": held.getvalue()}
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    return name


def call(client: Any, name: str) -> None:
    assert client.invoke(FunctionName=name, Payload=PAYLOAD)["Payload"].read() == PAYLOAD


def timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def at_once(family: Family, name: str) -> float:
    clients = [family.client("lambda") for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda client: call(client, name), clients))  # as many workers

        def many(client: Any) -> None:
            for _ in range(CALLS // AT_ONCE):
                call(client, name)

        began = time.perf_counter()
        list(pool.map(many, clients))
        return CALLS / (time.perf_counter() - began)


class Echo:
    """A thread that sends back what it gets."""

    def __enter__(self) -> Echo:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-bench-")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(os.path.join(self._folder.name, "echo"))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        self._asking = socket.socket(socket.AF_UNIX)
        self._asking.connect(os.path.join(self._folder.name, "echo"))
        return self

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        while data := connection.recv(4096):
            connection.sendall(data)
        connection.close()

    def ask(self) -> None:
        self._asking.sendall(PAYLOAD)
        self._asking.recv(4096)

    def __exit__(self, *_: object) -> None:
        self._asking.close()
        self._listening.close()
        self._folder.cleanup()
