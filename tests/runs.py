"""A runner and an executor of a test's own, and programs that do what an `Act` says."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.runs import runner, sandbox
from penstock.runs.base import RunSpec, RunState
from penstock.runs.capacity import Capacity
from penstock.runs.fake import Act
from penstock.runs.local import LocalExecutor

PYTHON = "/usr/bin/python3"
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
DRIVER = """
import base64, json, os, sys, time, zlib
act = json.loads(os.environ["ACT"])
for path, data in act["files"].items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "wb").write(zlib.decompress(base64.b64decode(data)))
for line in act["lines"]:
    print(line, flush=True)
if act["hold"]:
    time.sleep(600)
sys.exit(act["exit_code"])
"""


class Watcher:
    """Waits for runs by what an executor tells, never by looking again and again."""

    def __init__(self, executor: Any):
        self.executor = executor
        self._told = threading.Condition()
        self._count = 0
        self.heard: list[str] = []
        executor.listen(self._hear)

    def _hear(self, name: str) -> None:
        with self._told:
            self.heard.append(name)
            self._count += 1
            self._told.notify_all()

    def wait(self, name: str, *phases: str, timeout_s: float = 60.0) -> RunState:
        """The run's state once it is in one of the phases."""
        return self.until(lambda: (s := self.executor.look(name)) is not None and s.phase in phases and s, timeout_s)

    def until(self, found: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """What `found` gives, once it is true; asked again after each thing heard."""
        deadline = time.monotonic() + timeout_s
        with self._told:
            while True:
                count = self._count
                if result := found():
                    return result
                if not self._told.wait_for(lambda: self._count != count, max(0, deadline - time.monotonic())):  # noqa: B023
                    raise AssertionError("nothing more was heard")


def program(name: str, act: Act, **fields: Any) -> RunSpec:
    """A run whose program does what the act says."""
    files = {path: base64.b64encode(zlib.compress(data)).decode() for path, data in act.files.items()}
    told = {"files": files, "lines": act.lines, "hold": act.hold, "exit_code": act.exit_code}
    return RunSpec(name, [PYTHON, "-c", DRIVER], ENV | {"ACT": json.dumps(told)}, **fields)


class Place:
    """A data folder with its runner."""

    def __init__(self, data: Path):
        self.data = data
        self.process: subprocess.Popen[bytes] = self.begin()

    def begin(self) -> subprocess.Popen[bytes]:
        self.process = runner.launch(self.data)
        runner.wait_ready(self.data, 60.0)
        return self.process

    def kill_runner(self) -> None:
        self.process.kill()
        self.process.wait()

    def supervisor(self, name: str) -> int:
        """The pid of a run's supervisor, from the kernel: who holds the lock?"""
        lock = os.stat(self.data / "runs" / name / "lock").st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "POSIX" and words[5].split(":")[-1] == str(lock):
                return int(words[4])
        raise ProcessLookupError(name)

    def kill_supervisor(self, name: str) -> None:
        os.kill(self.supervisor(name), signal.SIGKILL)

    def close(self) -> None:
        for path in (self.data / "runs").iterdir():
            if (path / "lock").exists() and not (path / "exit.json").exists():
                try:
                    self.kill_supervisor(path.name)
                except ProcessLookupError:
                    continue
        self.kill_runner()


@contextmanager
def local_executor(
    data: Path, capacity: Capacity | None = None, docker: str = ""
) -> Iterator[tuple[LocalExecutor, Place]]:
    """A runner and an executor on a folder, gone at the end with all they started."""
    place = Place(data)
    setup = sandbox.setup("" if docker else str(data / "sockets"), docker=docker)
    executor = LocalExecutor(data, capacity or Capacity(4.0, 8 << 30), setup)
    try:
        yield executor, place
    finally:
        executor.close()
        place.close()
