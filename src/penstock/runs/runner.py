"""The runner: a small process of one thread that forks supervisors, gives them runs, and tells who listens what became of them.

It holds nothing that is not in the runs' folders: killed at any moment, it loses nothing; supervisors go on, and the next runner finds
them by their locks. `python -m penstock.runs.runner --data FOLDER` starts it; a second one for the same folder ends at once.

The protocol, JSON lines over `<data>/sockets/runner.sock`:

    {"op": "start", "run": name, "kind": text}
                                     gives it to a supervisor, if the run never had one; to one with a spare of that kind, where one is
    {"op": "stop", "run": name, "reason": text}
    {"op": "subscribe"}              from now on lines {"run": name, "phase": phase} come; first one for each run that is there
    {"op": "ping"}                   {"pong": version, "pid": n, "limits": sentence, "spares": [kind]}
    {"op": "quit"}                   {"quit": true}; ends the runner (not the runs)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from penstock.runs import handout, limits, linux, sandbox, strays
from penstock.runs.base import ENDED, LOST, STARTING, RunState
from penstock.runs.folder import EXIT, LOCK, NAME, RUNNING_MARK, RunFolder, unpack_order
from penstock.runs.serve import BARE, CANNOT, DONE, MADE, MESSAGE_BYTES, READY, SPARE, VAIN, Server
from penstock.runs.spares import name_kind

SOCKET = "sockets/runner.sock"
LINE_BYTES = 64 * 1024
LONG_S = 3600.0
FOLDER_S = 2.0
"""How often it looks whether the data folder is still there: the kernel is silent while a supervisor's mounts hold it."""
SEND_BYTES = 1 << 20
"""What a listener may have unread before it is dropped (it connects again and is told all)."""
IDLE = max(2, os.cpu_count() or 1)
"""How many supervisors without a run are kept; and all but one of them only for so long:"""
IDLE_S = 20.0
SPARES, ALIKE = 3, 2
"""How many spares there are at most, and of a kind: two where two runs of it came within IDLE_S. They all go when no run that could
take one was started for so long."""
KNOWN_S = 600.0
"""How long a kind is remembered: when one of them is at work again, the others are expected, too."""
SPARE_LATER_S = 0.05
"""When a spare is made after a run has started: not in its way."""
ROOM_BYTES = 2 << 30
"""The free memory of the machine below which none is made."""
STARTING_S = 1.0
"""How long a run must be starting to be told of: the end, or the running, of another says all."""


class Client:
    """One connection to the runner."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.subscribed = False
        self.unread = b""
        self.unsent = b""
        self.events = selectors.EVENT_READ
        """What its connection is watched for."""


class Supervisor:
    """One supervisor, as the runner knows it."""

    def __init__(self, channel: socket.socket):
        self.channel = channel
        self.folder: RunFolder | None = None
        """The run that it was given and has not ended yet."""
        self.fresh, self.ready = True, False
        self.kind = ""
        """Of the spare that it has, or was told to make."""
        self.made = False
        self.idle = time.monotonic()
        """Since when it has no run."""


@dataclass(slots=True)
class Kind:
    """Runs that can take the same spare: how to make it, when the last two were started."""

    order: bytes
    last: float
    before: float = 0.0

    @property
    def wanted(self) -> int:
        return ALIKE if self.last - self.before < IDLE_S else 1


class Runner:
    """Forks supervisors and watches the runs' folders."""

    def __init__(self, data: Path):
        self.data, self.runs, self.mark = data, data / "runs", limits.name_house(data)
        self.selector = selectors.DefaultSelector()
        self.watch = linux.Watch()
        self.watched: dict[int, RunFolder] = {}
        self.phases: dict[str, str] = {}
        self.clients: dict[int, Client] = {}
        self.supervisors: dict[int, Supervisor] = {}
        self.begun: dict[str, tuple[float, RunFolder]] = {}
        """Runs that were started a moment ago, and when to tell of it."""
        self.kinds: dict[str, Kind] = {}
        """Of the spares that there should be, the latest last."""
        self.vain: set[str] = set()
        self.spares_due = self.spares_end = LONG_S + time.monotonic()
        self.quitting = False

    def prepare(self) -> None:
        """Everything that runs share. Raises OSError where there are no user namespaces."""
        self.runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        linux.spread_folders(self.runs)
        self.house = sandbox.make_house(self.runs)
        self.means = limits.find_means()
        self.listening = handout.listen(self.data / SOCKET)
        self.listening.setblocking(False)
        self.selector.register(self.listening, selectors.EVENT_READ, self._accept)
        self.selector.register(self.watch.fd, selectors.EVENT_READ, self._notice)
        self.own = self.watch.add(self.runs, linux.IN_DELETE_SELF)
        self.made = self.runs.stat()
        for path in self.runs.iterdir():
            if NAME.fullmatch(path.name):
                self._watch(folder := RunFolder(path))
                self._look(folder)
        limits.sweep_cells(self.means, {cell for f in self.watched.values() if (cell := f.cell())}, self.mark)

    def serve(self) -> None:
        """Runs until told to quit."""
        self._fork()
        while not self.quitting:
            for key, _ in self.selector.select(min(self._dismiss(), self._tell_begun(), self._make_spares(), FOLDER_S)):
                if key.fd in self.selector.get_map():  # one that came before it may have closed it
                    act: Callable[[], None] = key.data
                    act()
            self.quitting = self.quitting or self._lost()

    def _lost(self) -> bool:
        """Whether the folder of runs was deleted, moved away or replaced by another."""
        try:
            return not os.path.samestat(self.runs.stat(), self.made)
        except (FileNotFoundError, NotADirectoryError):
            return True

    # --- runs

    def start(self, name: str, fresh: bool = False, kind: str = "") -> None:
        """Gives a run that never had a supervisor to one that waits.

        Takes: `fresh`, to one that has served none; `kind`, to one with a spare of that kind, if there is one.
        """
        folder = RunFolder(f"{self.runs}/{name}")
        if folder.was_taken() or not folder.is_there():
            return
        self._watch(folder)
        self.phases[name] = ""  # also of a name whose last run is only now being left: its supervisor says so, and it starts then
        if any(each.folder and each.folder.name == name for each in self.supervisors.values()):
            return
        self.begun.setdefault(name, (time.monotonic() + STARTING_S, folder))
        # The one that has waited longest is the one that is ready.
        waiting = sorted(self._waiting(fresh), key=lambda each: (not each.ready, each.idle))
        taker = next(iter([*(each for each in self._spares(kind) if each.made), *waiting]), None) or self._fork()
        taker.folder, taker.fresh, taker.ready, taker.kind = folder, False, False, ""
        with contextlib.suppress(OSError):  # it died while it waited: its end of the channel says so, too
            taker.channel.send(os.fsencode(folder.path))

    def _waiting(self, fresh: bool = False) -> list[Supervisor]:
        """Those without a run, and without a spare for another."""
        waiting = [each for each in self.supervisors.values() if each.folder is None and not each.kind]
        return [each for each in waiting if each.fresh or not fresh]

    # --- spares

    def _spares(self, kind: str) -> list[Supervisor]:
        """The supervisors with a spare of a kind, and those that are making one."""
        return [each for each in self.supervisors.values() if kind and each.kind == kind]

    def _want_spare(self, order: bytes) -> None:
        """A supervisor advises a spare, since its run is of that kind: one is made soon, and of others of late, too."""
        now = time.monotonic()
        kind = name_kind(unpack_order(order).spec)
        if kind in self.vain:
            return
        before = self.kinds.pop(kind, None)
        self.kinds[kind] = Kind(order, now, before.last if before else -IDLE_S)
        self.spares_due, self.spares_end = now + SPARE_LATER_S, now + IDLE_S

    def _forget_kind(self, kind: str) -> None:
        """Spares of this kind are of no use: what they import says something, which belongs into each log."""
        self.vain.add(kind)
        self.kinds.pop(kind, None)
        for supervisor in self._spares(kind):
            self._let_go(supervisor)

    def _make_spares(self) -> float:
        """Has spares made that are due, and lets go of them when nobody wants any; gives the seconds until the next look."""
        now = time.monotonic()
        if self.spares_end <= now:
            self.spares_end = now + LONG_S
            for supervisor in [each for each in self.supervisors.values() if each.kind]:
                self._let_go(supervisor)
        if self.spares_due <= now:
            self.spares_due = now + LONG_S
            self.kinds = {name: kind for name, kind in self.kinds.items() if kind.last > now - KNOWN_S}
            for supervisor in [each for each in self.supervisors.values() if each.kind and each.kind not in self.kinds]:
                self._let_go(supervisor)
            for name in self._missing():
                if limits.free_bytes() > ROOM_BYTES:
                    self._make_spare(name, self.kinds[name].order)
        return max(0.0, min(self.spares_due, self.spares_end) - now)

    def _missing(self) -> list[str]:
        """The kinds of the spares to make: first those that were not wanted just now, since they have their replacement last."""
        latest = list(self.kinds)[-SPARES:]
        names = [name for number in range(1, ALIKE + 1) for name in latest if number <= self.kinds[name].wanted]
        missing: list[str] = []
        for name in names[:SPARES]:
            if names[:SPARES].count(name) > len(self._spares(name)) + missing.count(name):
                missing.append(name)
        return missing

    def _make_spare(self, kind: str, order: bytes) -> None:
        """Has a supervisor that served nobody make a spare."""
        waiting = self._waiting(fresh=True)
        maker = waiting[0] if waiting else self._fork()
        maker.kind, maker.fresh, maker.made = kind, False, False
        with contextlib.suppress(OSError):
            maker.channel.send(SPARE + order)
        if not self._waiting():
            self._fork()

    def _hear(self, supervisor: Supervisor) -> None:
        """A supervisor says how far it is, or is gone: if it died before it took up its run, another one does."""
        try:
            said = supervisor.channel.recv(MESSAGE_BYTES)
        except OSError:
            said = b""
        if said.startswith(SPARE):
            self._want_spare(said[len(SPARE) :])
            return
        if said.startswith(VAIN):
            self._forget_kind(name_kind(unpack_order(said[len(VAIN) :]).spec))
            return
        if said in (READY, MADE, BARE):
            supervisor.ready, supervisor.made = supervisor.folder is None, said == MADE
            supervisor.kind = "" if said == BARE else supervisor.kind
            return
        folder, supervisor.folder, supervisor.idle = supervisor.folder, None, time.monotonic()
        if said not in (DONE, CANNOT):
            self._let_go(supervisor)
        supervisor.ready = said == CANNOT
        if folder is not None and not folder.has_ended() and folder.is_there():  # a run of its name may have begun anew
            self._look(folder)
            self.start(folder.name, said == CANNOT)

    def _let_go(self, supervisor: Supervisor) -> None:
        """Closes a supervisor's channel: it ends, if it has not."""
        del self.supervisors[supervisor.channel.fileno()]
        self.selector.unregister(supervisor.channel)
        supervisor.channel.close()

    def _dismiss(self) -> float:
        """Lets go of supervisors that wait for nothing; gives the seconds until the next may have waited for too long."""
        waiting = sorted(self._waiting(), key=lambda each: each.idle)
        while len(waiting) > 1 and (len(waiting) > IDLE or waiting[0].idle + IDLE_S < time.monotonic()):
            self._let_go(waiting.pop(0))
        return max(0.0, waiting[0].idle + IDLE_S - time.monotonic()) + 0.1 if len(waiting) > 1 else LONG_S

    def _fork(self) -> Supervisor:
        """Forks a supervisor."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            self._become_supervisor(ours, theirs)
        theirs.close()
        made = self.supervisors[ours.fileno()] = Supervisor(ours)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._hear(made))
        return made

    def _become_supervisor(self, ours: socket.socket, theirs: socket.socket) -> None:
        """The child: lets go of all that is the runner's, and serves."""
        try:
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            linux.rename_process("penstock-run")
            ours.close()
            self.selector.close()
            self.watch.close()
            self.listening.close()
            for client in self.clients.values():
                client.connection.close()
            for other in self.supervisors.values():  # or they would not hear that the runner is gone
                other.channel.close()
            gc.disable()
            Server(theirs, self.house, self.means, self.mark).serve()
        except BaseException:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(0)

    def _watch(self, folder: RunFolder) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.watched[self.watch.add(folder.path)] = folder

    def _notice(self) -> None:
        """Something happened in a run's folder; a lock that is closed means that its supervisor is gone."""
        for noticed in self.watch.read():
            folder = self.watched.get(noticed.watch)
            if noticed.watch == self.own:
                self.quitting = True  # somebody deleted the data folder: there is nothing to serve any more
            if folder is None:
                continue
            if noticed.mask & linux.IN_IGNORED:
                self.watched.pop(noticed.watch)
                self.phases.pop(folder.name, None)
            elif noticed.name == EXIT:
                self._tell(folder, ENDED)
            elif self.phases.get(folder.name) != ENDED and noticed.name.startswith((RUNNING_MARK, LOCK)):
                self._look(folder)

    def _look(self, folder: RunFolder) -> None:
        state = folder.look() or RunState("")
        if state.phase == LOST:
            limits.clear_lost(self.means, folder.path, folder.cell())
            if self.phases.get(folder.name) != LOST:
                self._clear_containers(folder)
        self._tell(folder, state.phase)

    def _clear_containers(self, folder: RunFolder) -> None:
        """Has the containers of a lost run removed, where it had any: they do not die with their supervisor."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            order = folder.order()
            if order.spec.container:
                strays.begin_sweep(order.setup.docker, self.runs)

    def _tell_begun(self) -> float:
        """Tells of the runs that are starting for a while already; gives the seconds until the next."""
        now = time.monotonic()
        for due, folder in list(self.begun.values()):
            if due <= now:
                self._look(folder)
        return max(0.0, min((due for due, _ in self.begun.values()), default=now + LONG_S) - now)

    def _tell(self, folder: RunFolder, phase: str) -> None:
        self.begun.pop(folder.name, None)
        if phase and self.phases.get(folder.name) != phase:
            self.phases[folder.name] = phase
            if phase != STARTING and not self._waiting():
                self._fork()  # not earlier: it would be in the way of the run that starts
            for client in list(self.clients.values()):
                if client.subscribed:
                    self._send(client, {"run": folder.name, "phase": phase})

    # --- clients

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self.listening.accept()
            connection.setblocking(False)
            client = Client(connection)
            self.clients[connection.fileno()] = client
            self.selector.register(connection, client.events, lambda: self._serve(client))

    def _read(self, client: Client) -> None:
        if client.connection.fileno() < 0:
            return
        try:
            piece = client.connection.recv(LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop(client)
            return
        *lines, client.unread = (client.unread + piece).split(b"\n")
        for line in lines:
            try:
                self._obey(client, json.loads(line))
            except (ValueError, KeyError, OSError) as error:
                self._send(client, {"error": str(error)})

    def _obey(self, client: Client, asked: dict[str, Any]) -> None:
        operation, name = asked["op"], asked.get("run", "")
        if operation in ("start", "stop") and not NAME.fullmatch(name):
            raise ValueError(f"not a run's name: {name!r}")
        if operation == "start":
            self.start(name, kind=asked.get("kind", ""))
        elif operation == "stop":
            RunFolder(self.runs / name).ask_stop(asked.get("reason", "stopped"))
        elif operation == "subscribe":
            client.subscribed = True
            for run, phase in self.phases.items():
                if phase:
                    self._send(client, {"run": run, "phase": phase})
        elif operation == "ping":
            spares = [each.kind for each in self.supervisors.values() if each.kind and each.made]
            about = {"pong": penstock.__version__, "pid": os.getpid(), "limits": self.means.describe(), "spares": spares}
            self._send(client, about)
        elif operation == "quit":
            self._send(client, {"quit": True})
            self.quitting = True
        else:
            raise ValueError(f"no such operation: {operation!r}")

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        client.unsent += json.dumps(message).encode() + b"\n"
        self._flush(client)

    def _serve(self, client: Client) -> None:
        self._flush(client)
        self._read(client)

    def _flush(self, client: Client) -> None:
        if client.connection.fileno() < 0:
            return
        try:
            client.unsent = client.unsent[client.connection.send(client.unsent) :] if client.unsent else b""
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.unsent) > SEND_BYTES:
            self._drop(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if events != client.events:
            client.events = events
            self.selector.modify(client.connection, events, lambda: self._serve(client))

    def _drop(self, client: Client) -> None:
        if client.connection.fileno() >= 0:
            self.clients.pop(client.connection.fileno(), None)
            self.selector.unregister(client.connection)
            client.connection.close()


def serve(data: Path) -> None:
    """Is the runner of a data folder until told to quit; returns at once if it has one already."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if linux.lock_file(data / "runner.lock") is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    linux.rename_process("penstock-runner")
    os.umask(0o022)
    runner = Runner(data)
    runner.prepare()
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # supervisors are reaped by the kernel; the folders tell what became of them
    gc.collect()
    gc.freeze()
    runner.serve()


def launch(data: Path, python: str = sys.executable) -> subprocess.Popen[bytes]:
    """Starts a runner that outlives the caller; it ends at once if the data folder has one."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    (data / "logs").mkdir(exist_ok=True, mode=0o700)
    environment = {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    }
    for name in ("HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"):
        if name in os.environ:
            environment[name] = os.environ[name]
    command = [*limits.launch_prefix(), python, "-m", "penstock.runs.runner", "--data", str(data)]
    with open(data / "logs" / "runner.log", "ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True
        )


def wait_ready(data: Path, timeout_s: float = 10.0) -> dict[str, Any]:
    """Waits until the runner answers; gives its answer to a ping. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return ask(data, {"op": "ping"})
        time.sleep(0.01)
    raise TimeoutError(f"the runner of {data} does not answer; see {data / 'logs' / 'runner.log'}")


def ask(data: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Sends one message to the runner and gives its answer. Raises OSError if there is no runner."""
    with handout.connect(data / SOCKET) as connection:
        connection.settimeout(5)
        connection.sendall(json.dumps(message).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(prog="penstock-runner")
    parser.add_argument("--data", type=Path, required=True)
    serve(parser.parse_args().data.absolute())


if __name__ == "__main__":
    main()
