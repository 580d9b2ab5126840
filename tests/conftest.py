"""The worlds that tests run in.

world      an app in this process, without HTTP: operations by name, engine steps by hand
house      an API server in this process (front, writer, engine loop; runs are fakes), shared by the session
client     boto3 clients of an account of the test's own, at the house
family     the real processes, with real sandboxes, shared by the session
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import uvloop
from botocore.config import Config

from penstock import server
from penstock.front import Front
from penstock.kernel import accounts, ids
from penstock.kernel.app import App
from penstock.kernel.call import Call, Caller, Long
from penstock.kernel.engine import Engine
from penstock.runs import sandbox
from penstock.settings import Settings
from penstock.store.records import Change, Document, Stale, Taken
from penstock.store.sqlite import SqliteStore, SqliteWork
from penstock.store.writer import Writer
from tests.clients import IMAGES

ROOT = Path(__file__).parent.parent


@dataclass
class World:
    """An app without HTTP, for one account."""

    app: App
    account: str = "123456789012"
    region: str = "us-east-1"
    writer: Writer | None = None

    def engine(self, *kinds: str) -> Engine:
        """An engine for documents of these kinds, as a new process has it: to be drained."""
        assert self.writer is not None
        app = self.app
        steps = {kind: step for kind, step in app.steps().items() if kind in kinds}
        return Engine(steps, app.store, SqliteWork(app.store, self.writer), app.clock, app.step_call)  # type: ignore[arg-type]

    def call(self, service: str = "sagemaker", operation: str = "", **params: Any) -> Call:
        caller = Caller(
            account=self.account, arn=f"arn:aws:sts::{self.account}:assumed-role/SageMakerExecutionRole/test"
        )
        return Call(
            app=self.app,
            caller=caller,
            service=service,
            operation=operation,
            region=self.region,
            params=params,
            request_id=ids.request_id(),
            now=self.app.clock.now(),
            change=Change(),
        )

    def __call__(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """Performs an operation and commits what it wrote, again when somebody wrote in between."""
        for _ in range(20):
            call = self.call()
            try:
                result = call.other(service, operation, **params)
                if call.change:
                    self.app.store.commit(call.change)
                return result
            except (Stale, Taken):
                continue
        raise AssertionError("somebody wrote in between, twenty times")

    def step(self, document: Document) -> float | None:
        """One engine step of the document as stored, committed; one that is long, as the engine would: patiently."""
        try:
            return self._step(document, patient=False)
        except Long:
            return self._step(document, patient=True)

    def _step(self, document: Document, patient: bool) -> float | None:
        fresh = self.app.store.get(document.ref)
        assert fresh is not None
        call = self.app.step_call(fresh, self.app.clock.now())
        call.patient = patient
        again = self.app.steps()[fresh.kind](call, fresh)
        if call.change:
            self.app.store.commit(call.change)
        for act in call.afterwards:
            act()
        return again


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = Settings(data=tmp_path / "data")
    server.prepare(settings)
    writer = Writer(server.database(settings))
    store = SqliteStore(server.database(settings), writer)
    yield World(server.app_of(settings, store), writer=writer)
    store.close()


@dataclass
class House:
    """A server of this process."""

    app: App
    url: str
    front: Front

    def account(self) -> dict[str, str]:
        change, keys = accounts.add(self.app)
        self.app.store.commit(change)
        return keys


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    settings = Settings(data=tmp_path_factory.mktemp("house"))
    server.prepare(settings)
    writer = Writer(server.database(settings))
    store = SqliteStore(server.database(settings), writer)
    app = server.app_of(settings, store)
    engine = Engine({}, store, SqliteWork(store, writer), app.clock, app.step_call)
    engine.start()
    front = Front(app)
    with serving(front) as url:
        yield House(app, url, front)
    engine.stop()
    store.close()


@contextlib.contextmanager
def serving(front: Front) -> Iterator[str]:
    """Serves a front from a thread of this process; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    loop, ready = uvloop.new_event_loop(), threading.Event()
    tasks: list[asyncio.Task[None]] = []

    def serve() -> None:
        asyncio.set_event_loop(loop)
        tasks.append(loop.create_task(server.serve_front(front, listening, None, ready.set)))
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(tasks[0])
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(15)


class Boto:
    """boto3 clients of one account: `client("sagemaker")`."""

    def __init__(self, url: str, keys: dict[str, str], region: str = "us-east-1"):
        self.url, self.keys, self.region = url, keys, region
        self.session = boto3.Session(keys["access_key_id"], keys["secret_access_key"], region_name=region)
        self._made: dict[str, Any] = {}

    @property
    def account(self) -> str:
        return self.keys["account"]

    @property
    def role(self) -> str:
        return self.keys["role_arn"]

    def __call__(self, service: str, **config: Any) -> Any:
        key = f"{service} {sorted(config.items())}"
        if key not in self._made:
            self._made[key] = self.session.client(
                service, endpoint_url=self.url, config=Config(retries={"max_attempts": 0}, proxies={}, **config)
            )
        return self._made[key]

    def close(self) -> None:
        for client in self._made.values():
            client.close()


@pytest.fixture
def client(house: House) -> Iterator[Boto]:
    made = Boto(house.url, house.account())
    yield made
    made.close()


@dataclass
class Family:
    """The real processes."""

    data: Path
    about: dict[str, Any]
    keys: dict[str, str]

    def boto(self) -> Boto:
        return Boto(str(self.about["url"]), self.keys)

    @property
    def command(self) -> str:
        """The command line, as a shell takes it."""
        return f"{sys.executable} -m penstock"

    def penstock(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs the command line on this family's folder."""
        environment = os.environ | {"PENSTOCK_DATA": str(self.data)}
        return subprocess.run(
            [sys.executable, "-m", "penstock", *arguments], capture_output=True, text=True, env=environment, **options
        )


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Real processes on a folder of their own; skipped, with the reason, where no sandbox can be made."""
    probe = sandbox.probe()
    if not probe.ok:
        pytest.skip(probe.sentence)
    data = tmp_path_factory.mktemp("family")
    IMAGES.mkdir(parents=True, exist_ok=True)
    (data / "images").symlink_to(IMAGES)  # environments of images, kept between runs of the suite
    made = Family(data, {}, {})
    up = made.penstock("up", "--detach", "--port", "0", "--doorway-port", "0", "--json")
    assert up.returncode == 0, up.stderr
    made.about = json.loads(up.stdout)
    made.keys = json.loads((data / "credentials.json").read_text())
    yield made
    down = made.penstock("down", "--jobs")
    assert down.returncode == 0, down.stderr


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
