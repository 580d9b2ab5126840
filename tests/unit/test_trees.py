"""Trees that programs leave to be measured and deleted, and the watch over what they take."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from penstock.runs import lookout
from penstock.runs.lookout import Lookout, Space
from penstock.runs.trees import measure_tree, remove_tree

GIB = 1 << 30


def nest(folder: Path, depth: int) -> None:
    """So many folders in each other: more than paths can name."""
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(depth):
            os.mkdir("d" * 50)
            os.chdir("d" * 50)
        Path("file").write_text("at the bottom")
    finally:
        os.fchdir(home)
        os.close(home)


def test_a_tree_deeper_than_any_path_is_deleted(tmp_path: Path) -> None:
    nest(tmp_path, 3000)
    (tmp_path / "beside").mkdir()
    remove_tree(tmp_path)
    assert not tmp_path.exists()


def test_a_tree_deeper_than_any_path_is_endless(tmp_path: Path) -> None:
    nest(tmp_path, 100)
    assert measure_tree(tmp_path)[0] == math.inf
    remove_tree(tmp_path)


def test_closed_folders_and_odd_files_go_and_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "link").symlink_to(kept)
    os.mkfifo(tree / "a" / "pipe")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)
    remove_tree(tree)
    assert (tree.exists(), (kept / "file").exists()) == (False, True)


def test_what_is_no_folder_is_deleted_itself(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert os.listdir(tmp_path) == ["kept"]


# --- the watch


def spaced(monkeypatch: pytest.MonkeyPatch, **space: int) -> None:
    told = {"free_bytes": 100 * GIB, "total_bytes": 1000 * GIB, "free_names": 1000, "total_names": 1000} | space
    monkeypatch.setattr(lookout, "space_of", lambda _: Space(**told))


def test_a_full_disk_is_the_servers_and_not_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced(monkeypatch, free_bytes=GIB // 2)
    watch = Lookout([tmp_path], GIB, None)
    assert watch.look([]) == "room"
    assert "server's disk is full" in watch.sentence


def test_a_disk_without_names_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced(monkeypatch, free_names=9)
    assert Lookout([tmp_path], GIB, None).look([]) == "room"
    spaced(monkeypatch, free_names=0, total_names=0)  # btrfs counts none
    assert Lookout([tmp_path], GIB, None).look([]) == ""


def test_the_fuller_the_disk_the_sooner_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Lookout([tmp_path], GIB, None)
    spaced(monkeypatch, free_bytes=3 * GIB)
    assert watch.look([]) == ""
    assert watch.due - time.monotonic() < lookout.LOOK_S / 3
    spaced(monkeypatch)
    assert watch.look([]) == ""
    assert watch.due - time.monotonic() > lookout.LOOK_S / 2


def test_a_volume_has_a_name_for_every_sixteen_kibibytes(tmp_path: Path) -> None:
    watch = Lookout([tmp_path], 64 * lookout.FILE_BYTES, None)
    for number in range(65):
        (tmp_path / str(number)).touch()
    assert watch.look([]) == "disk"
    assert watch.sentence == "It made more than 64 files."


def test_what_is_written_fast_is_walked_through_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that took long is not due for long, unless more was written since than the run may have."""
    watch = Lookout([tmp_path], GIB, None)
    spaced(monkeypatch)
    assert watch.look([]) == ""
    watch._next_walk, watch._walk_s = time.monotonic() + 98.0, 2.0  # as if it had taken two seconds, some time ago
    (tmp_path / "file").write_bytes(bytes(8192))
    watch._disk_bytes = 4096
    assert watch.look([]) == ""
    spaced(monkeypatch, free_bytes=98 * GIB)
    watch._next_walk -= 2
    assert watch.look([]) == "disk"
