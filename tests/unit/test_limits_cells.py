"""The cgroups of runs, on folders that look like cgroups: whose they are, and who may sweep them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from penstock.runs import limits, trees
from penstock.runs.limits import Cell, Means, name_house, sweep_cells

HOUSE, OTHER = name_house(Path("/one")), name_house(Path("/other"))


@pytest.fixture
def means(tmp_path: Path) -> Means:
    return Means(1, {"cpu": tmp_path})


def left(means: Means) -> set[str]:
    return {path.name.removeprefix(limits.PREFIX) for path in means.folders["cpu"].iterdir()}


def test_a_sweep_takes_what_no_run_remembers(means: Means) -> None:
    for name in ("a", "b", "b.1", "b.2"):
        Cell(means, f"{HOUSE}-{name}")
    sweep_cells(means, {f"{HOUSE}-b"}, HOUSE)
    assert left(means) == {f"{HOUSE}-{name}" for name in ("b", "b.1", "b.2")}


def test_another_servers_fresh_cells_are_left_alone(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be empty because their supervisor is about to enter them."""
    Cell(means, f"{OTHER}-a")
    sweep_cells(means, set(), HOUSE)
    assert left(means) == {f"{OTHER}-a"}
    monkeypatch.setattr(limits, "FORGOTTEN_S", -1.0)
    sweep_cells(means, set(), HOUSE)
    assert left(means) == set()


def test_a_cell_that_was_swept_is_made_again_when_it_is_entered(means: Means) -> None:
    cell = Cell(means, f"{HOUSE}-a")
    os.rmdir(cell.folders["cpu"])
    cell.enter()
    assert (cell.folders["cpu"] / "cgroup.procs").read_text() == "0"


def test_a_limit_that_cannot_be_set_is_told_and_one_that_a_kernel_may_lack_is_not(tmp_path: Path) -> None:
    cell = Cell(Means(1, {"memory": tmp_path}), f"{HOUSE}-a")
    with pytest.raises(FileNotFoundError):
        cell.limit(1 << 20, 1.0)
    (cell.folders["memory"] / "memory.limit_in_bytes").touch()
    assert cell.limit(1 << 20, 1.0)


def test_every_name_counts_a_block(tmp_path: Path) -> None:
    """A million empty files take no room, and all inodes of the host."""
    (tmp_path / "folder").mkdir()
    for number in range(10):
        (tmp_path / "folder" / str(number)).touch()
    assert trees.measure_tree(tmp_path) == (11 * trees.NAME_BYTES, 11)


def test_without_cgroups_a_stray_is_known_by_the_folder_it_works_in(tmp_path: Path) -> None:
    shutil.copy(os.path.realpath("/usr/bin/sleep"), tmp_path / "bwrap")
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    mine, other = (subprocess.Popen([str(tmp_path / "bwrap"), "60"], cwd=tmp_path / name) for name in ("mine", "other"))
    try:
        limits.clear_strays(tmp_path / "mine")
        assert mine.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
