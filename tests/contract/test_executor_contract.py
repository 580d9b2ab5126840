"""What every executor promises; the fake and the local one are held to it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import IMAGE, engine
from runs import Place, Watcher, local_executor, program

from penstock.runs import sandbox
from penstock.runs.base import ENDED, LOST, RUNNING, WAITING, Instance, Output, RunSpec
from penstock.runs.capacity import Capacity
from penstock.runs.fake import Act, FakeExecutor


class ExecutorContract:
    """Inherited by a test class per driver, with fixtures `executor` (4 cpus, 8 GB), `blobs` and a way to lose a run."""

    acts: dict[str, Act]

    @pytest.fixture
    def watch(self, executor: Any) -> Watcher:
        return Watcher(executor)

    def spec(self, name: str, act: Act | None = None, **fields: Any) -> RunSpec:
        self.acts[name] = act or Act()
        return program(name, self.acts[name], **fields)

    def lose(self, executor: Any, name: str) -> None:
        raise NotImplementedError

    def test_a_run_that_ends_with_zero_has_no_reason(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("plain"))
        state = watch.wait("plain", ENDED)
        assert (state.exit_code, state.reason, state.attempt) == (0, "", 1)
        assert 0 < state.started <= state.ended

    def test_a_failure_tells_its_code_and_its_last_lines(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("fails", Act(exit_code=3, lines=[f"line {n}" for n in range(20)])))
        state = watch.wait("fails", ENDED)
        assert (state.exit_code, state.reason) == (3, "exit")
        assert state.tail == [f"line {n}" for n in range(10, 20)]

    def test_starting_a_name_again_gives_the_run_that_is_there(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("twice", Act(exit_code=3)))
        watch.wait("twice", ENDED)
        state = executor.start(self.spec("twice"))
        assert (state.phase, state.exit_code) == (ENDED, 3)

    def test_a_name_never_started_is_unknown(self, executor: Any) -> None:
        assert executor.look("nobody") is None

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 201])
    def test_a_name_that_is_no_folder_name_is_refused(self, executor: Any, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            executor.start(RunSpec(name, ["true"]))

    def test_a_stop_ends_a_running_program_with_its_reason(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("held", Act(hold=True)))
        watch.wait("held", RUNNING)
        executor.stop("held", "because")
        state = watch.wait("held", ENDED)
        assert (state.reason, state.exit_code) == ("because", 143)

    def test_a_stop_of_what_is_not_there_does_nothing(self, executor: Any) -> None:
        executor.stop("nobody")
        assert executor.look("nobody") is None

    def test_a_stop_of_what_has_ended_changes_nothing(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("done"))
        watch.wait("done", ENDED)
        executor.stop("done")
        assert executor.look("done").reason == ""

    def test_files_are_results_with_their_digests(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        files = {"/opt/ml/out/a.csv": b"1,2\n", "/opt/ml/out/deep/b.bin": b"\0\1", "/opt/ml/other/c": b"no"}
        executor.start(self.spec("files", Act(files=files), outputs=[Output("out", "/opt/ml/out")], blobs=str(blobs)))
        results = watch.wait("files", ENDED).results
        assert [(r.output, r.key, r.inline) for r in results] == [
            ("out", "a.csv", b"1,2\n"), ("out", "deep/b.bin", b"\0\1"),
        ]  # fmt: skip
        assert results[0].sha256 == hashlib.sha256(b"1,2\n").hexdigest()
        assert results[0].md5 == hashlib.md5(b"1,2\n").hexdigest()
        assert results[0].size_bytes == 4

    def test_a_folder_is_one_archive(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        act = Act(files={"/opt/ml/model/m.json": b"{}", "/opt/ml/model/code/x.py": b"pass"})
        output = Output("model", "/opt/ml/model", "tar.gz")
        executor.start(self.spec("archive", act, outputs=[output], blobs=str(blobs)))
        (result,) = watch.wait("archive", ENDED).results
        assert result.key == ""
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(result.inline or b""))) as tar:
            assert {m.name for m in tar if m.isfile()} == {"m.json", "code/x.py"}

    def test_an_empty_folder_is_an_archive_only_when_required(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        outputs = [Output("a", "/opt/ml/a", "tar.gz"), Output("b", "/opt/ml/b", "tar.gz", required=True)]
        executor.start(self.spec("empty", outputs=outputs, blobs=str(blobs)))
        results = watch.wait("empty", ENDED).results
        assert [r.output for r in results] == ["b"]

    def test_after_a_failure_only_what_is_always_wanted_is_taken(
        self, executor: Any, watch: Watcher, blobs: Path
    ) -> None:
        outputs = [Output("model", "/opt/ml/model"), Output("extra", "/opt/ml/output", always=True)]
        act = Act(exit_code=1, files={"/opt/ml/model/m": b"m", "/opt/ml/output/failure": b"bad data"})
        spec = self.spec("partly", act, outputs=outputs, blobs=str(blobs), message_file="/opt/ml/output/failure")
        executor.start(spec)
        state = watch.wait("partly", ENDED)
        assert [(r.output, r.key) for r in state.results] == [("extra", "failure")]
        assert state.message == "bad data"

    def test_what_does_not_fit_waits_and_starts_by_itself(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("first", Act(hold=True), cpus=3))
        assert executor.start(self.spec("second", cpus=3)).phase == WAITING
        executor.stop("first")
        assert watch.wait("second", ENDED).exit_code == 0

    def test_a_share_does_not_wait_for_another_share(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("job", Act(hold=True), cpus=4))
        executor.start(self.spec("function", cpus=4, share="functions"))
        assert watch.wait("function", ENDED).exit_code == 0
        executor.stop("job")
        watch.wait("job", ENDED)

    def test_a_stop_of_what_waits_ends_it_at_once(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("holder", Act(hold=True), cpus=4))
        executor.start(self.spec("waits", cpus=4))
        executor.stop("waits")
        assert watch.wait("waits", ENDED).reason == "stopped"
        executor.stop("holder")
        watch.wait("holder", ENDED)

    def test_a_lost_run_is_tried_again_in_a_clean_folder(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        outputs = [Output("out", "/opt/ml/out")]
        executor.start(self.spec("lost", Act(hold=True), outputs=outputs, blobs=str(blobs)))
        watch.wait("lost", RUNNING)
        self.lose(executor, "lost")
        assert watch.wait("lost", LOST).attempt == 1
        executor.retry("lost")
        assert watch.wait("lost", RUNNING).attempt == 2
        executor.stop("lost")
        assert watch.wait("lost", ENDED).attempt == 2

    def test_a_retry_may_have_other_inputs(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        outputs = [Output("out", "/opt/ml/out")]
        executor.start(self.spec("other", Act(hold=True), outputs=outputs, blobs=str(blobs)))
        watch.wait("other", RUNNING)
        self.lose(executor, "other")
        watch.wait("other", LOST)
        act = Act(files={"/opt/ml/out/a": b"of the second"})
        executor.retry("other", self.spec("other", act, outputs=outputs, blobs=str(blobs)))
        state = watch.wait("other", ENDED)
        assert state.attempt == 2
        assert [result.inline for result in state.results] == [b"of the second"]

    def test_continuous_outputs_are_told_while_the_program_runs(
        self, executor: Any, watch: Watcher, blobs: Path
    ) -> None:
        outputs = [Output("live", "/opt/ml/live", always=True, continuous=True), Output("end", "/opt/ml/end")]
        act = Act(hold=True, files={"/opt/ml/live/a": b"1", "/opt/ml/live/b/c": b"2", "/opt/ml/end/d": b"3"})
        executor.start(self.spec("live", act, outputs=outputs, blobs=str(blobs)))
        deadline = time.monotonic() + 60
        while len((state := executor.look("live")).results) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert state.phase == RUNNING
        assert [(r.output, r.key, r.inline) for r in state.results] == [("live", "a", b"1"), ("live", "b/c", b"2")]
        executor.stop("live")
        assert [(r.output, r.key) for r in watch.wait("live", ENDED).results] == [("live", "a"), ("live", "b/c")]

    def test_a_lost_run_tells_what_its_continuous_outputs_gave(self, executor: Any, watch: Watcher, blobs: Path) -> None:
        outputs = [Output("live", "/opt/ml/live", always=True, continuous=True)]
        act = Act(hold=True, files={"/opt/ml/live/a": b"1"})
        executor.start(self.spec("torn", act, outputs=outputs, blobs=str(blobs)))
        deadline = time.monotonic() + 60
        while not executor.look("torn").results:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.lose(executor, "torn")
        assert [(r.key, r.inline) for r in watch.wait("torn", LOST).results] == [("a", b"1")]

    def test_a_retry_of_what_is_not_lost_changes_nothing(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("fine"))
        watch.wait("fine", ENDED)
        assert executor.retry("fine").attempt == 1

    def test_a_lost_run_gives_its_room_to_others(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("gone", Act(hold=True), cpus=4))
        watch.wait("gone", RUNNING)
        executor.start(self.spec("next", cpus=4))
        self.lose(executor, "gone")
        assert watch.wait("next", ENDED).exit_code == 0

    def test_what_is_forgotten_can_be_started_anew(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("again", Act(exit_code=2)))
        watch.wait("again", ENDED)
        assert "again" in executor.names()
        executor.forget("again")
        assert executor.look("again") is None
        assert "again" not in executor.names()
        executor.start(self.spec("again"))
        assert watch.wait("again", ENDED).exit_code == 0

    def test_what_runs_cannot_be_forgotten(self, executor: Any, watch: Watcher) -> None:
        executor.start(self.spec("busy", Act(hold=True)))
        watch.wait("busy", RUNNING)
        with pytest.raises(ValueError, match="not ended"):
            executor.forget("busy")
        executor.stop("busy")
        watch.wait("busy", ENDED)


class TestFake(ExecutorContract):
    @pytest.fixture
    def executor(self) -> FakeExecutor:
        self.acts = {}
        return FakeExecutor(lambda spec: self.acts[spec.name], Capacity(4.0, 8 << 30))

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Path:
        return tmp_path

    def lose(self, executor: FakeExecutor, name: str) -> None:
        executor.lose(name)

    def test_a_held_run_ends_as_the_test_says(self, executor: FakeExecutor) -> None:
        executor.start(self.spec("mine", Act(hold=True)))
        executor.finish("mine", Act(exit_code=7))
        assert executor.look("mine").exit_code == 7  # type: ignore[union-attr]


@pytest.mark.sandbox
@pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}")
class TestLocal(ExecutorContract):
    place: Place

    @pytest.fixture
    def executor(self, tmp_path: Path) -> Iterator[Any]:
        self.acts = {}
        with local_executor(tmp_path) as (executor, place):
            self.place = place
            yield executor

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Path:
        return tmp_path / "blobs"

    def lose(self, executor: Any, name: str) -> None:
        self.place.kill_supervisor(name)


PID_1 = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(143))\n"
"""A container's program is pid 1, to which the kernel gives no signal that it has no handler for."""


TALK = """
import socket, sys, time
me, other = socket.gethostname(), {"algo-1": "algo-2", "algo-2": "algo-1"}[socket.gethostname()]
listening = socket.create_server(("", 8080))
for _ in range(600):
    try:
        socket.create_connection((other, 8080), 5).close()
        break
    except OSError:
        time.sleep(0.1)
listening.settimeout(60)
listening.accept()
"""


@pytest.fixture(scope="class")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine(tmp_path_factory.mktemp("image")) as address:
        yield address


@pytest.mark.sandbox
@pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}")
@pytest.mark.skipif("PENSTOCK_TEST_DOCKER" not in os.environ, reason="the contract takes a minute at an engine: `make docker`")
class TestDocker(ExecutorContract):
    place: Place

    @pytest.fixture
    def executor(self, tmp_path: Path, docker: str) -> Iterator[Any]:
        self.acts = {}
        with local_executor(tmp_path, docker=docker) as (executor, place):
            self.place = place
            yield executor
            place.close()
            from penstock.runs.docker import sweep

            sweep.main(docker, tmp_path / "runs")

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Path:
        return tmp_path / "blobs"

    def spec(self, name: str, act: Act | None = None, **fields: Any) -> RunSpec:
        spec = super().spec(name, act, container=IMAGE, **fields)
        spec.command[-1] = PID_1 + spec.command[-1]
        return spec

    def test_memory_without_end_is_told_as_its_reason(self, executor: Any, watch: Watcher) -> None:
        spec = self.spec("memory", memory_bytes=64 << 20)
        spec.command[-1] = "held = []\nwhile True: held.append(bytearray(b'x') * (8 << 20))"
        executor.start(spec)
        assert watch.wait("memory", ENDED).reason == "memory"

    def test_writes_without_end_are_told_as_their_reason(self, executor: Any, watch: Watcher) -> None:
        spec = self.spec("disk", disk_bytes=32 << 20)
        spec.command[-1] = "import time\nopen('/large', 'wb').write(bytes(1 << 20) * 48)\ntime.sleep(600)"
        executor.start(spec)
        state = watch.wait("disk", ENDED)
        assert (state.reason, state.message) == ("disk", "It wrote more than 32 MiB.")

    def test_a_program_that_is_not_in_the_image_is_told(self, executor: Any, watch: Watcher) -> None:
        spec = self.spec("nothing")
        spec.command = ["/no/such/program"]
        executor.start(spec)
        state = watch.wait("nothing", ENDED)
        assert (state.exit_code, state.reason) == (125, "sandbox")
        assert "the container could not be started" in state.message
        assert "/no/such/program" in state.message

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may join the networks of containers")
    def test_instances_reach_each_other_by_name(self, executor: Any, watch: Watcher) -> None:
        spec = self.spec("two", instances=[Instance("algo-1"), Instance("algo-2")])
        spec.command[-1] = TALK
        executor.start(spec)
        assert watch.wait("two", ENDED).exit_code == 0, watch.wait("two", ENDED)

    def test_the_containers_of_a_lost_run_are_removed(self, executor: Any, watch: Watcher, docker: str) -> None:
        from penstock.runs.docker import daemon

        executor.start(self.spec("stray", Act(hold=True)))
        watch.wait("stray", RUNNING)
        self.lose(executor, "stray")
        watch.wait("stray", LOST)
        deadline = time.monotonic() + 60
        with daemon.reach(docker).client() as client:
            while client.containers(all=True, filters={"label": f"penstock.runs={self.place.data}/runs"}):
                assert time.monotonic() < deadline

    def lose(self, executor: Any, name: str) -> None:
        self.place.kill_supervisor(name)
