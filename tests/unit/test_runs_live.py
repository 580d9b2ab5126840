"""What is taken of continuous outputs while a program runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.runs import outputs
from penstock.runs.base import RUNNING, Output, Result, RunSpec
from penstock.runs.folder import Order, RunFolder, Setup
from penstock.runs.live import LiveOutputs
from penstock.runs.outputs import BlobFolder, Root, find_files

LARGE = os.urandom(200_000)


class Program:
    """A run's folder and root, and what a program writes into it."""

    def __init__(self, place: Path, limit_bytes: int = 1 << 30):
        self.root, self.blobs = place / "root", place / "blobs"
        self.out = self.root / "out"
        self.out.mkdir(parents=True)
        (place / "runs").mkdir()
        self.folder = RunFolder(place / "runs" / "one")
        self.folder.create(Order(RunSpec("one"), Setup("bwrap")))
        self.folder.mark_running(1.0, 1)
        root = Root(str(self.root), str(self.root))
        outputs = [Output("o", "/out", continuous=True), Output("later", "/out")]
        self.live = LiveOutputs(self.folder, 1, outputs, [root], BlobFolder(str(self.blobs)), limit_bytes)

    def write(self, name: str, data: bytes, moment: float = 1000.0) -> Path:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (moment, moment))
        return path

    def told(self) -> dict[str, Result]:
        state = self.folder._alive()  # the lock is this process's own, which it cannot see
        assert (state.phase, state.started) == (RUNNING, 1.0)
        return {f"{result.output}/{result.key}": result for result in state.results}

    def blob(self, result: Result) -> Path:
        return self.blobs / result.sha256[:2] / result.sha256


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_files_that_lie_still_are_taken_and_told_by_the_runs_folder(program: Program) -> None:
    program.write("a", b"small")
    program.write("sub/b", LARGE)
    assert program.live.look()
    told = program.told()
    assert told["o/a"].inline == b"small"
    assert told["o/sub/b"].inline is None
    assert program.blob(told["o/sub/b"]).read_bytes() == LARGE
    assert set(told) == {"o/a", "o/sub/b"}
    assert not program.live.look()


def test_a_file_that_is_being_written_waits(program: Program) -> None:
    path = program.out / "a"
    path.write_bytes(b"half")
    assert not program.live.look()
    program.write("a", b"whole")
    assert program.live.look()
    assert program.told()["o/a"].inline == b"whole"


def test_a_changed_file_is_taken_again_and_what_was_taken_stays_as_it_was(program: Program) -> None:
    path = program.write("a", LARGE)
    program.live.look()
    (first,) = program.told().values()
    with open(path, "r+b") as file:  # in place: a link would change with it
        file.write(b"other")
    os.utime(path, (2000, 2000))
    assert program.live.look()
    (second,) = program.told().values()
    assert program.blob(first).read_bytes() == LARGE
    assert program.blob(second).read_bytes() == b"other" + LARGE[5:]


def test_a_file_that_changes_while_it_is_copied_is_not_taken(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program.write("a", LARGE)
    read = os.pread

    def meanwhile(fd: int, size: int, at: int) -> bytes:
        piece = read(fd, size, at)
        if at == 0 and size > 1000:
            path.write_bytes(LARGE[::-1])
            os.utime(path, (3000, 3000))
        return piece

    monkeypatch.setattr(os, "pread", meanwhile)
    assert not program.live.look()
    monkeypatch.undo()
    assert program.live.look()
    assert program.blob(program.told()["o/a"]).read_bytes() == LARGE[::-1]


@pytest.mark.parametrize(
    "make",
    [
        lambda out: (out / "l").symlink_to("/etc/passwd"),
        lambda out: (out / "d").symlink_to("/etc"),
        lambda out: os.mkfifo(out / "p"),
    ],
    ids=["link", "folder", "pipe"],
)
def test_only_files_of_the_program_are_read(program: Program, make: Callable[[Path], None]) -> None:
    make(program.out)
    assert not program.live.look()


def test_what_is_more_than_the_runs_disk_is_left_for_the_end(tmp_path: Path) -> None:
    program = Program(tmp_path, limit_bytes=len(LARGE) + 100_000)
    program.write("a", LARGE)
    assert program.live.look()
    program.write("a", LARGE[::-1], 2000)
    assert not program.live.look()
    with open(program.write("holes", b""), "r+b") as file:
        file.truncate(1 << 40)
    os.utime(program.out / "holes", (1000, 1000))
    assert not program.live.look()


def test_the_next_attempt_begins_without_what_the_last_one_told(program: Program) -> None:
    program.write("a", b"1")
    program.live.look()
    program.folder.renew()
    program.folder.mark_running(1.0, 2)
    assert program.told() == {}


class Swap:
    """Opens as `os.open` does; when a name is about to be opened, or was, a folder becomes a link. Knows all files opened."""

    def __init__(self, name: str, folder: Path, target: Path, after: bool):
        self.name, self.folder, self.target, self.after = name, folder, target, after
        self.real, self.swapped, self.opened = os.open, False, set[tuple[int, int]]()

    def __call__(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        due = not self.swapped and path == self.name
        if due and not self.after:
            self._swap()
        fd = self.real(path, flags, mode, dir_fd=dir_fd)
        about = os.fstat(fd)
        self.opened.add((about.st_dev, about.st_ino))
        if due and self.after:
            self._swap()
        return fd

    def _swap(self) -> None:
        self.swapped = True
        self.folder.rename(self.folder.with_name("was"))
        self.folder.symlink_to(self.target)


@pytest.mark.parametrize("overlay", [False, True], ids=["plain", "overlay"])
def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: bool
) -> None:
    host, upper = tmp_path / "host", tmp_path / "upper"
    merged = tmp_path / "merged" if overlay else upper
    for folder in {host, upper / "out/sub", merged / "out/sub"}:
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"secret" if folder == host else b"own")
    # Of an overlay's file the swap comes between its opening and that of the same file beneath; else before its folder's.
    swap = Swap("a" if overlay else "sub", upper / "out/sub", host, after=overlay)
    monkeypatch.setattr(os, "open", swap)
    for found in find_files(Root(str(merged), str(upper)), "/out"):
        with open(found.fd, "rb") as file:
            assert (file.read(), found.link) == (b"own", not overlay)
    assert swap.swapped
    secret = (host / "a").stat()
    assert (secret.st_dev, secret.st_ino) not in swap.opened


def test_only_a_file_of_the_upper_layers_own_disk_becomes_a_blob_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged, upper = tmp_path / "merged", tmp_path / "upper"
    for folder in (merged, upper):
        (folder / "out").mkdir(parents=True)
    (upper / "out/a").write_bytes(b"own")
    (merged / "out").rmdir()
    (merged / "out").symlink_to(upper / "out")
    monkeypatch.setattr(outputs, "_open_folder", lambda top, path: os.open(top + path, os.O_RDONLY))
    for device, link in ((0, True), (1, False)):
        real = os.stat(upper)
        fields = [*real[:2], real.st_dev + device, *real[3:]]
        monkeypatch.setattr(os, "stat", lambda path, fields=fields, **_: os.stat_result(fields))
        (found,) = find_files(Root(str(merged), str(upper)), "/out")
        monkeypatch.undo()
        monkeypatch.setattr(outputs, "_open_folder", lambda top, path: os.open(top + path, os.O_RDONLY))
        os.close(found.fd)
        assert found.link is link
