"""Runs that a Python takes which waited for them, beside the same runs started anew: nobody can tell which is which."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import runner, sandbox, spares
from penstock.runs.base import ENDED, RUNNING, Input, Instance, Mount, Output, RunSpec, RunState
from penstock.runs.images.interpreters import find_interpreter, list_minors
from tests.runs import ENV, PYTHON, Place, Watcher, local_executor

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
SCRIPT = "/opt/ml/code/script.py"
AHEAD = """
import sys
with open("/opt/ml/ahead", "w") as file:
    file.write(str("decimal" in sys.modules))
"""
"""Notes whether somebody had imported it by then; names `decimal`, without which no spare is taken."""
TELLING = """
import atexit, os, signal, sys, traceback
print(sys.argv, sys.executable, sys.path, sys.flags, __file__, __name__, sorted(globals()))
print(open("/proc/self/cmdline").read().split("\\0"), open("/proc/self/environ").read().split("\\0"))
print(open("/proc/self/comm").read(), os.readlink("/proc/self/exe"), os.getcwd(), os.getpid(), os.getppid())
print(sorted(os.environ.items()), sorted(os.listdir("/proc/self/fd")), os.path.exists("/opt/penstock/spare"))
print(sorted(line.split()[4:6] for line in open("/proc/self/mountinfo")), os.nice(0), os.umask(0))
print([line for line in open("/proc/self/status") if line.startswith(("Cap", "NoNew", "Seccomp:", "Groups", "SigB", "SigI", "SigC"))])
print([name for name in os.listdir("/proc") if name.isdigit()], sorted(os.listdir("/")), sorted(os.listdir("/opt/ml")))
atexit.register(print, "at the end")
traceback.print_stack()
def fail():
    raise ValueError("of the script")
fail()
"""


class Stage:
    """A runner of its own, and the same run started anew and by a spare."""

    def __init__(self, executor: Any, place: Place):
        self.executor, self.place, self.watcher = executor, place, Watcher(executor)
        self.count = 0

    def spec(self, script: str, **fields: Any) -> RunSpec:
        self.count += 1
        log = self.place.data / f"{self.count}.log"
        inputs = [Input(SCRIPT, data=(AHEAD + script).encode()), *fields.pop("inputs", ())]
        return RunSpec(
            f"run-{self.count}", [PYTHON, SCRIPT, "a", "b c"], fields.pop("env", ENV), inputs=inputs, warm=[PYTHON, "decimal"],
            instances=[Instance(log=str(log))], outputs=[Output("ahead", "/opt/ml/ahead", always=True)],
            blobs=str(self.place.data / "blobs"), grace_s=30.0, **fields,
        )  # fmt: skip

    def run(self, spec: RunSpec) -> tuple[RunState, str]:
        self.executor.start(spec)
        state = self.watcher.wait(spec.name, ENDED)
        lines = Path(spec.instances[0].log).read_text().splitlines()
        return state, "\n".join(line.partition(" ")[2] for line in lines)

    def wait_for_spare(self, spec: RunSpec) -> None:
        """Until there is one that a run like this can take."""
        wait_for(lambda: spares.kind_of(spec) in runner.ask(self.place.data, {"op": "ping"})["spares"])

    def waiting(self) -> list[int]:
        """The pids of the Pythons that wait."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if spares.PLACE.encode() in words and b"--args" not in words:
                found.append(int(entry.name))
        return [pid for pid in found if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        while pid > 1:
            if pid == self.place.process.pid:
                return True
            try:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                return False
        return False

    def warm_up(self, **fields: Any) -> None:
        """Has a spare made, by a run that one could have been taken for."""
        self.run(spec := self.spec("", **fields))
        self.wait_for_spare(spec)

    def kill_spares(self) -> None:
        def killed() -> bool:
            pids = self.waiting()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return not pids

        wait_for(killed)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with local_executor(tmp_path_factory.mktemp("spares")) as (executor, place):
        yield Stage(executor, place)


def wait_for(found: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ahead(state: RunState) -> bool:
    """Whether a spare was taken."""
    [result] = state.results
    assert result.inline in (b"True", b"False")
    return result.inline == b"True"


def both(stage: Stage, script: str, **fields: Any) -> tuple[tuple[RunState, str], tuple[RunState, str]]:
    """A run started anew, and by a spare."""
    anew = stage.run(replace(stage.spec(script, **fields), warm=[]))
    stage.warm_up(**fields)
    by_spare = stage.run(stage.spec(script, **fields))
    assert not ahead(anew[0])
    assert ahead(by_spare[0])
    return anew, by_spare


def test_a_program_cannot_tell_that_its_python_had_waited(stage: Stage) -> None:
    (anew, told_anew), (by_spare, told) = both(stage, TELLING, env=ENV | {"SM_JOB": "one", "PYTHONPATH": "/opt/ml/code:/opt/x"})
    assert told == told_anew
    assert "of the script" in told_anew
    assert told_anew.endswith("at the end")
    assert (by_spare.exit_code, by_spare.reason) == (anew.exit_code, anew.reason) == (1, "exit")


@pytest.mark.parametrize(
    "ending", ["sys.exit(3)", "sys.exit('a sentence')", "import os; os.kill(os.getpid(), 9)", "raise KeyboardInterrupt", "pass"]
)
def test_it_ends_as_it_would_have(stage: Stage, ending: str) -> None:
    (anew, told_anew), (by_spare, told) = both(stage, f"{ending}\n")
    assert (by_spare.exit_code, by_spare.reason, told) == (anew.exit_code, anew.reason, told_anew)


def test_it_hears_sigterm(stage: Stage) -> None:
    stage.warm_up()
    handler = "import signal, time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('ready', flush=True)\ntime.sleep(600)\n"
    spec = stage.spec(handler)
    stage.executor.start(spec)
    stage.watcher.wait(spec.name, RUNNING)
    wait_for(lambda: "ready" in Path(spec.instances[0].log).read_text())
    stage.executor.stop(spec.name)
    state = stage.watcher.wait(spec.name, ENDED)
    assert (state.exit_code, state.reason, ahead(state)) == (7, "stopped", True)


def test_its_memory_is_limited(stage: Stage) -> None:
    fields = {"memory_bytes": 64 << 20}
    (anew, _), (by_spare, _) = both(stage, "x = bytearray(200 << 20)\nimport time; time.sleep(5)\n", **fields)
    assert by_spare.reason == anew.reason == "memory"


def test_its_time_is_limited(stage: Stage) -> None:
    (anew, _), (by_spare, _) = both(stage, "import time; time.sleep(600)\n", timeout_s=0.5)
    assert (by_spare.reason, by_spare.exit_code) == (anew.reason, anew.exit_code) == ("timeout", 143)


@pytest.mark.parametrize(
    "fields",
    [
        {"env": ENV | {"OMP_NUM_THREADS": "7"}},
        {"mounts": [Mount("/usr/share", "/opt/share")]},
        {"memory_bytes": 3 << 30},
    ],
    ids=["variables", "mounts", "memory"],
)  # fmt: skip
def test_a_run_of_another_kind_takes_no_spare(stage: Stage, fields: dict[str, Any]) -> None:
    stage.warm_up()
    assert not ahead(stage.run(stage.spec("", **fields))[0])


def test_a_file_beside_the_script_covers_a_module_as_ever(stage: Stage) -> None:
    stage.warm_up()
    own = Input("/opt/ml/code/decimal.py", data=b"print('my own')\n")
    state, told = stage.run(stage.spec("import decimal\n", inputs=[own]))
    assert (told, ahead(state)) == ("my own", False)


def test_a_script_that_names_no_module_is_started_anew(stage: Stage) -> None:
    stage.warm_up()
    spec = stage.spec("")
    spec.inputs[0].data = b"import sys; open('/opt/ml/ahead', 'w').write(str('deci' + 'mal' in sys.modules))"
    assert not ahead(stage.run(spec)[0])


def test_an_import_that_says_something_says_it_in_each_log(stage: Stage) -> None:
    noisy = Input("/opt/lib/noisy.py", data=b"import decimal\nprint('listen')\n")
    path = "import sys; sys.path.append('/opt/lib')\nimport noisy\n"
    fields: dict[str, Any] = {"inputs": [noisy]}
    stage.warm_up(**fields)
    spec = stage.spec(path, **fields)
    spec.warm = [PYTHON, "this", "decimal"]
    stage.run(spec)  # has a spare made that hears what `this` prints
    stage.wait_for_spare(spec)
    again = stage.spec(path, **fields)
    again.warm = spec.warm
    state, told = stage.run(again)
    assert (told, ahead(state)) == ("listen", False)


def test_a_spare_that_was_killed_is_nobodys_loss(stage: Stage) -> None:
    stage.warm_up()
    stage.kill_spares()
    state, _ = stage.run(stage.spec(""))
    assert (state.exit_code, state.attempt, ahead(state)) == (0, 1, False)


def test_a_killed_supervisor_takes_its_spare_along(stage: Stage) -> None:
    stage.warm_up()

    def gone() -> bool:
        pids = stage.waiting()
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(_supervisor_of(pid), signal.SIGKILL)
        return not pids

    wait_for(gone)
    state, _ = stage.run(stage.spec(""))
    assert (state.exit_code, state.attempt) == (0, 1)


def _supervisor_of(pid: int) -> int:
    """The parent of the bubblewrap outside, which is the parent of the one inside."""
    for _ in range(3):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    if Path(f"/proc/{pid}/comm").read_text() != "penstock-run\n":
        raise ProcessLookupError("it is gone, and its children are somebody else's")
    return pid


def test_the_next_spare_is_there_for_the_next_run(stage: Stage) -> None:
    stage.warm_up()
    spec = stage.spec("")
    assert ahead(stage.run(spec)[0])
    stage.wait_for_spare(spec)
    assert ahead(stage.run(stage.spec(""))[0])


@pytest.mark.parametrize("minor", [minor for minor in list_minors(dict(os.environ)) if minor != "3.6"])
def test_every_python_becomes_the_script_it_is_told_of(minor: str, tmp_path: Path) -> None:
    found = find_interpreter(minor, dict(os.environ))
    assert found is not None
    (tmp_path / "sitecustomize.py").write_bytes(spares.START.read_bytes())
    script = tmp_path / "script.py"
    script.write_text("# decimal\n" + TELLING.replace(" os.nice(0), os.umask(0),", ""))
    command = [found.path, str(script), "a", "b c"]
    env = {"PATH": "/usr/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    anew = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    ours, theirs = socket.socketpair()
    order = os.memfd_create("order", 0)
    with ours, theirs, subprocess.Popen(
        [found.path, spares.PLACE, str(theirs.fileno()), str(order), "decimal"], env=env | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", pass_fds=[theirs.fileno(), order],
    ) as process:  # fmt: skip
        theirs.close()
        os.write(order, json.dumps({"command": command, "env": env, "cwd": "/"}).encode())
        os.close(order)
        ours.send(b"!")
        told, failed = process.communicate(timeout=60)
    assert [_plain(line) for line in told.splitlines()] == [_plain(line) for line in anew.stdout.splitlines()]
    assert (failed, process.returncode) == (anew.stderr, anew.returncode)


def _plain(line: str) -> str:
    """Without pids."""
    return "" if line.startswith("['1'") else line.rpartition(" / ")[0] if " / " in line else line
