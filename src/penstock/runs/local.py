"""The executor of one machine: admits runs by capacity and has the runner start them; the engine process holds it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.runs import handout, sandbox
from penstock.runs.base import ENDED, LOST, STARTING, WAITING, RunSpec, RunState
from penstock.runs.capacity import Capacity, Claim
from penstock.runs.folder import NAME, Order, RunFolder, Setup, left_over
from penstock.runs.runner import SOCKET
from penstock.runs.spares import kind_of
from penstock.runs.trees import remove_tree

log = logging.getLogger("penstock.runs")
RECONNECT_S = 0.05
LARGE = 1000
"""The record of an ended run with more results is kept while they are published, some at a time."""
DELETE_LATER_S = 2.0
"""When what a run left is deleted: not in the way of the run that comes next, nor beside its supervisor."""
DELETIONS = 10
DELETE_AGAIN_S = 0.5


class LocalExecutor:
    """Implements `Executor` over the runs' folders and the runner's socket.

    What waits for capacity is held in memory only (it has no folder yet): after a restart `look` gives None for it and the engine, which
    starts by name, starts it again. What was admitted is in its folder, and goes on whether or not this process or the runner lives.
    """

    def __init__(self, data: Path, capacity: Capacity, setup: Setup | None = None):
        """Takes: the data folder, what its runs may use together, and how sandboxes are made (found out, if None).

        Raises: Refused without bubblewrap.
        """
        self._data, self._runs, self._capacity = data, data / "runs", capacity
        self._setup = setup or sandbox.setup(str(data / "sockets"))
        self._runs_text = str(self._runs)
        self._runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._waiting: dict[str, RunSpec] = {}
        self._holding: set[str] = set()
        self._large = "", RunState("")
        self._heard: list[Callable[[str], None]] = []
        self._connection: socket.socket | None = None
        self._closed = threading.Event()
        self._count_running()
        self._rubbish: queue.SimpleQueue[tuple[float, Path] | None] = queue.SimpleQueue()
        for left in left_over(self._runs):
            self._sweep(left)
        self._sweeper = threading.Thread(target=self._delete, name="runs-sweeper", daemon=True)
        self._sweeper.start()
        self._reader = threading.Thread(target=self._read, name="runs", daemon=True)
        self._reader.start()

    # --- the contract

    def start(self, spec: RunSpec) -> RunState:
        """Admits the run, or lets it wait; gives the run that is there if the name was started before."""
        if not NAME.fullmatch(spec.name):
            raise ValueError(f"not a run's name: {spec.name!r}")
        with self._lock:
            if (state := self._look(spec.name)) is not None:
                if state.phase == STARTING:
                    self._ask({"op": "start", "run": spec.name})
                return state
            self._waiting[spec.name] = spec
            self._begin(self._capacity.ask(_claim(spec)), quiet=spec.name)
            return self._look(spec.name) or RunState(WAITING)

    def look(self, name: str) -> RunState | None:
        """The run's state, from its folder."""
        with self._lock:
            return self._look(name)

    def stop(self, name: str, reason: str = "stopped") -> None:
        """Stops a run; one that waits has ended at once."""
        with self._lock:
            spec = self._waiting.pop(name, None)
            if spec is None:
                with contextlib.suppress(FileNotFoundError):
                    self._folder(name).ask_stop(reason)
                return
            folder = self._folder(name)
            folder.create(Order(spec, self._setup))
            folder.end(RunState(ENDED, 143, reason, ended=time.time()))
            self._begin(self._capacity.release(name))
        self._tell(name)

    def retry(self, name: str, spec: RunSpec | None = None) -> RunState:
        """Starts a lost run again, as its spec or the one given says; any other is left as it is."""
        with self._lock:
            state = self._look(name)
            if state is None:
                raise KeyError(name)
            if state.phase != LOST:
                return state
            folder = self._folder(name)
            self._sweep(folder.renew(spec))
            self._capacity.hold(_claim(folder.order().spec))
            self._holding.add(name)
            self._ask({"op": "start", "run": name})
            return self._look(name) or RunState(STARTING)

    def forget(self, name: str) -> None:
        """Deletes the folder of a run that has ended or is lost, or takes a waiting one out of the queue."""
        with self._lock:
            folder = self._folder(name)
            state = RunState(ENDED) if folder.has_ended() else self._look(name)
            if state is None:
                return
            if state.phase not in (ENDED, LOST, WAITING):
                raise ValueError(f"the run {name} has not ended")
            self._waiting.pop(name, None)
            if name == self._large[0]:
                self._large = "", RunState("")
            self._sweep(folder.put_away())
            self._release(name)

    def names(self) -> list[str]:
        """All runs that are there, those that wait included."""
        with self._lock:
            return sorted({*self._waiting, *(n for n in os.listdir(self._runs) if NAME.fullmatch(n))})

    def listen(self, heard: Callable[[str], None]) -> None:
        self._heard.append(heard)

    def close(self) -> None:
        """Lets go of the runner; the runs go on."""
        with self._lock:
            self._closed.set()
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
        self._rubbish.put(None)
        self._reader.join(5)
        self._sweeper.join(5)  # what is left after that is deleted after the next start

    # --- what was put away

    def _sweep(self, left: Path | None) -> None:
        if left is not None:
            self._rubbish.put((time.monotonic() + DELETE_LATER_S, left))

    def _delete(self) -> None:
        """The thread that deletes what runs left: an attempt may have written a hundred thousand files."""
        while (put := self._rubbish.get()) is not None:
            due, left = put
            self._closed.wait(max(0.0, due - time.monotonic()))
            for _ in range(DELETIONS):
                remove_tree(left)
                if not left.exists() or self._closed.wait(DELETE_AGAIN_S):
                    break  # its supervisor may have been deleting there, too
            else:
                log.error("%s could not be deleted", left)

    # --- capacity

    def _count_running(self) -> None:
        """After a restart: what runs already holds its room."""
        for name in os.listdir(self._runs):
            if not NAME.fullmatch(name):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):
                folder = self._folder(name)
                state = folder.look()
                if state and state.phase not in (ENDED, LOST):
                    self._capacity.hold(_claim(folder.order().spec))
                    self._holding.add(name)

    def _begin(self, admitted: list[Claim], quiet: str = "") -> None:
        """Starts what was admitted; `quiet` is the run whose start is being asked for, which is told by the return value.

        Raises: OSError where there is no room for that one.
        """
        fault: OSError | None = None
        turn = list(admitted)
        while turn:
            claim = turn.pop(0)
            spec = self._waiting.pop(claim.name)
            try:
                with contextlib.suppress(FileExistsError):
                    self._folder(claim.name).create(Order(spec, self._setup))
            except OSError as error:  # the engine, which starts by name, tries again
                turn += self._capacity.release(claim.name)
                if claim.name == quiet:
                    fault = error
                else:
                    log.error("the run %s has no room: %s", claim.name, error)
                    self._tell(claim.name)
                continue
            self._holding.add(claim.name)
            self._ask({"op": "start", "run": claim.name, "kind": kind_of(spec)})
        if fault:
            raise fault

    def _release(self, name: str) -> None:
        self._holding.discard(name)
        self._begin(self._capacity.release(name))

    # --- the runner

    def _ask(self, message: dict[str, Any]) -> None:
        """Sends to the runner if there is one; else it is told everything when it is back."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        """The thread that listens to the runner, and finds it again when it was restarted."""
        while not self._closed.is_set():
            try:
                connection = handout.connect(self._data / SOCKET)
            except OSError:
                self._closed.wait(RECONNECT_S)
                continue
            with connection, connection.makefile("rb") as lines:
                with self._lock:
                    if self._closed.is_set():
                        return
                    self._connection = connection
                    self._ask({"op": "subscribe"})
                    for name in self._holding:
                        self._ask({"op": "start", "run": name})
                with contextlib.suppress(OSError):
                    for line in lines:
                        self._notice(json.loads(line))
                with self._lock:
                    self._connection = None

    def _notice(self, message: dict[str, Any]) -> None:
        if "error" in message:
            log.error("the runner refused: %s", message["error"])
        if "run" not in message:
            return
        name, phase = message["run"], message["phase"]
        with self._lock:
            if phase in (ENDED, LOST) and name in self._holding and self._is_over(name):
                self._release(name)
        self._tell(name)

    def _is_over(self, name: str) -> bool:
        """Whether a run of which an end was told is at its end: the message may be from before a retry."""
        if self._folder(name).has_ended():
            return True
        state = self._look(name)
        return state is None or state.phase in (ENDED, LOST)

    def _tell(self, name: str) -> None:
        for heard in self._heard:
            heard(name)

    def _look(self, name: str) -> RunState | None:
        if name in self._waiting:
            return RunState(WAITING)
        if name == self._large[0]:
            return self._large[1]
        state = self._folder(name).look()
        if state is not None and state.phase == ENDED and len(state.results) > LARGE:
            self._large = name, state
        return state

    def _folder(self, name: str) -> RunFolder:
        return RunFolder(f"{self._runs_text}/{name}")


def _claim(spec: RunSpec) -> Claim:
    count = len(spec.instances)
    if spec.share == "functions":  # by memory alone: most of the time they wait, for each other too
        return Claim(spec.name, 0.0, spec.memory_bytes * count, spec.share, spec.party)
    return Claim(spec.name, spec.cpus * count, spec.memory_bytes * count, spec.share, spec.party)
