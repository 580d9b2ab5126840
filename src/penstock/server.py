"""The composition root: settings become the parts of each process of the family.

    run_engine     the one writer, the engine loop, the executor, the images
    run_front      the API, over read-only connections and the way to the writer
    run_porter     takes large bodies off their sockets
    run_doorway    the forward proxy

The only place, beside the command line, where drivers meet.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop
from uvicorn import Config
from uvicorn.server import ServerState

from penstock import Refused, authority, guests, hosts, porter, presence
from penstock.blobs.files import FileBlobs
from penstock.connections import Connection, Watch
from penstock.doorway import Doorway
from penstock.front import Front
from penstock.functions.desk import Desk
from penstock.functions.dispatcher import Dispatcher
from penstock.functions.remote import RemoteFunctions
from penstock.kernel import accounts, upkeep
from penstock.kernel.app import App
from penstock.kernel.clock import SystemClock
from penstock.kernel.engine import Engine
from penstock.kernel.logs import Logs
from penstock.runs import handout, sandbox
from penstock.runs.base import Images
from penstock.runs.capacity import Capacity
from penstock.runs.images.indexes import read_indexes
from penstock.runs.images.registry import LocalImages
from penstock.runs.layers import make_layer
from penstock.runs.local import LocalExecutor
from penstock.runs.strays import sweep_at_start
from penstock.search.base import LateSearch
from penstock.services import SERVICES
from penstock.services.lambda_.api import CONCURRENCY
from penstock.services.lambda_.invoking.engine import recover as recover_invocations
from penstock.services.lambda_.invoking.engine import ref_of
from penstock.services.lambda_.workers import Workers
from penstock.services.sagemaker import contract
from penstock.services.sagemaker.jobs import recover as recover_jobs
from penstock.services.sagemaker.nouns import run_ref
from penstock.settings import Settings
from penstock.store.listener import WriterServer
from penstock.store.remote import RemoteWriter
from penstock.store.sqlite import SqliteStore, SqliteWork
from penstock.store.writer import Writer
from penstock.wire import models

log = logging.getLogger("penstock.server")
FRONT_NICE = -10
"""Before what it serves, where the system lets it: its turns are short, and somebody waits for each."""


# --- places in the data folder
def database(settings: Settings) -> Path:
    return settings.data / "penstock.db"


def writer_socket(settings: Settings) -> Path:
    return settings.data / "sockets" / "writer.sock"


def front_socket(settings: Settings) -> Path:
    return settings.data / "sockets" / "front.sock"


def porter_socket(settings: Settings) -> Path:
    return settings.data / "sockets" / "porter.sock"


def invoke_socket(settings: Settings) -> Path:
    return settings.data / "sockets" / "invoke.sock"


def doorway_socket(settings: Settings) -> Path:
    return settings.data / "sockets" / "doorway.sock"


# --- parts
def app_of(settings: Settings, store: Any) -> App:
    """The parts that every process has."""
    return App(
        settings=settings,
        store=store,
        blobs=FileBlobs(settings.data / "blobs"),
        clock=SystemClock(),
        services=SERVICES,
        logs=Logs(settings.data / "logs"),
        search=LateSearch("penstock.search.bayesian"),
    )


def images_of(settings: Settings) -> LocalImages:
    return LocalImages(settings.data / "images", fetch_python=settings.python_downloads)


def images_with_containers(settings: Settings) -> tuple[Images, str]:
    """The images of a server's processes, and the address of the container engine that some may need, if one is chosen.

    An engine that is away stops nothing: its images are refused until it is back. Raises: Refused where it can never be used.
    """
    images = images_of(settings)
    if not settings.docker:
        return images, ""
    try:
        from penstock.runs.docker import daemon, store
    except ImportError:
        raise Refused("The client of container engines is not installed: pip install 'penstock[docker]'.") from None
    address = daemon.find_address(settings.docker, os.environ)
    return store.DockerImages(images, address), address


def try_containers(settings: Settings) -> str:
    """A sentence on the container engine that would be used. Raises: Refused where there is none that answers."""
    chosen = dataclasses.replace(settings, docker=settings.docker or "auto")
    try:
        _, address = images_with_containers(chosen)
        from penstock.runs.docker import daemon

        found = daemon.reach(address)
    except Refused as why:
        if settings.docker:
            raise
        return f"not chosen (PENSTOCK_DOCKER), and could not be used: {why}"
    if not settings.docker:
        return f"not chosen; PENSTOCK_DOCKER=auto would have {found.name} {found.version} run images that Penstock does not know."
    return f"{found.name} {found.version} at {address} runs images that Penstock does not know."


def lay_common(settings: Settings) -> Path:
    """The layer of what every job finds: the programs that run inside, and the certificates."""
    content = {contract.CONTAINERS: Path(__file__).parent / "containers"}
    bundle = settings.data / "ca" / "bundle.pem"
    return make_layer(settings.data / "runs", content | ({contract.CERTIFICATES: bundle} if bundle.exists() else {}))


def capacity_of(settings: Settings) -> Capacity:
    """What jobs may use together: the settings, else the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(
        cpus=settings.cpus or float(os.cpu_count() or 1),
        memory_bytes=settings.memory_bytes or max(1 << 30, memory - (1 << 30)),
    )


# --- before the family
def prepare(settings: Settings) -> dict[str, object]:
    """Makes what is missing in the data folder: folders, schema, authority, the first account and its keys.

    Gives: what clients may know of it.
    """
    images_with_containers(settings)
    for folder in ("sockets", "runs", "logs", "blobs", "images", "ca"):
        (settings.data / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    authority.establish(settings.data / "ca")
    database(settings).touch(mode=0o600)  # keys lie in it; its logs take the same mode
    database(settings).chmod(0o600)
    writer = Writer(database(settings))  # migrates
    store = SqliteStore(database(settings), writer)
    try:
        keys_file = settings.data / "credentials.json"
        if not keys_file.exists():
            change, keys = accounts.establish(app_of(settings, store), settings.account)
            store.commit(change)
            write_secret(
                keys_file, json.dumps(keys | {"region": settings.region, "proxy_token": secrets.token_urlsafe(24)})
            )
        found = json.loads(keys_file.read_text())
    finally:
        store.close()
    return {"account": found["account"], "region": settings.region}


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


@contextmanager
def at_store(settings: Settings):  # type: ignore[no-untyped-def]
    """The store of a running server, for the command line."""
    writer = RemoteWriter(writer_socket(settings))
    store = SqliteStore(database(settings), writer)
    try:
        yield app_of(settings, store)
    finally:
        store.close()


def add_accounts(settings: Settings, count: int, account: str | None = None) -> list[dict[str, str]]:
    with at_store(settings) as app:
        made = []
        for _ in range(count):
            change, keys = accounts.add(app, account)
            app.store.commit(change)
            made.append(keys)
        return made


def list_accounts(settings: Settings) -> list[str]:
    with at_store(settings) as app:
        return accounts.names(app)


def coverage_of(service: str) -> dict[str, bool]:
    """Every operation of the service's model, and whether it is served."""
    app = App(settings=Settings(), store=None, blobs=None, clock=SystemClock(), services=SERVICES)  # type: ignore[arg-type]
    return {
        name: app.function(operation) is not None
        for name, operation in sorted(models.service(service).operations.items())
    }


# --- processes
def hear_end() -> Callable[[], object]:
    """Hears of SIGTERM from now on; gives what waits for it.

    By a pipe: the kernel may give the signal to any thread, and handlers run in the main one alone, which would sleep on.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return lambda: select.select([reading], [], [])


def run_engine(settings: Settings) -> None:
    """The engine process, until SIGTERM: what has begun is finished, runs go on without it."""
    told = hear_end()
    sys.setswitchinterval(
        0.0005
    )  # its threads work in short turns between system calls; none may wait 5 ms for its own
    writer = Writer(database(settings))
    store = SqliteStore(database(settings), writer)
    app = app_of(settings, store)
    app.images, docker = images_with_containers(settings)
    app.layers = [str(lay_common(settings))]
    setup = sandbox.setup(str(settings.data / "sockets"), docker=docker)
    app.runs = LocalExecutor(settings.data, capacity_of(settings), setup)
    sweep_at_start(docker, settings.data / "runs")
    engine = Engine(app.steps(), store, SqliteWork(store, writer), app.clock, app.step_call, give_up=app.give_up())
    app.nudge = engine.nudge

    def ended(run: str) -> None:
        if (ref := run_ref(run)) is not None:
            engine.nudge(ref)

    app.runs.listen(ended)
    app.functions = desk = functions_of(app, lambda key: engine.nudge(ref_of(key)))
    recover_jobs(app)
    recover_invocations(app)
    upkeep.begin(store, app.clock.now())
    desk.start()
    engine.start()
    serving = WriterServer(writer, writer_socket(settings))
    serving.start()
    try:
        told()
    finally:
        serving.close()
        engine.stop()
        desk.close()
        app.runs.close()
        store.close()


def functions_of(app: App, ended: Callable[[str], Any]) -> Desk:
    """The functions' workers: they are runs, and their end is heard of as that of runs."""
    workers, settings = Workers(app), app.settings
    workers.sweep(app.runs.names())
    dispatcher = Dispatcher(
        app.runs, workers.make, workers.forget, settings.data / "functions", settings.lambda_idle_s, CONCURRENCY, ended
    )
    app.runs.listen(dispatcher.heard)
    return Desk(dispatcher, settings.data / "sockets")


def run_front(settings: Settings, listening: socket.socket, number: int) -> None:
    """A front process, until SIGTERM: requests that have begun are answered."""
    with suppress(PermissionError):  # root's may
        os.setpriority(os.PRIO_PROCESS, 0, FRONT_NICE)
    guests.raise_open_files()

    async def serve() -> None:
        writer = RemoteWriter(writer_socket(settings))
        writer.attach()
        store = SqliteStore(database(settings), writer)
        app = app_of(settings, store)
        app.images, _ = images_with_containers(settings)  # to refuse an unknown image at once; the engine builds them
        app.functions = RemoteFunctions(invoke_socket(settings))
        try:
            await serve_front(
                Front(app, porter.Porter(porter_socket(settings))),
                listening,
                front_socket(settings) if number == 0 else None,
            )
        finally:
            store.close()

    uvloop.run(serve())


async def serve_front(
    front: Front, listening: socket.socket, handouts: Path | None, started: Callable[[], None] | None = None
) -> None:
    """Serves the API on the socket, and on those that supervisors hand over, until cancelled or SIGTERM."""
    loop = asyncio.get_running_loop()
    config = Config(
        front,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # nobody stands before us, and what a header says of a client is not asked
        timeout_keep_alive=75,
    )
    config.load()
    state, patience_s = ServerState(), front.app.settings.patience_s
    watch = Watch(state, loop, patience_s)

    async def take(info: dict[str, Any], guest: socket.socket) -> guests.Served | None:
        own = copy.copy(config)
        own.loaded_app = front.of_run(str(info["run"]))
        held: set[asyncio.Protocol] = set()

        def factory() -> asyncio.Protocol:
            return guests.Guest(held, own, state, loop, patience_s)

        if info.get("kind") == "connection":
            await loop.connect_accepted_socket(factory, guest)
            return None
        return await loop.create_server(factory, sock=guest)

    def outside() -> asyncio.Protocol:
        return Connection(config, state, loop, patience_s)

    server = await loop.create_server(outside, sock=listening, backlog=1024)
    background = [loop.create_task(guests.serve(handouts, take))] if handouts else []
    try:
        if started:
            started()
        await until_told()
    finally:
        server.close()
        front.waits.end()
        for task in background:
            task.cancel()
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            await asyncio.wait_for(_drained(state), 8)
        watch.close()


async def _drained(state: ServerState) -> None:
    while state.connections or state.tasks:
        await asyncio.sleep(0.02)


async def until_told() -> None:
    """Until SIGTERM (or the task is cancelled)."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


def run_porter(settings: Settings) -> None:
    """The porter process, until SIGTERM: bodies that are under way are carried on."""
    guests.raise_open_files()
    os.nice(porter.NICE)
    told = hear_end()
    with handout.listen(porter_socket(settings)) as listening:
        carrier = porter.Carrier(FileBlobs(settings.data / "blobs"))
        serving = threading.Thread(target=carrier.serve, args=(listening,), name="porter")
        serving.start()
        told()
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()


def run_doorway(settings: Settings, listening: socket.socket, api_port: int) -> None:
    """The doorway process, until SIGTERM."""
    guests.raise_open_files()
    token = json.loads((settings.data / "credentials.json").read_text())["proxy_token"]
    registries = read_indexes(os.environ).places()
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    front = presence.EVERY_ADDRESS.get(settings.host, settings.host), api_port
    doorway = Doorway(settings, token, front, settings.upstream_proxy or hosts.upstream_of(), registries, direct)

    async def serve() -> None:
        serving = asyncio.ensure_future(doorway.run(listening, doorway_socket(settings)))
        await asyncio.wait([serving, asyncio.ensure_future(until_told())], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()

    uvloop.run(serve())
