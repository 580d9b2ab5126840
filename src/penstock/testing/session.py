"""The server of a session of tests: one for all its processes, started by the first that needs it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from penstock import Refused
from penstock.settings import data_folder

BATCH = 20
"""Accounts made at once: a command costs half a second, an account next to nothing."""


class SessionServer:
    """The session's server as one process of the session sees it: the way there, and a supply of accounts."""

    def __init__(self, data: Path, variables: dict[str, str]):
        self.data, self.variables = data, variables
        self._supply: list[dict[str, str]] = []

    @classmethod
    def reach(cls, folder: Path) -> SessionServer:
        """The server of the session's folder; starts it if no other process has.

        Raises: Refused with the server's own words when it cannot start.
        """
        data = folder / "data"
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (data / "server.json").exists():
                _share_images(data)
                _penstock(data, "up", "--detach", "--port", "0", "--doorway-port", "0")
        return cls(data, json.loads(_penstock(data, "env", "--json")))

    def take_keys(self) -> dict[str, str]:
        """The keys of an account that nobody has used."""
        if not self._supply:
            lines = _penstock(self.data, "account", "add", "--count", str(BATCH), "--json").splitlines()
            self._supply = [json.loads(line) for line in lines]
        return self._supply.pop()


def _share_images(data: Path) -> None:
    """Has the server use the person's own environments of images: they take seconds to build, and are never changed."""
    own = data_folder() / "images"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    data.mkdir(mode=0o700)
    (data / "images").symlink_to(own.resolve())


def _penstock(data: Path, *words: str) -> str:
    """What a command of Penstock's prints.

    Raises: Refused with its last words.
    """
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_DATA")}
    command: list[Any] = [sys.executable, "-m", "penstock", *words, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=mine, check=False)
    if done.returncode:
        raise Refused(f"penstock {words[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
