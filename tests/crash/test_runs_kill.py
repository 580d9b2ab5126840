"""kill -9 of the runner and of supervisors, at random moments: every run ends right, or is lost and said to be lost."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import Place, Watcher, program

from penstock.runs import limits, linux, runner, sandbox
from penstock.runs.base import ENDED, LOST, RUNNING, Instance, Output
from penstock.runs.capacity import Capacity
from penstock.runs.fake import Act
from penstock.runs.folder import RunFolder
from penstock.runs.local import LocalExecutor

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def executor(place: Place) -> Iterator[LocalExecutor]:
    made = LocalExecutor(place.data, Capacity(64.0, 64 << 30))
    yield made
    made.close()


def sandboxed(word: str) -> list[int]:
    """Host pids of processes whose environment holds a word."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if word.encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found


def sandboxes_below(data: Path) -> list[int]:
    """Host pids of bubblewraps that work in folders of runs."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/comm").read_text() == "bwrap\n" and os.readlink(f"/proc/{name}/cwd").startswith(f"{data}/"):
                found.append(int(name))
    return found


def test_runs_go_on_without_a_runner_and_a_new_one_finds_them(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    executor.start(program("goes-on", Act(hold=True)))
    watch.wait("goes-on", RUNNING)
    place.kill_runner()
    assert executor.look("goes-on").phase == RUNNING  # type: ignore[union-attr]
    place.begin()
    executor.stop("goes-on")
    assert watch.wait("goes-on", ENDED).reason == "stopped"


def test_a_run_that_ends_without_a_runner_is_told_by_the_next(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    executor.start(program("alone", Act(hold=True)))
    watch.wait("alone", RUNNING)
    place.kill_runner()
    executor.stop("alone")
    heard = len(watch.heard)
    place.begin()
    watch.until(lambda: "alone" in watch.heard[heard:])
    assert watch.wait("alone", ENDED).reason == "stopped"


def test_what_was_started_without_a_runner_starts_with_the_next(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    place.kill_runner()
    executor.start(program("early", Act(exit_code=4)))
    place.begin()
    assert watch.wait("early", ENDED).exit_code == 4


def test_a_killed_supervisor_takes_its_sandbox_with_it(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    word = f"WORD_{random.random()}"
    spec = program("taken", Act(hold=True))
    spec.env["WORD"] = word
    executor.start(spec)
    watch.wait("taken", RUNNING)
    place.kill_supervisor("taken")
    assert watch.wait("taken", LOST).exit_code is None
    deadline = time.monotonic() + 10
    while (alive := sandboxed(word)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive == []


def supervisors(place: Place) -> set[int]:
    """The pids of the runner's supervisors."""
    return {int(pid) for pid in Path(f"/proc/{place.process.pid}/task/{place.process.pid}/children").read_text().split()}


def test_a_few_supervisors_serve_many_runs_and_one_that_is_killed_loses_only_its_present_one(
    place: Place, executor: LocalExecutor
) -> None:
    watch = Watcher(executor)
    served: set[int] = set()
    for number in range(8):
        executor.start(program(f"run-{number}", Act(files={"/tmp/seen": b""}, hold=True)))
        watch.wait(f"run-{number}", RUNNING)
        served.add(place.supervisor(f"run-{number}"))
        if number < 7:
            executor.stop(f"run-{number}")
            watch.wait(f"run-{number}", ENDED)
    assert len(served) < 8
    place.kill_supervisor("run-7")
    watch.wait("run-7", LOST)
    assert {executor.look(f"run-{n}").reason for n in range(7)} == {"stopped"}  # type: ignore[union-attr]
    executor.retry("run-7")
    watch.wait("run-7", RUNNING)
    executor.stop("run-7")
    assert watch.wait("run-7", ENDED).attempt == 2


def test_supervisors_that_wait_for_a_run_end_with_the_runner(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    for name in ("short", "long"):
        executor.start(program(name, Act(hold=True)))
        watch.wait(name, RUNNING)
    executor.stop("short")
    watch.wait("short", ENDED)
    busy, all_of_them = place.supervisor("long"), supervisors(place)
    processes = {pid: os.pidfd_open(pid) for pid in all_of_them}
    place.kill_runner()
    for pid in all_of_them - {busy}:
        assert select.select([processes[pid]], [], [], 60)[0], "a supervisor waits for a runner that is gone"
    assert place.supervisor("long") == busy
    place.begin()
    executor.stop("long")
    watch.wait("long", ENDED)
    assert select.select([processes[busy]], [], [], 60)[0], "its own runner is gone: another serves the next run"
    for process in processes.values():
        os.close(process)


def test_a_supervisor_killed_while_it_waits_is_missed_by_no_run(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    executor.start(program("before", Act()))
    watch.wait("before", ENDED)
    for pid in supervisors(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    executor.start(program("after", Act()))
    assert watch.wait("after", ENDED).exit_code == 0


def test_a_supervisor_killed_without_a_runner_is_lost_to_the_next(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    executor.start(program("lonely", Act(hold=True)))
    watch.wait("lonely", RUNNING)
    place.kill_runner()
    place.kill_supervisor("lonely")
    heard = len(watch.heard)
    place.begin()
    watch.until(lambda: "lonely" in watch.heard[heard:])
    assert executor.look("lonely").phase == LOST  # type: ignore[union-attr]


def test_a_second_attempt_finds_a_clean_root_and_publishes_once(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    log, blobs = place.data / "log", place.data / "blobs"
    spec = program("second", Act(files={"/opt/ml/out/a": b"a"}, hold=True))
    spec.command = ["/bin/sh", "-c", "ls /opt/ml/out; echo a > /opt/ml/out/first-$$; test -e /opt/ml/go || sleep 600"]
    spec.outputs, spec.blobs = [Output("out", "/opt/ml/out")], str(blobs)
    spec.folders, spec.instances = ["/opt/ml/out"], [Instance(log=str(log))]
    executor.start(spec)
    watch.wait("second", RUNNING)
    place.kill_supervisor("second")
    watch.wait("second", LOST)
    executor.retry("second")
    watch.wait("second", RUNNING)
    executor.stop("second")
    state = watch.wait("second", ENDED)
    assert (state.attempt, state.results) == (2, [])
    assert "first" not in log.read_text()


def test_an_executor_made_anew_counts_what_runs(place: Place) -> None:
    first = LocalExecutor(place.data, Capacity(4.0, 8 << 30))
    watch = Watcher(first)
    first.start(program("old", Act(hold=True), cpus=4))
    watch.wait("old", RUNNING)
    first.close()
    second = LocalExecutor(place.data, Capacity(4.0, 8 << 30))
    try:
        watch = Watcher(second)
        assert second.start(program("new", Act(), cpus=1)).phase == "waiting"
        second.stop("old")
        assert watch.wait("new", ENDED).exit_code == 0
    finally:
        second.close()


def test_a_second_runner_of_a_folder_ends_at_once(place: Place) -> None:
    second = runner.launch(place.data)
    assert second.wait(10) == 0
    assert runner.ask(place.data, {"op": "ping"})["pid"] == place.process.pid


def test_a_runner_ends_when_its_folder_is_deleted(place: Place) -> None:
    place.data.joinpath("runs").rename(place.data / "away")
    for path in sorted((place.data / "away").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (place.data / "away").rmdir()
    assert place.process.wait(10) == 0
    (place.data / "runs").mkdir()


def test_a_stop_that_came_before_the_supervisor_is_obeyed(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    place.kill_runner()
    executor.start(program("late", Act(hold=True)))
    executor.stop("late", "changed my mind")
    place.begin()
    assert watch.wait("late", ENDED).reason == "changed my mind"


def test_a_cut_off_exit_record_is_no_record(place: Place, executor: LocalExecutor) -> None:
    watch = Watcher(executor)
    executor.start(program("cut", Act()))
    watch.wait("cut", ENDED)
    exit_record = place.data / "runs" / "cut" / "exit.json"
    watch.until(lambda: not (place.data / "runs" / "cut" / "1").exists() or True)
    exit_record.write_bytes(exit_record.read_bytes()[:20])
    folder = RunFolder(place.data / "runs" / "cut")
    deadline = time.monotonic() + 10
    while folder.look().phase != LOST and time.monotonic() < deadline:  # type: ignore[union-attr]
        time.sleep(0.01)
    assert folder.look().phase == LOST  # type: ignore[union-attr]


def test_random_kills_lose_nothing_and_publish_nothing_twice(place: Place, executor: LocalExecutor) -> None:
    chance = random.Random(20261121)
    names = [f"run-{number}" for number in range(60)]
    stop = threading.Event()
    kills: list[str] = []

    def kill() -> None:
        while not stop.wait(chance.uniform(0.001, 0.03)):
            if "supervisor" in kills and chance.random() < 0.4:  # a supervisor first: it is the harder one to meet
                place.kill_runner()
                place.begin()
                kills.append("runner")
            else:
                try:
                    alive = [name for name in names if linux.is_locked(place.data / "runs" / name / "lock")]
                    os.kill(place.supervisor(chance.choice(alive)), signal.SIGKILL)
                    kills.append("supervisor")
                except (OSError, IndexError):
                    continue

    for name in names:
        act = Act(files={"/opt/ml/out/name": name.encode(), "/opt/ml/out/big": name.encode() * 20_000})
        executor.start(program(name, act, outputs=[Output("out", "/opt/ml/out")], blobs=str(place.data / "blobs")))
    killer = threading.Thread(target=kill)
    killer.start()
    attempts = dict.fromkeys(names, 1)
    ended: set[str] = set()
    deadline = time.monotonic() + 60
    while len(ended) < len(names) and time.monotonic() < deadline:
        if time.monotonic() > deadline - 52:
            stop.set()
        for name in names:
            state = executor.look(name)
            assert state is not None
            if state.phase == LOST:
                attempts[name] = executor.retry(name).attempt
            elif state.phase == ENDED:
                ended.add(name)
        time.sleep(0.005)
    stop.set()
    killer.join()
    assert ended == set(names), {name: executor.look(name) for name in set(names) - ended}
    assert set(kills) == {"runner", "supervisor"}
    assert max(attempts.values()) > 1
    for name in names:
        state = executor.look(name)
        assert state is not None
        assert (state.exit_code, state.reason) == (0, ""), state
        results = {r.key: r for r in state.results}
        assert results["name"].inline == name.encode()
        blob = place.data / "blobs" / results["big"].sha256[:2] / results["big"].sha256
        assert blob.read_bytes() == name.encode() * 20_000
    deadline = time.monotonic() + 60
    while (left := sandboxes_below(place.data)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == [], "what a supervisor left when it was killed while it started bubblewrap"


def test_cgroups_of_the_dead_are_given_back(place: Place, executor: LocalExecutor) -> None:
    means = limits.find_means(take=False)
    if not means.folders:
        pytest.skip("no cgroup may be written here")
    watch = Watcher(executor)
    executor.start(program("celled", Act(hold=True)))
    watch.wait("celled", RUNNING)
    cell = watch.until(lambda: RunFolder(place.data / "runs" / "celled").cell())
    paths = [folder / f"{limits.PREFIX}{cell}" for folder in means.folders.values()]
    assert all(path.is_dir() for path in paths)
    place.kill_supervisor("celled")
    watch.wait("celled", LOST)
    place.kill_runner()  # what was still dying when the runner looked is swept by the next
    deadline = time.monotonic() + 10
    while any(path.is_dir() for path in paths) and time.monotonic() < deadline:
        place.begin()
        place.kill_runner()
    assert not any(path.is_dir() for path in paths)
    place.begin()
