"""What a run on this machine meets: limits, signals, logs, networks, mounts, outputs. One runner for the module."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import ENV, PYTHON, Watcher, local_executor

from penstock.kernel import inside
from penstock.runs import handout, limits, sandbox
from penstock.runs.base import ENDED, RUNNING, Input, Instance, Mount, Output, RunSpec, RunState
from penstock.runs.local import LocalExecutor

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
MB = 1 << 20


class Runs:
    """Runs of the module's executor."""

    def __init__(self, executor: LocalExecutor, data: Path):
        self.executor, self.data, self.watch = executor, data, Watcher(executor)
        self.blobs = data / "blobs"

    def shell(self, name: str, script: str, **fields: Any) -> RunSpec:
        return RunSpec(name, ["/bin/sh", "-c", script], dict(ENV), blobs=str(self.blobs), **fields)

    def python(self, name: str, script: str, **fields: Any) -> RunSpec:
        return RunSpec(name, [PYTHON, "-c", script], dict(ENV), blobs=str(self.blobs), **fields)

    def run(self, spec: RunSpec) -> RunState:
        self.executor.start(spec)
        return self.watch.wait(spec.name, ENDED)

    def log(self, name: str, host: str = "algo-1") -> list[str]:
        lines = (self.data / "runs" / name / f"{host}.log").read_text().splitlines()
        return [line.split(" ", 1)[1] for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    data = tmp_path_factory.mktemp("runs")
    with local_executor(data) as (executor, _):
        yield Runs(executor, data)


# --- ends


def test_a_signal_is_128_and_its_number(runs: Runs) -> None:
    assert runs.run(runs.shell("signal", "kill -11 $$")).exit_code == 139


def test_a_program_that_is_not_there_is_told_by_its_name(runs: Runs) -> None:
    state = runs.run(RunSpec("nothing", ["no-such-program"], dict(ENV)))
    assert (state.reason, state.exit_code) == ("sandbox", 125)
    assert "no-such-program" in state.message


def test_a_mount_that_is_not_there_is_told_by_its_path(runs: Runs) -> None:
    state = runs.run(runs.shell("unmounted", "true", mounts=[Mount("/no/such/folder", "/opt/x")]))
    assert state.reason == "sandbox"
    assert "/no/such/folder" in state.message


def test_an_input_that_is_not_there_is_told_by_its_path(runs: Runs) -> None:
    state = runs.run(runs.shell("no-blob", "true", inputs=[Input("/opt/ml/x", blob="/no/such/blob")]))
    assert state.reason == "sandbox"
    assert "/no/such/blob" in state.message


@pytest.mark.parametrize("value", ["x\0--bind\0/\0/host", "\0"])
def test_an_environment_with_a_nul_never_becomes_options_of_bubblewrap(runs: Runs, value: str) -> None:
    spec = runs.shell(f"nul-{len(value)}", "true")
    spec.env["CRAFTED"] = value
    state = runs.run(spec)
    assert (state.reason, "NUL" in state.message) == ("sandbox", True)


@pytest.mark.parametrize("target", ["opt/x", "/opt/../etc/x", "/opt//x", "/a\0b"])
def test_an_input_with_a_crooked_target_is_refused(runs: Runs, target: str) -> None:
    name = f"crooked-{hashlib.md5(target.encode()).hexdigest()}"
    assert runs.run(runs.shell(name, "true", inputs=[Input(target, data=b"")])).reason == "sandbox"


def test_an_archive_of_another_user_is_unpacked_by_tar(runs: Runs) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("made-elsewhere")
        member.uid = member.gid = 503
        tar.addfile(member)
    spec = runs.shell("chown", "cd /opt && tar -xf /opt/in.tar", inputs=[Input("/opt/in.tar", data=packed.getvalue())])
    nothing: dict[str, str] = {}
    own = inside.run_environment(
        region="r", key=None, hosts=(), certificates=False, image=nothing, packages=nothing, own=nothing, given=ENV, cpus=1
    )
    spec.env.update(own)
    assert runs.run(spec).exit_code == 0


def test_a_timeout_asks_first_and_kills_after_the_grace(runs: Runs) -> None:
    script = """
import signal, time
signal.signal(15, lambda *_: print('asked', flush=True))
print('on', flush=True)
while 1: time.sleep(9)
"""
    state = runs.run(runs.python("timeout", script, timeout_s=0.4, grace_s=0.3))
    assert (state.reason, state.exit_code) == ("timeout", 137)
    assert runs.log("timeout") == ["on", "asked"]
    assert 0.5 < state.ended - state.started < 5


def test_a_stop_lets_the_program_end_in_its_own_way(runs: Runs) -> None:
    script = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('on', flush=True); time.sleep(60)"
    )
    runs.executor.start(runs.python("own-way", script))
    runs.watch.wait("own-way", RUNNING)
    while not runs.log("own-way"):
        time.sleep(0.01)
    runs.executor.stop("own-way")
    state = runs.watch.wait("own-way", ENDED)
    assert (state.reason, state.exit_code) == ("stopped", 7)


def test_children_left_behind_die_with_the_program(runs: Runs) -> None:
    state = runs.run(runs.shell("orphans", "sleep 600 & sleep 600 & exit 0"))
    assert state.exit_code == 0
    assert state.ended - state.started < 5


def test_usage_is_told(runs: Runs) -> None:
    if not limits.find_means(take=False).memory:
        pytest.skip("without cgroups nobody counts what a short run uses")
    state = runs.run(runs.python("usage", "x = bytearray(60_000_000); sum(range(2_000_000))"))
    assert state.usage["cpu_s"] > 0.01
    assert state.usage["peak_memory_bytes"] > 50_000_000


# --- limits


def test_too_much_memory_ends_the_run_with_that_reason(runs: Runs) -> None:
    state = runs.run(
        runs.python("memory", "x = bytearray(300_000_000); import time; time.sleep(30)", memory_bytes=128 * MB)
    )
    assert state.reason == "memory"


@pytest.mark.skipif(not limits.find_means(take=False).memory, reason="no cgroup holds memory here")
def test_a_program_whose_limits_cannot_be_set_is_ended(runs: Runs) -> None:
    state = runs.run(runs.shell("unlimited", "sleep 20", memory_bytes=-5))  # refused by the kernel: EINVAL
    assert (state.exit_code, state.reason) == (125, "sandbox")
    assert state.message.startswith("The limits of memory and processors could not be set: ")
    assert runs.log("unlimited") == [f"penstock: {state.message}"]


def test_a_fork_bomb_stays_in_its_run(runs: Runs) -> None:
    script = """
import os, time
try:
    while True:
        if not os.fork(): time.sleep(60); os._exit(0)
except OSError as e: print('stopped', e.errno)
"""
    state = runs.run(runs.python("bomb", script, timeout_s=1, grace_s=0.2, memory_bytes=192 * MB))
    assert state.reason in ("", "memory", "exit", "timeout")
    assert state.ended - state.started < 10


def test_a_supervisor_without_room_for_a_thread_does_without(runs: Runs) -> None:
    """The program has taken all the processes of the cell that its supervisor is still in."""
    if "pids" not in limits.find_means(take=False).folders:
        pytest.skip("no cgroup counts processes here")
    script = """
import os, time
try:
    while True:
        if not os.fork(): time.sleep(60); os._exit(0)
except OSError: time.sleep(0.5); os._exit(3)
"""
    state = runs.run(runs.python("no-thread", script, processes=24, memory_bytes=512 * MB))
    assert (state.reason, state.exit_code) == ("exit", 3)


def test_too_much_on_disk_ends_the_run_with_that_reason(runs: Runs) -> None:
    script = "head -c 30000000 /dev/zero > /opt/ml/big; sleep 60"
    assert runs.run(runs.shell("disk", script, disk_bytes=10 * MB)).reason == "disk"


def test_too_many_files_end_the_run_with_that_reason(runs: Runs) -> None:
    script = "mkdir /tmp/x; cd /tmp/x; seq 2000 | xargs touch; sleep 60"
    state = runs.run(runs.shell("files", script, disk_bytes=16 * MB))
    assert (state.reason, state.message) == ("disk", "It made more than 1024 files.")
    assert runs.log("files")[-1] == "penstock: It made more than 1024 files."


def test_a_full_shared_memory_is_an_error_inside(runs: Runs) -> None:
    state = runs.run(runs.shell("shm", "head -c 200000000 /dev/zero > /dev/shm/x", memory_bytes=256 * MB))
    assert state.exit_code != 0


def test_programs_run_niced(runs: Runs) -> None:
    runs.run(runs.python("nice", "import os; print(os.nice(0))"))
    assert int(runs.log("nice")[0]) == os.nice(0) + 5


# --- logs


def test_lines_carry_their_moment_and_come_in_order(runs: Runs) -> None:
    began = time.time()
    runs.run(runs.shell("lines", "echo one; echo two >&2; printf three"))
    raw = (runs.data / "runs" / "lines" / "algo-1.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in raw] == ["one", "two", "three"]
    assert all(began - 1 <= int(line.split(" ")[0]) / 1000 <= time.time() + 1 for line in raw)


def test_a_long_line_is_split(runs: Runs) -> None:
    runs.run(runs.python("long", "print('x' * 600_000)"))
    assert [len(line) for line in runs.log("long")] == [262_144, 262_144, 600_000 - 524_288]


def test_a_full_log_is_cut_with_a_sentence_and_the_last_lines_are_told_all_the_same(runs: Runs) -> None:
    script = "yes 0123456789 | head -n 300000; echo why it failed; exit 1"
    state = runs.run(runs.shell("full-log", script, log_bytes=MB))
    assert (state.exit_code, state.tail[-1]) == (1, "why it failed")
    lines = runs.log("full-log")
    assert lines[-1] == "penstock: this log is full; nothing more is kept"
    assert (runs.data / "runs" / "full-log" / "algo-1.log").stat().st_size < 2 * MB


def test_a_log_may_lie_anywhere_and_is_appended_to(runs: Runs) -> None:
    path = runs.data / "logs-of-mine" / "stream"
    path.parent.mkdir()
    path.write_text("1 before\n")
    runs.run(runs.shell("elsewhere", "echo after", instances=[Instance(log=str(path))]))
    assert path.read_text().endswith(" after\n")
    assert path.read_text().startswith("1 before\n")


def test_bytes_that_are_no_text_stay_as_they_are(runs: Runs) -> None:
    runs.run(runs.shell("bytes", "printf '\\377\\n'"))
    assert b" \xff\n" in (runs.data / "runs" / "bytes" / "algo-1.log").read_bytes()


# --- what is inside


def test_inputs_folders_and_the_working_folder_are_there(runs: Runs) -> None:
    spec = runs.shell(
        "inside", "pwd; cat config/a.json; test -d /opt/ml/model && test -x run.sh && ./run.sh", cwd="/opt/ml/input"
    )
    spec.inputs = [
        Input("/opt/ml/input/config/a.json", data=b'{"a": 1}\n'),
        Input("/opt/ml/input/run.sh", data=b"#!/bin/sh\necho ran\n", mode=0o755),
    ]
    spec.folders = ["/opt/ml/model"]
    assert runs.run(spec).exit_code == 0
    assert runs.log("inside") == ["/opt/ml/input", '{"a": 1}', "ran"]


def test_an_interpreter_of_ones_home_and_an_environment_work_together(runs: Runs, tmp_path: Path) -> None:
    prefix = os.path.realpath(sys.base_prefix)
    python = os.path.realpath(sys.executable)
    packages = tmp_path / "env"
    packages.mkdir()
    (packages / "mine.py").write_text("value = 42\n")
    mounts = [Mount("/opt/environment", "/opt/environment", "overlay"), Mount(prefix, prefix)]
    mounts[0].source = str(packages)
    script = "import mine, sys; print(mine.value); open('/opt/environment/new.py', 'w').write('x = 1'); import new; print(new.x)"
    spec = RunSpec("interpreter", [python, "-c", script], ENV | {"PYTHONPATH": "/opt/environment"}, mounts=mounts)
    state = runs.run(spec)
    assert state.exit_code == 0, state
    assert runs.log("interpreter") == ["42", "1"]
    assert os.listdir(packages) == ["mine.py"]


def test_credentials_are_not_on_a_command_line(runs: Runs) -> None:
    spec = runs.shell("secret", "sleep 60")
    spec.env["AWS_SECRET_ACCESS_KEY"] = "very-secret-word"
    runs.executor.start(spec)
    runs.watch.wait("secret", RUNNING)
    lines = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines.append(Path(f"/proc/{name}/cmdline").read_bytes())
        except OSError:
            continue
    runs.executor.stop("secret")
    runs.watch.wait("secret", ENDED)
    assert any(b"--json-status-fd" in line for line in lines)
    assert not any(b"very-secret-word" in line for line in lines)
    assert (runs.data / "runs" / "secret" / "spec.json").stat().st_mode & 0o077 == 0


def test_a_library_to_preload_is_for_the_program_only(runs: Runs) -> None:
    spec = runs.shell("preload", "echo $LD_PRELOAD")
    spec.env["LD_PRELOAD"] = "/no/such/library.so"
    runs.run(spec)
    assert "/no/such/library.so" in runs.log("preload")


def test_nothing_is_left_but_records_and_logs(runs: Runs) -> None:
    runs.run(runs.shell("tidy", "mkdir /opt/ml/x; chmod 000 /opt/ml/x; mkdir -p /a/b/c; chmod 500 /a/b"))
    folder = runs.data / "runs" / "tidy"
    deadline = time.monotonic() + 10
    while (folder / "1").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(os.listdir(folder)) <= {"spec.json", "lock", "running", "exit.json", "algo-1.log", "cell"}


# --- outputs


def test_a_large_output_becomes_a_blob_without_its_bytes_being_copied(runs: Runs) -> None:
    script = "head -c 20000000 /dev/urandom > /opt/ml/out/big; ls -i /opt/ml/out/big"
    state = runs.run(runs.shell("big", script, outputs=[Output("out", "/opt/ml/out")], folders=["/opt/ml/out"]))
    (result,) = state.results
    blob = runs.blobs / result.sha256[:2] / result.sha256
    data = blob.read_bytes()
    assert (result.size_bytes, result.inline) == (20_000_000, None)
    assert hashlib.sha256(data).hexdigest() == result.sha256
    assert hashlib.md5(data).hexdigest() == result.md5
    assert str(blob.stat().st_ino) == runs.log("big")[-1].split()[0]
    assert (blob.stat().st_mode & 0o777, blob.stat().st_uid) == (0o644, os.geteuid())


def test_the_same_bytes_twice_are_one_blob(runs: Runs) -> None:
    script = "head -c 100000 /dev/zero > /opt/ml/a; cp /opt/ml/a /opt/ml/b; ln /opt/ml/a /opt/ml/c"
    state = runs.run(runs.shell("same", script, outputs=[Output("out", "/opt/ml")]))
    assert [r.key for r in state.results] == ["a", "b", "c"]
    assert len({r.sha256 for r in state.results}) == 1


def test_an_untouched_input_can_be_an_output(runs: Runs) -> None:
    blob = runs.data / "a-blob"
    blob.write_bytes(b"z" * 100_000)
    spec = runs.shell(
        "untouched", "true", outputs=[Output("out", "/opt/ml/in")], inputs=[Input("/opt/ml/in/x", blob=str(blob))]
    )
    (result,) = runs.run(spec).results
    assert (runs.blobs / result.sha256[:2] / result.sha256).read_bytes() == b"z" * 100_000


def test_thousands_of_files_are_taken(runs: Runs) -> None:
    script = "import os\nfor n in range(3000): open(f'/opt/ml/out/{n:04}', 'w').write('x' * (n % 7))"
    state = runs.run(runs.python("many", script, outputs=[Output("out", "/opt/ml/out")], folders=["/opt/ml/out"]))
    assert [r.key for r in state.results] == [f"{n:04}" for n in range(3000)]


def test_many_large_files_are_taken(runs: Runs) -> None:
    script = "import os\nfor n in range(300): open(f'/opt/ml/out/{n:04}', 'wb').write(os.urandom(70_000))"
    state = runs.run(runs.python("heavy", script, outputs=[Output("out", "/opt/ml/out")], folders=["/opt/ml/out"]))
    assert len(state.results) == 300
    assert all((runs.blobs / r.sha256[:2] / r.sha256).stat().st_size == 70_000 for r in state.results)


def test_names_that_are_no_utf8_and_deep_trees_are_taken(runs: Runs) -> None:
    script = """
import os
deep = '/opt/ml/out/' + '/'.join('d' * 100)
os.makedirs(deep)
open(deep + '/f', 'w').write('deep')
open(b'/opt/ml/out/\\xff', 'w').write('odd')
"""
    state = runs.run(runs.python("odd", script, outputs=[Output("out", "/opt/ml/out")]))
    assert {r.inline for r in state.results} == {b"deep", b"odd"}


def test_a_source_that_is_a_link_gives_nothing(runs: Runs) -> None:
    state = runs.run(runs.shell("linked", "ln -s /etc /opt/ml/out", outputs=[Output("out", "/opt/ml/out")]))
    assert (state.exit_code, state.results) == (0, [])


@pytest.mark.parametrize(
    ("source", "kind"), [("/opt/ml/out", "files"), ("/opt/ml/out", "tar.gz"), ("/opt/ml/out/x", "files")]
)
def test_a_file_of_holes_is_not_read_for_days(runs: Runs, source: str, kind: str) -> None:
    script = "mkdir -p /opt/ml/out; truncate -s 8T /opt/ml/out/x"
    output = Output("out", source, kind, always=True)
    state = runs.run(runs.shell(f"holes-{kind}-{len(source)}", script, outputs=[output], disk_bytes=1 << 30))
    assert (state.reason, state.results) == ("disk", [])


def test_archives_keep_links_that_stay_inside_only(runs: Runs) -> None:
    script = "cd /opt/ml/model; echo m > m; ln -s m good; ln -s /etc/passwd bad; ln -s ../../x worse; mkdir d; ln -s ../m d/up; mkfifo pipe"
    output = Output("model", "/opt/ml/model", "tar.gz")
    (result,) = runs.run(runs.shell("links", script, outputs=[output], folders=["/opt/ml/model"])).results
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(result.inline or b""))) as tar:
        assert sorted(tar.getnames()) == ["d", "d/up", "good", "m"]


def test_what_a_root_shows_of_the_host_is_read_only_and_without_devices(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("as it was")
    (tmp_path / "alone").write_text("alone")
    mounts = [Mount(str(tmp_path / "given"), "/opt/given"), Mount(str(tmp_path / "alone"), "/opt/file")]
    script = (
        "awk '{print $5, $6}' /proc/self/mountinfo; cat /opt/given/file /opt/file; echo; echo no > /opt/given/file; "
        "mkdir /opt/given/more; touch /usr/more; echo no > /opt/file; cat /opt/given/file"
    )
    state, lines = runs.run(runs.shell("shown", script, mounts=mounts)), runs.log("shown")
    shown = dict(line.split() for line in lines if line.startswith("/") and " r" in line and ":" not in line)
    for target in ("/usr", "/opt/given", "/opt/file", "/sys/devices/system/cpu"):
        assert {"ro", "nosuid", "nodev"} <= set(shown[target].split(",")), (target, shown[target])
    assert {"nosuid", "nodev"} <= set(shown["/"].split(","))
    assert ("as it wasalone" in lines, lines[-1], state.exit_code) == (True, "as it was", 0)
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["file"]


def test_a_mount_whose_way_goes_through_a_link_of_a_layer_covers_nothing_outside_the_root(
    runs: Runs, tmp_path: Path
) -> None:
    layer, outside = tmp_path / "layer", tmp_path / "outside"
    (layer / "opt").mkdir(parents=True)
    (outside / "in").mkdir(parents=True)
    (outside / "in" / "own").write_text("own")
    (layer / "opt" / "away").symlink_to(outside)
    (tmp_path / "given").mkdir()
    spec = runs.shell("led-away", "true", layers=[str(layer)], mounts=[Mount(str(tmp_path / "given"), "/opt/away/in")])
    runs.run(spec)
    after = runs.run(runs.shell("after", "true", mounts=[Mount(str(outside), "/opt/outside")]))
    assert (after.exit_code, [path.name for path in (outside / "in").iterdir()]) == (0, ["own"])


def test_a_run_finds_nothing_of_what_the_one_before_it_wrote_into_the_same_folders(runs: Runs) -> None:
    given = [Input("/opt/ml/config/a.json", data=b"{}")]
    script = "cat /opt/ml/config/a.json; find /opt/ml -type f; touch /opt/ml/output/x /opt/ml/new; echo 1 > /opt/ml/config/a.json"
    for name in ("first-of-two", "second-of-two"):
        state = runs.run(runs.shell(name, script, inputs=given, folders=["/opt/ml/output"]))
        assert (state.exit_code, runs.log(name)) == (0, ["{}/opt/ml/config/a.json"])


def test_equal_folders_give_equal_archives(runs: Runs) -> None:
    script = (
        "mkdir -p /opt/ml/model/b /opt/ml/model/a; echo 1 > /opt/ml/model/b/1; sleep 0.0%d; echo 2 > /opt/ml/model/a/2"
    )
    output = Output("model", "/opt/ml/model", "tar.gz")
    one, two = (runs.run(runs.shell(f"equal-{n}", script % n, outputs=[output])).results[0].sha256 for n in (1, 2))
    assert one == two


def test_a_message_is_cut_and_never_read_through_a_link(runs: Runs) -> None:
    cut = runs.run(
        runs.python(
            "message", "open('/opt/failure', 'w').write('é' * 3000); raise SystemExit(1)", message_file="/opt/failure"
        )
    )
    linked = runs.run(runs.shell("no-message", "ln -s /etc/passwd /opt/failure; exit 1", message_file="/opt/failure"))
    assert cut.message == "é" * 1024
    assert linked.message == ""


# --- networks


class Front:
    """Stands for the server: takes what supervisors hand out, answers each call with its number."""

    def __init__(self, path: Path, number: int):
        self.number, self.messages = number, []
        self.calls: list[str] = []
        self.closed = False
        self._listening = handout.listen(path)
        self._open: list[socket.socket] = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            while (message := handout.receive(connection)) is not None:
                info, descriptors = message
                self.messages.append((info, descriptors, connection))
                if info["kind"] == "listen":
                    listening = socket.socket(fileno=descriptors[0])
                    self._open.append(listening)
                    threading.Thread(target=self._answer, args=(listening, info), daemon=True).start()
        except OSError:
            return

    def _answer(self, listening: socket.socket, info: dict[str, Any]) -> None:
        listening.settimeout(0.02)
        while not self.closed:
            try:
                caller, _ = listening.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with caller:
                caller.setblocking(True)
                self.calls.append(caller.recv(100).decode())
                caller.sendall(f"{self.number} {info['instance']}".encode())

    def close(self) -> None:
        """Dies: all that it holds is closed (the sockets inside are open all the same, for the supervisors hold them)."""
        self.closed = True
        time.sleep(0.05)
        for each in self._open:
            if each.family == socket.AF_UNIX:  # a thread reads from it: closing alone would be no end
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            each.close()


CALL = """
import socket
connection = socket.create_connection(('127.0.0.1', 4600), 20)
connection.sendall(b'hello')
print(connection.recv(100).decode(), flush=True)
"""


@pytest.fixture
def front(runs: Runs) -> Iterator[Callable[[int], Front]]:
    made: list[Front] = []

    def make(number: int) -> Front:
        made.append(Front(runs.data / "sockets" / "front.sock", number))
        return made[-1]

    yield make
    for each in made:
        each.close()
    (runs.data / "sockets" / "front.sock").unlink(missing_ok=True)


def test_a_call_waits_while_no_server_is_there(runs: Runs, front: Callable[[int], Front]) -> None:
    runs.executor.start(runs.python("waits", CALL))
    runs.watch.wait("waits", RUNNING)
    time.sleep(0.15)
    front(1)
    assert runs.watch.wait("waits", ENDED).exit_code == 0
    assert runs.log("waits") == ["1 algo-1"]


def test_a_run_that_calls_and_finds_no_server_for_too_long_ends_where_it_says_so(runs: Runs) -> None:
    state = runs.run(runs.python("alone", CALL.replace(", 20)", ")"), alone_s=0.01))
    assert (state.reason, runs.log("alone")) == ("stopped", [])


def test_sockets_are_handed_out_when_the_first_call_comes(runs: Runs, front: Callable[[int], Front]) -> None:
    server = front(1)
    assert runs.run(runs.python("silent", "print('no call')")).exit_code == 0
    assert runs.run(runs.python("calls", CALL + CALL)).exit_code == 0
    assert runs.log("calls") == ["1 algo-1", "1 algo-1"]
    assert [info["run"] for info, _, _ in server.messages] == ["calls"]


def test_after_a_restart_of_the_server_calls_go_to_the_new_one(runs: Runs, front: Callable[[int], Front]) -> None:
    first = front(1)
    script = CALL + "import time; time.sleep(0.5)\n" + CALL
    runs.executor.start(runs.python("restart", script))
    while not first.calls:
        time.sleep(0.01)
    first.close()
    front(2)
    assert runs.watch.wait("restart", ENDED).exit_code == 0
    assert runs.log("restart")[-1] == "2 algo-1"


def test_the_server_reaches_a_program_on_its_own_port(runs: Runs, front: Callable[[int], Front]) -> None:
    server = front(1)
    script = """
import socket
server = socket.create_server(('127.0.0.1', 8080))
print('up', flush=True)
server.accept()[0].sendall(b'prediction')
"""
    runs.executor.start(runs.python("serves", script, port=8080))
    runs.watch.wait("serves", RUNNING)
    while not any(info["kind"] == "listen" for info, _, _ in server.messages):
        time.sleep(0.01)
    while not runs.log("serves"):
        time.sleep(0.01)
    server.messages[0][2].sendall(b'{"dial": 3}\n')
    while not any(info["kind"] == "dial" for info, _, _ in server.messages):
        time.sleep(0.01)
    info, descriptors, _ = next(m for m in server.messages if m[0]["kind"] == "dial")
    assert (info["run"], len(descriptors)) == ("serves", 3)
    with socket.socket(fileno=descriptors[0]) as dialling:
        dialling.connect(("127.0.0.1", 8080))
        assert dialling.recv(100) == b"prediction"
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    assert runs.watch.wait("serves", ENDED).exit_code == 0


def test_without_network_even_our_ports_are_closed(runs: Runs) -> None:
    state = runs.run(runs.python("isolated", CALL, network=False))
    assert state.exit_code == 1
    assert any("Connection refused" in line for line in state.tail)


def test_instances_find_each_other_by_name(runs: Runs, front: Callable[[int], Front]) -> None:
    front(1)
    script = """
import json, socket, sys, time
host = socket.gethostname()
if host == "algo-1":
    server = socket.create_server(("algo-1", 7777))
    for _ in range(2):
        caller, address = server.accept()
        print(caller.recv(100).decode(), flush=True)
else:
    for _ in range(100):
        try:
            connection = socket.create_connection(("algo-1", 7777), 5)
            break
        except OSError:
            time.sleep(0.05)
    connection.sendall(f"hello from {host}".encode())
"""
    spec = runs.python(
        "several", script + CALL, instances=[Instance(f"algo-{n}") for n in (1, 2, 3)], cpus=1, timeout_s=30
    )
    state = runs.run(spec)
    assert (state.exit_code, state.reason) == (0, ""), state
    assert sorted(runs.log("several")[:2]) == ["hello from algo-2", "hello from algo-3"]
    assert [runs.log("several", f"algo-{n}")[-1] for n in (1, 2, 3)] == ["1 algo-1", "1 algo-2", "1 algo-3"]


def test_when_one_instance_fails_the_others_are_stopped(runs: Runs) -> None:
    script = "test $(hostname) = algo-2 && { echo broken; exit 9; }; sleep 60"
    spec = runs.shell("one-fails", script, instances=[Instance("algo-1"), Instance("algo-2")])
    state = runs.run(spec)
    assert (state.exit_code, state.reason, state.tail) == (9, "exit", ["broken"])
    assert state.ended - state.started < 10


def test_outputs_of_all_instances_are_taken(runs: Runs) -> None:
    spec = runs.shell(
        "merged",
        "mkdir -p /opt/ml/out; hostname > /opt/ml/out/$(hostname); echo x > /opt/ml/out/same",
        instances=[Instance("algo-1"), Instance("algo-2")],
        outputs=[Output("out", "/opt/ml/out"), Output("tar", "/opt/ml/out", "tar.gz")],
    )
    state = runs.run(spec)
    assert [r.key for r in state.results if r.output == "out"] == ["algo-1", "same", "algo-2"]
    archive = next(r for r in state.results if r.output == "tar")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive.inline or b""))) as tar:
        assert sorted(tar.getnames()) == ["algo-1", "algo-2", "same"]


def test_the_exit_record_is_json_that_a_person_can_read(runs: Runs) -> None:
    runs.run(runs.shell("readable", "exit 5"))
    record = json.loads((runs.data / "runs" / "readable" / "exit.json").read_text())
    assert record["exit_code"] == 5


# --- layers


def test_what_a_run_wrote_is_a_layer_for_others(runs: Runs, tmp_path: Path) -> None:
    """Files, deletions, and what was written into a writable mount."""
    below = tmp_path / "below"
    (below / "data").mkdir(parents=True)
    (below / "data" / "old").write_text("old")
    tool = tmp_path / "tool"
    tool.mkdir()
    (tool / "theirs").write_text("theirs")
    shared: dict[str, Any] = {"mounts": [Mount(str(tool), "/opt/tool", "overlay")], "own_local": True}
    script = (
        "rm /data/old; echo new > /data/new; echo mine > /opt/tool/mine; rm /opt/tool/theirs; echo x > /usr/local/bin/x"
    )
    state = runs.run(runs.shell("lays", script, layers=[str(below)], keep=True, **shared))
    assert (state.reason, state.exit_code) == ("", 0), runs.log("lays")
    layer = runs.data / "runs" / "lays" / "layer"
    script = "ls /data /opt/tool; cat /usr/local/bin/x; test ! -e /data/old"
    state = runs.run(runs.shell("stands", script, layers=[str(layer), str(below)], **shared))
    assert (state.reason, state.exit_code) == ("", 0), runs.log("stands")
    assert runs.log("stands") == ["/data:", "new", "", "/opt/tool:", "mine", "x"]
    assert sorted(path.name for path in below.rglob("*")) == ["data", "old"]
    assert (tool / "theirs").read_text() == "theirs"


def test_a_run_that_failed_leaves_no_layer(runs: Runs) -> None:
    runs.run(runs.shell("fails-to-lay", "echo x > /x; exit 1", keep=True))
    assert not (runs.data / "runs" / "fails-to-lay" / "layer").exists()
