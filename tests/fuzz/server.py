"""A server for hostile requests: a real front process and the real engine; only the programs of jobs are played.

python -m tests.fuzz.server FOLDER [PATIENCE_S]      prints its address; ends with its standard input
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from penstock import server
from penstock.functions.base import Gone, Order, Outcome
from penstock.functions.desk import Desk
from penstock.functions.dispatcher import Dispatcher
from penstock.kernel import accounts
from penstock.kernel.engine import Engine
from penstock.runs.base import Environment
from penstock.runs.fake import FakeExecutor
from penstock.services.sagemaker.jobs import recover
from penstock.services.sagemaker.nouns import run_ref
from penstock.settings import Settings
from penstock.store.remote import WriterServer
from penstock.store.sqlite import SqliteStore, SqliteWork
from penstock.store.writer import Writer

OTHER = "210987654321"


class Images:
    """Has every image."""

    def look(self, uri: str) -> Environment | None:
        return Environment(uri, "sklearn", "1.2-1", "/env/bin/python", env={"PATH": "/env/bin"})

    def asks(self, uri: str) -> bool:
        return False

    def check(self, uri: str) -> None:
        pass

    def lacks(self, uri: str) -> str:
        return ""

    def packages(self) -> tuple[dict[str, str], list[str]]:
        return {}, []


class Echo(Dispatcher):
    """Every function gives back what it got, without a worker."""

    def __init__(self) -> None:
        self._ended: dict[str, Outcome] = {}

    def adopt(self) -> None:
        pass

    def start(self) -> None:
        pass

    async def invoke(self, order: Order) -> Outcome:
        return Outcome(payload=order.payload)

    def drop(self, gone: Gone) -> None:
        pass

    def begin(self, order: Order) -> None:
        self._ended[order.key] = Outcome(payload=order.payload)

    def look(self, key: str) -> Outcome | bool:
        return self._ended.get(key, False)

    def forget(self, key: str) -> None:
        self._ended.pop(key, None)


def engine(settings: Settings) -> None:
    """The engine's half: the writer, the steps, and programs that end at once."""
    writer = Writer(server.database(settings))
    store = SqliteStore(server.database(settings), writer)
    app = server.app_of(settings, store)
    app.images, app.runs = Images(), FakeExecutor()
    app.functions = desk = Desk(Echo(), settings.data / "sockets")
    loop = Engine(app.steps(), store, SqliteWork(store, writer), app.clock, app.step_call)
    app.nudge = loop.nudge

    def ended(run: str) -> None:
        if (ref := run_ref(run)) is not None:
            loop.nudge(ref)

    app.runs.listen(ended)
    recover(app)
    desk.start()
    loop.start()
    serving = WriterServer(writer, server.writer_socket(settings))
    serving.start()
    sys.stdin.read()
    serving.close()
    loop.stop()
    desk.close()
    store.close()


def another_account(settings: Settings) -> dict[str, str]:
    writer = Writer(server.database(settings))
    store = SqliteStore(server.database(settings), writer)
    change, keys = accounts.add(server.app_of(settings, store), OTHER)
    store.commit(change)
    store.close()
    return keys


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ["PENSTOCK_PATIENCE_S"] = sys.argv[2] if len(sys.argv) > 2 else "60"
    settings = Settings.load(data=folder, grace_s=1.0)
    told = server.prepare(settings)
    other = another_account(settings)
    logging.basicConfig(filename=folder / "errors.log", level=logging.ERROR)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    keys = json.loads((settings.data / "credentials.json").read_text())
    front = os.fork()
    if not front:
        status = 1
        try:
            server.run_front(settings, listening, 0)
            status = 0
        finally:
            os._exit(status)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    threading.Thread(target=os.waitpid, args=(front, 0), daemon=True).start()
    print(json.dumps({"url": url, "front": front, "keys": keys, "other": other, **told}), flush=True)
    engine(settings)
    os.kill(front, signal.SIGTERM)


if __name__ == "__main__":
    main()
