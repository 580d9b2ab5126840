"""An executor without processes: a test says what each program does, and when. Held to the same contract as the others."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from penstock.runs.base import ENDED, LOST, RUNNING, WAITING, Output, Result, RunSpec, RunState
from penstock.runs.capacity import Capacity, Claim
from penstock.runs.folder import NAME
from penstock.runs.outputs import ARCHIVE_TIME


@dataclass(slots=True)
class Act:
    """What a program does: writes files, prints lines, ends with a code; or holds until it is stopped or `finish`ed."""

    exit_code: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    hold: bool = False


@dataclass(slots=True)
class _Run:
    spec: RunSpec
    state: RunState
    act: Act


class FakeExecutor:
    """Implements `Executor`. `play` gives what a run's program does; without it each one ends at once with 0 and writes nothing."""

    def __init__(
        self,
        play: Callable[[RunSpec], Act] = lambda spec: Act(),
        capacity: Capacity | None = None,
        now: Callable[[], float] = time.time,
    ):
        self._play, self._capacity, self._now = play, capacity or Capacity(1000.0, 1 << 50), now
        self._runs: dict[str, _Run] = {}
        self._heard: list[Callable[[str], None]] = []
        self._lock = threading.RLock()

    # --- the contract

    def start(self, spec: RunSpec) -> RunState:
        if not NAME.fullmatch(spec.name):
            raise ValueError(f"not a run's name: {spec.name!r}")
        with self._lock:
            if spec.name not in self._runs:
                self._runs[spec.name] = _Run(spec, RunState(WAITING), Act())
                self._begin(self._capacity.ask(_claim(spec)))
            return self._seen(spec.name)

    def look(self, name: str) -> RunState | None:
        with self._lock:
            return self._seen(name) if name in self._runs else None

    def stop(self, name: str, reason: str = "stopped") -> None:
        with self._lock:
            run = self._runs.get(name)
            if run and run.state.phase in (WAITING, RUNNING):
                run.state.started = run.state.started or self._now()
                self._end(run, 143, reason)

    def retry(self, name: str, spec: RunSpec | None = None) -> RunState:
        with self._lock:
            run = self._runs[name]
            if run.state.phase == LOST:
                run.spec = spec or run.spec
                attempt = run.state.attempt + 1
                run.state = RunState(WAITING, attempt=attempt)
                self._capacity.hold(_claim(run.spec))
                self._run(run)
            return self._seen(name)

    def forget(self, name: str) -> None:
        with self._lock:
            run = self._runs.get(name)
            if run is None:
                return
            if run.state.phase not in (ENDED, LOST, WAITING):
                raise ValueError(f"the run {name} has not ended")
            del self._runs[name]
            self._begin(self._capacity.release(name))

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._runs)

    def listen(self, heard: Callable[[str], None]) -> None:
        self._heard.append(heard)

    def close(self) -> None:
        pass

    # --- what tests do

    def spec(self, name: str) -> RunSpec:
        """What was asked for."""
        return self._runs[name].spec

    def finish(self, name: str, act: Act | None = None) -> None:
        """Ends a run that holds, as `act` says, or as its own said."""
        with self._lock:
            run = self._runs[name]
            if act is not None:
                run.act = act
            self._end(run, run.act.exit_code, "exit" if run.act.exit_code else "")

    def lose(self, name: str) -> None:
        """The run's supervisor dies."""
        with self._lock:
            run = self._runs[name]
            run.state = RunState(LOST, results=run.state.results, attempt=run.state.attempt)
            self._tell(name)
            self._begin(self._capacity.release(name))

    # --- below

    def _begin(self, admitted: list[Claim]) -> None:
        for claim in admitted:
            self._run(self._runs[claim.name])

    def _run(self, run: _Run) -> None:
        run.act = self._play(run.spec)
        live = [output for output in run.spec.outputs if output.continuous]
        results = [result for output in live for result in _results(output, run.act.files)]
        run.state = RunState(RUNNING, started=self._now(), results=results, attempt=run.state.attempt)
        self._tell(run.spec.name)
        if not run.act.hold:
            self._end(run, run.act.exit_code, "exit" if run.act.exit_code else "")

    def _end(self, run: _Run, code: int, reason: str) -> None:
        wanted = [o for o in run.spec.outputs if o.always or not reason]
        tail = run.act.lines[-10:] if code else []
        message = run.act.files.get(run.spec.message_file, b"").decode("utf-8", "replace")[:1024] if reason else ""
        run.state = RunState(
            ENDED, code, reason, message, tail, run.state.started, self._now(),
            [result for output in wanted for result in _results(output, run.act.files)],
            {"cpu_s": 0.0, "peak_memory_bytes": 0.0}, run.state.attempt,
        )  # fmt: skip
        self._tell(run.spec.name)
        self._begin(self._capacity.release(run.spec.name))

    def _seen(self, name: str) -> RunState:
        return replace(self._runs[name].state)

    def _tell(self, name: str) -> None:
        for heard in self._heard:
            heard(name)


def _results(output: Output, files: dict[str, bytes]) -> list[Result]:
    below = {posixpath.relpath(path, output.source): data for path, data in sorted(files.items())}
    found = {key: data for key, data in below.items() if not key.startswith("..")}
    if output.kind == "files":
        return [
            _result(output.name, posixpath.basename(output.source) if key == "." else key, data)
            for key, data in found.items()
        ]
    return [_result(output.name, "", _archive(found))] if found or output.required else []


def _result(name: str, key: str, data: bytes) -> Result:
    """Inline, however large: the fake has no blobs."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Result(name, key, hashlib.sha256(data).hexdigest(), md5, len(data), data)


def _archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for key, data in files.items():
            member = tarfile.TarInfo(key)
            member.size, member.mtime = len(data), ARCHIVE_TIME
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def _claim(spec: RunSpec) -> Claim:
    count = len(spec.instances)
    return Claim(spec.name, spec.cpus * count, spec.memory_bytes * count, spec.share, spec.party)
