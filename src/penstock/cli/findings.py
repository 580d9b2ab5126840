"""What `penstock doctor` finds out about others: who holds a port or a database, whether a database is whole, where the clock is."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
from contextlib import closing, suppress
from pathlib import Path

LOCK_S = 0.3
WHOLE_BYTES = 512 << 20
"""A larger database is not read from end to end."""


def owner_of_port(port: int) -> str:
    """Who listens on a TCP port, as "python3 (pid 12)"; empty where that cannot be seen."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # another user's, or gone
            folder = f"/proc/{pid}/fd"
            if any(os.readlink(f"{folder}/{fd}") in inodes for fd in os.listdir(folder)):
                return _named(pid)
    return ""


def owner_of_lock(path: Path) -> str:
    """Who holds a POSIX lock on a file or on SQLite's files beside it."""
    files = (path, path.with_name(f"{path.name}-shm"), path.with_name(f"{path.name}-wal"))
    inodes = {str(file.stat().st_ino) for file in files if file.exists()}
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "WRITE" in words and words[-3].rpartition(":")[2] in inodes and words[-4] != str(os.getpid()):
                return _named(words[-4])
    return ""


def _named(pid: str) -> str:
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return f"pid {pid}"


def fault_of_database(path: Path, served: bool) -> str:
    """What is wrong with a database; empty where nothing is. `served`: a server has it open, and may be writing."""
    name = urllib.parse.quote(str(path))
    try:
        mode = "ro" if served else "rw"
        with closing(sqlite3.connect(f"file:{name}?mode={mode}", uri=True, timeout=LOCK_S)) as database:
            database.isolation_level = None
            database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
            if not served:
                database.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
            if path.stat().st_size < WHOLE_BYTES:
                said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
                return "" if said == "ok" else str(said)
    except sqlite3.Error as fault:
        return str(fault)
    return ""


def latest_moment(path: Path) -> float:
    """The newest moment that a database tells of; 0 where it tells of none."""
    name = urllib.parse.quote(str(path))
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=LOCK_S)) as database,
    ):
        last = database.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return float(last[0]) if last else 0.0
    return 0.0
