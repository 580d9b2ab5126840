"""The server of a data folder, seen from outside: who holds the folder, what it told about itself, whether it answers.

The lock is the truth: whoever holds it is a server, or what is left of one. `server.json` tells the rest, from the moment at
which the server answers.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from penstock import Refused

LOOKS = 10
LOOK_S = 0.01
ABOUT = "server.json"
LOCK = "server.lock"
PARTS = (
    "blobs", "ca", "clients", "credentials.json", "functions", "images", "logs", "penstock.db", "runner.lock", "runs", "sockets", "server.",
)  # fmt: skip
"""What the names of a data folder's parts begin with."""
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that are none to go to."""


class Lock:
    """Holds the data folder against a second server.

    Raises: Refused, with who holds it.
    """

    def __init__(self, data: Path):
        self.data = data
        self.fd = -1

    def __enter__(self) -> Lock:
        self.fd = open_in(self.data, LOCK, os.O_RDWR)
        try:
            self._take()
        except BlockingIOError:
            os.close(self.fd)
            about = running(self.data)
            where = f" at {about['url']} (pid {about['pid']})" if about else ""
            raise Refused(
                f"A server{where} is using the data folder {self.data}. `penstock down` stops it; `--data` names another folder."
            ) from None
        (self.data / ABOUT).unlink(missing_ok=True)  # of a server that was killed
        return self

    def _take(self) -> None:
        """Again for a moment: somebody who only looks holds it for less."""
        for _ in range(LOOKS):
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOOK_S)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lost(self) -> bool:
        """Whether the folder that is held was deleted, moved away or replaced by another."""
        try:
            return not os.path.samestat(os.stat(self.data / LOCK), os.fstat(self.fd))
        except (FileNotFoundError, NotADirectoryError):
            return True

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def is_part(path: Path) -> bool:
    """Whether an entry of a data folder is Penstock's, by its name."""
    return path.name.lstrip(".").startswith(PARTS)


def is_data_folder(data: Path) -> bool:
    """Whether a server has ever been here."""
    return (data / LOCK).is_file() or (data / "penstock.db").is_file()


def open_in(data: Path, name: str, flags: int) -> int:
    """A descriptor of a file of the data folder, both made if missing.

    Raises: Refused where that cannot be, and for a folder that is somebody's already.
    """
    try:
        if data.is_dir() and not is_data_folder(data) and not all(map(is_part, data.iterdir())):
            raise Refused(
                f"The folder {data} is not empty, and not Penstock's: its state would lie among what is there. "
                "`--data` names another folder."
            )
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data / name, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise Refused(
            f"The data folder {data} cannot be made or written: {fault.strerror}. `--data` names another folder."
        ) from None


def held(data: Path) -> bool:
    """Whether a server, or what is left of one, holds the folder. Those who look do not take each other for one."""
    try:
        fd = os.open(data / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def tell(data: Path, about: dict[str, Any]) -> None:
    """Tells what clients need to know of the server that holds the folder: url, doorway, pid, account, region."""
    temporary = data / f".{ABOUT}"
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(about, file)
    temporary.rename(data / ABOUT)


def running(data: Path) -> dict[str, Any] | None:
    """What the server of this folder told about itself; None when none holds the folder, or it does not answer yet."""
    try:
        about: dict[str, Any] = json.loads((data / ABOUT).read_text())
    except (OSError, ValueError):
        return None
    return about if held(data) else None  # where the lock is free, whoever wrote that is gone


def await_running(data: Path, seconds: float) -> dict[str, Any] | None:
    """What the server tells that somebody is starting at this moment; None when nobody is."""
    deadline = time.monotonic() + seconds
    while held(data) and time.monotonic() < deadline:
        if about := running(data):
            return about
        time.sleep(LOOK_S)
    return None


def await_gone(data: Path, seconds: float) -> bool:
    """Waits until no server holds the folder: its last process has ended then."""
    deadline = time.monotonic() + seconds
    while held(data):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def address_of(host: str, port: int) -> str:
    """Where clients of this machine go to reach a server that listens on the host: "127.0.0.1:4600"."""
    host = EVERY_ADDRESS.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def healthy(address: str) -> bool:
    """Whether a front answers at the address."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), 1) as client:
            client.sendall(f"GET /_penstock/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
