"""The keeper: starts the family of processes, starts again what fell, and takes all of it down together.

    keeper ─┬─ engine    owns the one writer and the engine loop
            ├─ front     answers the API; n of them
            ├─ porter    takes large bodies off their sockets into the blobs
            ├─ doorway   the forward proxy
            └─ runner    not a child that is kept: it outlives the rest, with the runs it watches

All but the runner are forked from here after the imports, so their memory is shared. Should the keeper itself be killed, its children
notice (their parent is gone) and end; the next `penstock up` starts them again, and finds the runs.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from penstock import Refused, presence, server
from penstock.runs import linux, runner
from penstock.settings import Settings

log = logging.getLogger("penstock.keeper")

PR_SET_PDEATHSIG = 1
START_S = 30.0
STOP_S = 10.0
RUNNER_S = 10.0
TOLD = (signal.SIGTERM, signal.SIGINT)
"""What tells the family to end."""
LOOK_S = 0.01
FOLDER_S = 2.0
"""How often it looks whether the data folder is still there."""
BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
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
    up: str = "penstock up"
    """The command that starts the server, as its person can type it."""
    children: list[Child] = field(default_factory=list)
    stopping: bool = False
    address: str = ""
    wake_fds: tuple[int, int] = (-1, -1)
    launched: subprocess.Popen[bytes] | None = None
    """The runner that was launched last; it ended at once if the folder had one."""
    runner_fd: int = -1
    """A descriptor of the process of the runner that answers, readable once it has ended; -1 without one."""
    runner_due: float = 0.0

    def run(self, ready: Callable[[dict[str, object]], None] | None = None) -> None:
        """Brings the family up, calls `ready` with what clients need to know, and keeps it until SIGTERM or SIGINT.

        Raises: Refused when the folder is in use or goes away, a port is taken, or no sandbox can be made.
        """
        settings = self.settings
        with presence.Lock(settings.data) as lock:
            api = bind(settings.host, settings.port, self.up)
            doorway = bind(settings.host, settings.doorway_port, self.up)
            server.writer_socket(settings).unlink(missing_ok=True)  # of an engine that was killed
            self.launched = runner.launch(settings.data)  # it ends at once where one lives already
            parts = server.prepare(settings)
            ports = api.getsockname()[1], doorway.getsockname()[1]
            self.address = presence.address_of(settings.host, ports[0])
            self.children = [
                Child("engine", partial(server.run_engine, settings)),
                *(Child(f"front-{n}", partial(server.run_front, settings, api, n)) for n in range(settings.fronts)),
                Child("porter", partial(server.run_porter, settings)),
                Child("doorway", partial(server.run_doorway, settings, doorway, ports[0])),
            ]
            self._watch_signals()
            gc.collect()
            gc.freeze()  # shared pages stay shared
            about = {
                "pid": os.getpid(),
                "url": f"http://{self.address}",
                "doorway": presence.address_of(settings.host, ports[1]),
                **parts,
            }
            try:
                for child in self.children:
                    self._start(child)
                self._hold_runner()
                if self._await_health():
                    presence.tell(settings.data, about)
                    if ready:
                        ready(about)
                    self._keep(lock)
            finally:
                self._end(lock.lost())

    def _watch_signals(self) -> None:
        self.wake_fds = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wake_fds[1], warn_on_full_buffer=False)
        for number in TOLD:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _end(self, lost: bool) -> None:
        """Ends the family. Where its folder is lost, nothing is done by a path: another family may be there by now."""
        data = self.settings.data
        if not lost:
            (data / presence.ABOUT).unlink(missing_ok=True)
        elif self.runner_fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.runner_fd, signal.SIGTERM)
        if lost and self.launched and self.launched.poll() is None:
            self.launched.terminate()
        self._stop_all()
        if not lost:
            with suppress(OSError, ValueError):
                runner.ask(data, {"op": "quit"})  # runs go on without it

    # --- the runner
    def _hold_runner(self) -> None:
        """Takes hold of the runner that answers, whoever started it: a process that answers after it was taken is no other.

        Raises: Refused when none does.
        """
        while True:
            pid = self._ask_runner()
            try:
                self.runner_fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            if self._ask_runner() == pid:
                return
            self._let_runner_go()

    def _ask_runner(self) -> int:
        """The pid of the runner. Raises: Refused with its last words when it cannot start."""
        said = self.settings.data / "logs" / "runner.log"
        deadline = time.monotonic() + RUNNER_S
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError):
                return int(runner.ask(self.settings.data, {"op": "ping"})["pid"])
            if self.launched and self.launched.poll():
                words = said.read_text(errors="replace").strip().rpartition("\n")[2]
                raise Refused(f"No sandbox can be made here: {words}. `penstock doctor` says what to do.")
            time.sleep(LOOK_S)
        raise Refused(f"The runner does not answer: see {said}.")

    def _renew_runner(self) -> None:
        """Starts a runner in place of one that ended; if that fails, again later. Runs go on meanwhile."""
        log.warning("the runner ended; it is started again")
        self._let_runner_go()
        try:
            self.launched = runner.launch(self.settings.data)
            self._hold_runner()
        except (Refused, OSError) as fault:
            log.error("%s", fault)
            self.runner_due = time.monotonic() + BACKOFF_S[-1]

    def _let_runner_go(self) -> None:
        if self.runner_fd >= 0:
            os.close(self.runner_fd)
        self.runner_fd = -1

    # --- the children
    def _start(self, child: Child) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)  # what comes before the child has handlers of its own waits
        pid = os.fork()
        if pid:
            child.pid, child.started = pid, time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
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
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD)
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

    def _keep(self, lock: presence.Lock) -> None:
        """Waits for signals; a child that fell is started again, the sooner the longer it had stood.

        Raises: Refused when the data folder is gone.
        """
        while not self.stopping:
            if lock.lost():
                raise Refused(f"The data folder {self.settings.data} was deleted or moved away: the server ends.")
            now = time.monotonic()
            for child in self.children:
                if not child.pid and child.due <= now:
                    self._start(child)
            if self._runner_ended() and self.runner_due <= now:
                self._renew_runner()
            due = [child.due for child in self.children if not child.pid] + [self.runner_due] * (self.runner_fd < 0)
            self._sleep(max(0.0, min(min(due) - time.monotonic(), FOLDER_S)) if due else FOLDER_S)
            self._reap()

    def _runner_ended(self) -> bool:
        return self.runner_fd < 0 or bool(select.select([self.runner_fd], [], [], 0)[0])

    def _sleep(self, seconds: float | None) -> None:
        """Until a signal, the end of the runner, or the time given."""
        watched = [fd for fd in (self.wake_fds[0], self.runner_fd) if fd >= 0]
        select.select(watched, [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self.wake_fds[0], 4096):
                pass

    def _reap(self) -> None:
        if self.launched:
            self.launched.poll()
        for child in self.children:
            if child.pid and os.waitpid(child.pid, os.WNOHANG)[0]:
                now = time.monotonic()
                child.falls = 0 if now - child.started > STEADY_S else child.falls + 1
                child.due = now + BACKOFF_S[min(child.falls, len(BACKOFF_S)) - 1 if child.falls else 0]
                child.pid = 0
                if not self.stopping:
                    log.warning("%s ended; it is started again", child.name)

    def _await_health(self) -> bool:
        """Whether the server answers; False when it was told to end meanwhile.

        Raises: Refused when a child cannot start.
        """
        log_file = self.settings.data / "server.log"
        deadline = time.monotonic() + START_S
        while not self.stopping:
            self._reap()
            if any(child.falls > 3 for child in self.children):
                raise Refused(f"The server cannot start: see {log_file}.")
            for child in self.children:
                if not child.pid and child.due <= time.monotonic():
                    self._start(child)
            if server.writer_socket(self.settings).exists() and presence.healthy(self.address):
                return True
            if time.monotonic() > deadline:
                raise Refused(f"The server does not answer: see {log_file}.")
            self._sleep(LOOK_S)
        return False

    def _stop_all(self) -> None:
        """Fronts and doorway first, so that nothing new comes in; engine and porter last."""
        self.stopping = True
        self._let_runner_go()
        for names in (("front", "doorway"), ("engine", "porter")):
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


def bind(host: str, port: int, up: str) -> socket.socket:
    """A listening socket; `up` is the command that can name another port.

    Raises: Refused when the port is taken or the address is none of ours.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as fault:
        words = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror
        if fault.errno in (errno.EADDRINUSE, errno.EACCES):
            way = f"Free ports: `{up} --port 0`; ports of your choice: `{up} --port N --doorway-port M`."
        else:
            way = "`--host` takes an address of this machine: 127.0.0.1, or 0.0.0.0 for all."
        raise Refused(f"Cannot listen on {host}:{port}: {words}. {way}") from None
    listening.setblocking(False)
    return listening
