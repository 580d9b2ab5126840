"""A run's folder: the truth about the run, whoever lives or died.

    spec.json   what to run, which attempt, and how (0600: it holds the job's credentials)
    attempt     which attempt this is, once it is not the first
    lock        locked by the supervisor while it lives, with its attempt in it; made already locked, so an unlocked one means a
                dead supervisor
    running     appears when the program starts: `{"started": moment}`
    stop        a request to stop, with the reason; appears whole
    live.json   what continuous outputs gave so far; appears whole
    exit.json   the exit record; appears whole
    layer       what the program wrote, where the spec wants it kept
    1, 2 …      what an attempt needs while it runs: lower, upper, work, root (the overlay's mount point)

A file that matters appears by a rename. Nothing here is synced: what a power failure loses is an exit record of which no result was
published yet, so the run is lost and is tried again; what an exit record points at is durable before the record is there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from penstock.runs import linux
from penstock.runs.base import LOST, RUNNING, STARTING, Result, RunSpec, RunState
from penstock.runs.codec import dump, pack_spec, pack_state, unpack_spec, unpack_state

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
EXIT, STOP, RUNNING_MARK, LOCK, SPEC, CELL, ATTEMPT = (
    "exit.json",
    "stop",
    "running",
    "lock",
    "spec.json",
    "cell",
    "attempt",
)
KEPT = "layer"
LIVE = "live.json"
GONE, NEW = ".gone-", ".new-"


@dataclass(slots=True)
class Setup:
    """What a supervisor must know beside the spec; written down with it, so that the runner needs no settings."""

    bwrap: str
    sockets: str = ""
    """The folder of front.sock and doorway.sock; empty: nobody answers."""
    api_port: int = 4600
    doorway_port: int = 4601
    disable_userns: bool = True
    docker: str = ""
    """The address of the container engine that runs of real images are given to; empty: none."""


@dataclass(slots=True)
class Order:
    """A spec, its setup, and which attempt this is."""

    spec: RunSpec
    setup: Setup
    attempt: int = 1


class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: str | Path):
        self._text = os.fspath(path)
        self.name = os.path.basename(self._text)

    @property
    def path(self) -> Path:
        return Path(self._text)

    def is_there(self) -> bool:
        return os.path.isdir(self._text)

    def _at(self, name: str) -> str:
        return f"{self._text}/{name}"

    def create(self, order: Order) -> None:
        """Makes the folder with its spec, all at once. Raises FileExistsError if the run is there."""
        fresh = f"{os.path.dirname(self._text)}/{NEW}{self.name}"
        try:
            os.mkdir(fresh, 0o700)
        except FileExistsError:  # somebody died here
            shutil.rmtree(fresh)
            os.mkdir(fresh, 0o700)
        _write(f"{fresh}/{SPEC}", pack_order(order))
        try:
            os.rename(fresh, self._text)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise FileExistsError(self._text) from error

    def order(self) -> Order:
        """What to run. Raises FileNotFoundError."""
        order = unpack_order(_read(self._at(SPEC)))
        order.attempt = self.attempt()
        return order

    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        try:
            return int(_read(self._at(ATTEMPT)).decode())
        except FileNotFoundError:
            return 1

    def _lost_attempt(self) -> int:
        """The attempt of the supervisor that is gone: what `renew` had begun when it was killed is not counted."""
        try:
            return int(_read(self._at(LOCK)).decode())
        except (FileNotFoundError, ValueError):
            return self.attempt()

    def look(self) -> RunState | None:
        """The state as the folder tells it; None when there is no such run."""
        if state := self.ended():
            return state
        locked = linux.is_locked(self._at(LOCK))
        if locked is None:
            return RunState(STARTING, attempt=self.attempt()) if os.path.exists(self._at(SPEC)) else None
        if locked:
            return self._alive()
        # A supervisor writes the record and only then lets go of its lock: look once more.
        return self.ended() or self._lost()

    def _alive(self) -> RunState:
        try:
            mark = json.loads(_read(self._at(RUNNING_MARK)))
        except (FileNotFoundError, ValueError):
            return RunState(STARTING, attempt=self.attempt())
        results = self._live(mark["attempt"])
        return RunState(RUNNING, started=mark["started"], results=results, attempt=mark["attempt"])

    def _lost(self) -> RunState:
        attempt = self._lost_attempt()
        return RunState(LOST, results=self._live(attempt), attempt=attempt)

    def _live(self, attempt: int) -> list[Result]:
        try:
            state = unpack_state(json.loads(_read(self._at(LIVE))))
        except (FileNotFoundError, ValueError):
            return []
        return state.results if state.attempt == attempt else []

    def note_live(self, state: RunState) -> None:
        """Tells what was taken of continuous outputs while the program runs."""
        _place(self._at(LIVE), dump(pack_state(state)))

    def has_ended(self) -> bool:
        """Whether there is an exit record, without reading it."""
        return os.path.exists(self._at(EXIT))

    def was_taken(self) -> bool:
        """Whether the run has, or had, a supervisor."""
        return os.path.exists(self._at(LOCK)) or self.has_ended()

    def ended(self) -> RunState | None:
        """The exit record, if there is a whole one."""
        try:
            return unpack_state(json.loads(_read(self._at(EXIT))))
        except (FileNotFoundError, ValueError):
            return None

    def end(self, state: RunState) -> None:
        """Writes the exit record."""
        _place(self._at(EXIT), dump(pack_state(state)))

    def mark_running(self, started: float, attempt: int) -> None:
        """Says that the program has started."""
        _write(self._at(RUNNING_MARK), dump({"started": started, "attempt": attempt}))

    def ask_stop(self, reason: str) -> None:
        """Leaves the request to stop where the supervisor hears of it, now or when it starts. The first reason stays."""
        if os.path.exists(self._at(STOP)):
            return
        try:
            _place(self._at(STOP), reason.encode())
        except OSError:  # a full disk still has room for a name
            (self.path / STOP).touch()

    def stop_reason(self) -> str | None:
        try:
            return _read(self._at(STOP)).decode() or "stopped"
        except FileNotFoundError:
            return None

    def note_cell(self, name: str) -> None:
        """Says in which cgroups the supervisor and its programs are."""
        _write(self._at(CELL), name.encode())

    def cell(self) -> str | None:
        try:
            return _read(self._at(CELL)).decode() or None
        except FileNotFoundError:
            return None

    def take_lock(self) -> int | None:
        """The supervisor's first act: gives the lock's descriptor, None if the run has, or had, a supervisor."""
        fresh = self._at(f"{LOCK}.{os.getpid()}")
        fd = linux.lock_file(fresh)
        try:
            if fd is not None:
                os.write(fd, b"%d" % self.attempt())
            os.link(fresh, self._at(LOCK))
        except FileExistsError:
            if fd is not None:
                os.close(fd)
            return None
        finally:
            os.unlink(fresh)
        return fd

    def renew(self, spec: RunSpec | None = None) -> Path | None:
        """Makes a lost run one that was never started, as the next attempt. The caller knows that it is lost.

        Takes: the spec of the next attempt, where it is another: the same program with other inputs.
        Gives: what the last attempt left, put away for somebody to delete.
        """
        last = self._lost_attempt()
        if spec is not None:
            _place(self._at(SPEC), pack_order(Order(spec, self.order().setup)))
        for name in (EXIT, RUNNING_MARK, LIVE):
            (self.path / name).unlink(missing_ok=True)
        left = _put_away(self.path / str(last), self.path.parent, f"{self.name}.{last}")
        _place(self._at(ATTEMPT), b"%d" % (last + 1))
        # The lock goes last: without it the run starts.
        (self.path / LOCK).unlink(missing_ok=True)
        return left

    def put_away(self) -> Path | None:
        """Takes the run away, by a rename, so that it is gone at once; gives what is left for somebody to delete."""
        return _put_away(self.path, self.path.parent, self.name)


def left_over(runs: Path) -> list[Path]:
    """What was put away, or begun, by somebody who died."""
    return [path for path in runs.iterdir() if path.name.startswith((GONE, NEW))]


def _put_away(path: Path, runs: Path, name: str) -> Path | None:
    gone = runs / f"{GONE}{name}.{secrets.token_hex(4)}"
    try:
        path.rename(gone)
    except FileNotFoundError:
        return None
    return gone


def unpack_order(packed: bytes) -> Order:
    """Raises: ValueError, KeyError, TypeError for what is none."""
    read = json.loads(packed)
    return Order(unpack_spec(read["spec"]), Setup(**read["setup"]))


def pack_order(order: Order) -> bytes:
    """As JSON, without the attempt."""
    setup = {name: getattr(order.setup, name) for name in order.setup.__slots__}
    return dump({"setup": setup, "spec": pack_spec(order.spec)})


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 14):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data) if len(data) < 1 << 16 else _write_all(fd, data)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _place(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    fresh = f"{folder}/.{name}.{os.getpid()}"
    _write(fresh, data)
    os.rename(fresh, path)
