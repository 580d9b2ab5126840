"""What `penstock doctor` finds: each thing that a person can mend, who is in the way, and what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from penstock import Refused
from penstock.cli import checks, findings
from penstock.runs import lookout
from penstock.runs.lookout import Space
from penstock.settings import Settings
from penstock.store.records import Change, Event
from penstock.store.writer import Writer

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tmp_path.chmod(0o700)
    return Settings(data=tmp_path)


@pytest.fixture
def database(settings: Settings) -> Path:
    path = settings.data / "penstock.db"
    Writer(path).close()
    return path


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Another process writes there, and does not end; gives its pid."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate()


def test_a_whole_database_is_good(settings: Settings, database: Path) -> None:
    assert checks._database(settings).state == "good"


def test_a_damaged_database_is_told_with_its_remedy(settings: Settings, database: Path) -> None:
    database.write_bytes(b"this is no database at all" * 1000)
    check = checks._database(settings)
    assert (check.state, "not a database" in check.sentence, ".recover" in check.remedy) == ("bad", True, True)
    with pytest.raises(Refused, match="`penstock doctor` says what to do"):
        Writer(database)


def test_a_page_that_is_overwritten_is_found(settings: Settings, database: Path) -> None:
    with open(database, "r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    assert checks._database(settings).state == "bad"


def test_who_locks_the_database_is_named(settings: Settings, database: Path) -> None:
    with held(database) as pid:
        check = checks._database(settings)
        assert (check.state, f"(pid {pid})" in check.sentence) == ("bad", True)
    assert checks._database(settings).state == "good"


def test_a_locked_database_does_not_open_and_is_left_as_it_is(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.store.writer.BUSY_S", 0.1)
    with held(database), pytest.raises(Refused, match=r"locked.*`penstock doctor`"):
        Writer(database)
    Writer(database).close()


def test_who_has_the_port_is_named(settings: Settings) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        check = checks._ports(Settings(data=settings.data, port=port, doorway_port=0))
    assert (check.state, f"(pid {os.getpid()})" in check.sentence) == ("bad", True)
    assert findings.owner_of_port(port) == ""


def test_a_clock_that_was_set_back_is_noticed(settings: Settings, database: Path) -> None:
    assert checks._clock(settings).state == "good"
    writer = Writer(database)
    ahead = Event(
        id="1", source="s", detail_type="d", account="1", region="r", time=time.time() + 3600, resources=[], detail={}
    )
    writer.commit(Change(events=[ahead]))
    writer.close()
    check = checks._clock(settings)
    assert (check.state, "60 minutes behind" in check.sentence) == ("poor", True)


@pytest.mark.parametrize("space", [Space(1 << 20, 1 << 40, 1000, 1000), Space(1 << 39, 1 << 40, 1, 1000)])
def test_a_full_disk_is_told(settings: Settings, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "space_of", lambda _: space)
    check = checks._disk(settings)
    assert (check.state, "Make room" in check.remedy) == ("bad", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_folder_on_a_disk_that_is_mounted_read_only_is_told(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "penstock-test", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        check = checks._data(Settings(data=tmp_path))
        assert (check.state, "read-only" in check.sentence) == ("bad", True)
        with pytest.raises(Refused, match="Read-only file system"):
            Writer(tmp_path / "penstock.db")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_every_check_has_a_sentence_and_those_that_fail_a_remedy(settings: Settings) -> None:
    found = checks.examine(settings)
    assert {check.name for check in found} >= {
        "sandbox",
        "limits",
        "system calls",
        "database",
        "ports",
        "clock",
        "pythons",
    }
    assert all(check.sentence for check in found)
    assert all(check.remedy for check in found if check.state == "bad")
