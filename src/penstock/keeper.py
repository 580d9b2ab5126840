"""The keeper: starts the family of processes, starts again what fell, and takes all of it down together.

    keeper ─┬─ engine    owns the one writer and the engine loop
            ├─ front     answers the API; n of them
            ├─ doorway   the forward proxy
            └─ runner    not a child that is kept: it outlives the rest, with the runs it watches

All but the runner are forked from here after the imports, so their memory is shared. Should the keeper itself be killed, its children
notice (their parent is gone) and end; the next `penstock up` starts them again, and finds the runs.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from penstock import Refused, server
from penstock.runs import linux, runner
from penstock.runs.base import RUNNING, STARTING
from penstock.runs.folder import RunFolder
from penstock.settings import Settings

log = logging.getLogger("penstock.keeper")

PR_SET_PDEATHSIG = 1
STOP_S = 10.0
BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
LOOKS = 10
STEADY_S = 30.0
"""A child that ran this long fell by accident, not by its nature: it is started again at once."""


@dataclass(slots=True)
class Child:
    """A process of the family: what it runs, and how often it fell lately."""

    name: str
    main: Callable[[], None]
    pid: int = 0
    started: float = 0.0
    falls: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Keeper:
    """One family on one data folder."""

    settings: Settings
    children: list[Child] = field(default_factory=list)
    stopping: bool = False
    wake_fds: tuple[int, int] = (-1, -1)
    runner_fd: int = -1
    """A descriptor of the runner's process, readable once it has ended."""

    def run(self, ready: Callable[[dict[str, object]], None] | None = None) -> None:
        """Brings the family up, calls `ready` with what clients need to know, and keeps it until SIGTERM or SIGINT.

        Raises: Refused when the folder is in use, a port is taken, or no sandbox can be made.
        """
        with lock(self.settings.data):
            server.writer_socket(self.settings).unlink(missing_ok=True)  # of an engine that was killed
            runner.launch(self.settings.data)  # nothing happens where one lives already
            parts = server.prepare(self.settings)
            api, doorway = (
                bind(self.settings.host, self.settings.port),
                bind(self.settings.host, self.settings.doorway_port),
            )
            ports = (api.getsockname()[1], doorway.getsockname()[1])
            self.children = [
                Child("engine", partial(server.run_engine, self.settings)),
                *(
                    Child(f"front-{n}", partial(server.run_front, self.settings, api, n))
                    for n in range(self.settings.fronts)
                ),
                Child("doorway", partial(server.run_doorway, self.settings, doorway, ports[0])),
            ]
            self._watch_signals()
            gc.collect()
            gc.freeze()  # shared pages stay shared
            for child in self.children:
                self._start(child)
            self._hold_runner()
            about = {
                "pid": os.getpid(),
                "url": f"http://{self.settings.host}:{ports[0]}",
                "doorway": f"{self.settings.host}:{ports[1]}",
                **parts,
            }
            try:
                self._await_health(ports[0])
                write_about(self.settings.data, about)
                if ready:
                    ready(about)
                self._keep()
            finally:
                (self.settings.data / "server.json").unlink(missing_ok=True)
                self._stop_all()

    def _watch_signals(self) -> None:
        self.wake_fds = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake_fds[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _hold_runner(self) -> None:
        """Takes hold of the runner that answers, whoever started it: a process that answers after it was taken is no other."""
        if self.runner_fd >= 0:
            os.close(self.runner_fd)
        while True:
            pid = runner.wait_ready(self.settings.data)["pid"]
            try:
                self.runner_fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if runner.wait_ready(self.settings.data)["pid"] == pid:
                return
            os.close(self.runner_fd)

    def _start(self, child: Child) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            child.pid, child.started = pid, time.monotonic()
            return
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(0)
            linux.rename_process(f"penstock-{child.name}")
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keeper passes on what a terminal sends to all
            for fd in self.wake_fds:
                os.close(fd)
            child.main()
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            log.exception("%s fell", child.name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _keep(self) -> None:
        """Waits for signals; a child that fell is started again, the sooner the longer it had stood."""
        while not self.stopping:
            if select.select([self.runner_fd], [], [], 0)[0]:
                log.warning("the runner ended; it is started again")
                runner.launch(self.settings.data)
                self._hold_runner()
            due = [child.due for child in self.children if not child.pid]
            self._sleep(max(0.0, min(due) - time.monotonic()) if due else None)
            self._reap()
            for child in self.children:
                if not child.pid and child.due <= time.monotonic() and not self.stopping:
                    self._start(child)

    def _sleep(self, seconds: float | None) -> None:
        watched = [fd for fd in (self.wake_fds[0], self.runner_fd) if fd >= 0]
        select.select(watched, [], [], seconds)
        try:
            while os.read(self.wake_fds[0], 4096):
                pass
        except BlockingIOError:
            pass

    def _reap(self) -> None:
        for child in self.children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                now = time.monotonic()
                child.falls = 0 if now - child.started > STEADY_S else child.falls + 1
                child.due = now + BACKOFF_S[min(child.falls, len(BACKOFF_S)) - 1 if child.falls else 0]
                child.pid = 0
                if not self.stopping:
                    log.warning("%s ended; it is started again", child.name)

    def _await_health(self, port: int) -> None:
        """Raises: Refused when a child cannot start."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not self.stopping:
            self._reap()
            if any(child.falls > 3 for child in self.children):
                raise Refused(f"The server cannot start: see {self.settings.data / 'server.log'}.")
            for child in self.children:
                if not child.pid and child.due <= time.monotonic():
                    self._start(child)
            if server.writer_socket(self.settings).exists() and healthy(self.settings.host, port):
                return
            self._sleep(0.01)
        if not self.stopping:
            raise Refused(f"The server does not answer: see {self.settings.data / 'server.log'}.")

    def _stop_all(self) -> None:
        """Fronts and doorway first, so that nothing new comes in; the engine last."""
        self.stopping = True
        for names in (("front", "doorway"), ("engine",)):
            group = [child for child in self.children if child.pid and child.name.startswith(names)]
            for child in group:
                os.kill(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while any(child.pid for child in group):
                self._sleep(0.05)
                self._reap()
                if time.monotonic() > deadline:
                    for child in group:
                        if child.pid:
                            os.kill(child.pid, signal.SIGKILL)


class lock:
    """Holds the data folder against a second server.

    Raises: Refused, with who holds it.
    """

    def __init__(self, data: Path):
        self.data = data
        self.fd = -1

    def __enter__(self) -> lock:
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.fd = os.open(self.data / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take()
        except BlockingIOError:
            os.close(self.fd)
            about = running(self.data)
            where = f" at {about['url']} (pid {about['pid']})" if about else ""
            raise Refused(
                f"A server{where} is using the data folder {self.data}. `penstock down` stops it; `--data` names another folder."
            ) from None
        return self

    def _take(self) -> None:
        """Again for a moment: somebody who only looks holds it for less."""
        for _ in range(LOOKS):
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises: Refused when the port is taken or the address is none of ours.
    """
    try:
        listening = socket.create_server((host, port), backlog=1024)
    except OSError as fault:
        words = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror
        raise Refused(
            f"Cannot listen on {host}:{port}: {words}. Another port: `penstock up --port N` (0: a free one)."
        ) from None
    listening.setblocking(False)
    return listening


def healthy(host: str, port: int) -> bool:
    """Whether a front answers."""
    try:
        with socket.create_connection((host, port), 1) as client:
            client.sendall(
                f"GET /_penstock/health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            return client.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def write_about(data: Path, about: dict[str, object]) -> None:
    temporary = data / ".server.json"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(about, file)
    temporary.rename(data / "server.json")


def running(data: Path) -> dict[str, object] | None:
    """What the server of this folder told about itself; None when none holds the folder."""
    try:
        about: dict[str, object] = json.loads((data / "server.json").read_text())
    except (OSError, ValueError):
        return None
    return about if held(data) else None  # where the lock is free, whoever wrote that is gone


def held(data: Path) -> bool:
    """Whether a server, or what is left of one, holds the folder. Those who look do not take each other for one."""
    try:
        fd = os.open(data / "server.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def end_runs(settings: Settings, kill: bool) -> int:
    """Ends the runner when the server is down; with `kill` the runs too, else their supervisors go on without it.

    Gives: how many runs go on.
    """
    live = [folder for folder in map(RunFolder, runs_of(settings.data)) if goes_on(folder)]
    if kill:
        for folder in live:
            folder.ask_stop("stopped")
        deadline = time.monotonic() + STOP_S
        while any(map(goes_on, live)) and time.monotonic() < deadline:
            time.sleep(0.02)
    with suppress(OSError, ValueError):
        runner.ask(settings.data, {"op": "quit"})
    return sum(map(goes_on, live))


def runs_of(data: Path) -> list[Path]:
    return (
        sorted(path for path in (data / "runs").iterdir() if (path / "spec.json").exists())
        if (data / "runs").is_dir()
        else []
    )


def goes_on(folder: RunFolder) -> bool:
    """Whether a supervisor holds the run."""
    state = folder.look()
    return state is not None and state.phase in (STARTING, RUNNING) and (folder.path / "lock").exists()
