"""What `penstock doctor` looks at."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from penstock import Refused, presence, server
from penstock.cli import findings, world
from penstock.runs import limits, lookout, sandbox, seccomp
from penstock.runs.images import interpreters
from penstock.settings import Settings

CLOCK_S = 60.0
OLDEST = 1_750_000_000.0
"""A clock before this stood still: this Penstock is younger."""
OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: "good", "poor" (works, worse) or "bad" (does not work), and what to do."""

    name: str
    state: str
    sentence: str
    remedy: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks, the most important first; none changes anything but a folder's existence."""
    return [
        _sandbox(),
        _limits(),
        _calls(),
        _containers(settings),
        _data(settings),
        _disk(settings),
        _database(settings),
        _ports(settings),
        _server(settings),
        _clock(settings),
        _open_files(),
        _pythons(),
        _tools(),
        _sqlite(),
    ]


def _sandbox() -> Check:
    probe = sandbox.probe()
    return Check("sandbox", "good" if probe.ok else "bad", probe.sentence, probe.remedy)


def _limits() -> Check:
    means = limits.describe()
    return Check("limits", "good" if "cgroup" in means or "systemd" in means else "poor", means)


def _data(settings: Settings) -> Check:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return Check(
            "data", "bad", f"{folder} lies on a file system that is mounted read-only.",
            "mount -o remount,rw (the disk may have faults: see dmesg), or another folder: --data FOLDER.",
        )  # fmt: skip
    if not os.access(folder, os.W_OK):
        return Check(
            "data", "bad", f"{folder} cannot be written.", "Give a folder that can: --data FOLDER, or PENSTOCK_DATA."
        )
    if settings.data.exists() and settings.data.stat().st_mode & 0o077:
        return Check("data", "poor", f"{settings.data} can be read by other users.", f"chmod 700 {settings.data}")
    return Check(
        "data",
        "good",
        f"{settings.data} {'is there' if settings.data.exists() else 'will be made'}, on {_filesystem(folder)}.",
    )


def _filesystem(folder: Path) -> str:
    best = ("", "an unknown file system")
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, point, kind, *_ = line.split(" ")
            if (str(folder) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def _disk(settings: Settings) -> Check:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    space = lookout.space_of(folder)
    if space.full:
        reserve = space.free_bytes - space.above_bytes
        sentence = (
            f"{space.free_bytes >> 20} MiB and {space.free_names} files are free; below {reserve >> 20} MiB or 1 % of the "
            "files running jobs are ended, and nothing is written when there is none."
        )
        return Check("disk", "bad", sentence, f"Make room on the disk of {folder}; what was acknowledged is there.")
    return Check("disk", "good", f"{space.free_bytes / (1 << 30):.0f} GiB are free.")


def _database(settings: Settings) -> Check:
    path = settings.data / "penstock.db"
    if not path.exists():
        return Check("database", "good", "will be made.")
    fault = findings.fault_of_database(path, presence.held(settings.data))
    if not fault:
        return Check("database", "good", f"{path} is whole.")
    if "locked" in fault:
        owner = findings.owner_of_lock(path) or "another program"
        return Check(
            "database", "bad", f"{path} is locked by {owner}.", "End that program: nobody else may write there."
        )
    remedy = (
        f"Put a copy of it back, or take out what can be read: sqlite3 {path} .recover | sqlite3 new.db, and put new.db in its "
        "place (without its -wal and -shm). The disk may have faults: see dmesg."
    )
    return Check("database", "bad", f"{path} cannot be used: {fault}.", remedy)


def _clock(settings: Settings) -> Check:
    now = time.time()
    latest = findings.latest_moment(settings.data / "penstock.db")
    if latest > now + CLOCK_S:
        sentence = (
            f"it is {(latest - now) / 60:.0f} minutes behind the last event of this folder: somebody set it back."
        )
        return Check(
            "clock", "poor", sentence, "Set the clock (timedatectl set-ntp true); signatures and order depend on it."
        )
    if now < OLDEST:
        return Check("clock", "bad", "it is years behind.", "Set the clock (timedatectl set-ntp true).")
    return Check("clock", "good", "it goes on from the last event.")


def _open_files() -> Check:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < OPEN_FILES:
        remedy = "ulimit -n 65536 before `penstock up`, or LimitNOFILE=65536 in its unit."
        return Check("open files", "poor", f"a process may hold {most}: many connections at once are refused.", remedy)
    return Check("open files", "good", f"a process may hold {most}.")


def _calls() -> Check:
    if not seccomp.filter_program():
        return Check("system calls", "poor", "not filtered: no such filter in this kernel, or not for this processor.")
    return Check("system calls", "good", "filtered in every sandbox.")


def _containers(settings: Settings) -> Check:
    try:
        return Check("containers", "good", server.try_containers(settings))
    except Refused as why:
        return Check(
            "containers", "bad", str(why),
            "" if "pip install" in str(why) else
            "Start Docker (sudo systemctl start docker; your user must be in the group docker), or Podman's service (podman system "
            "service --time=0 unix:///run/podman/podman.sock), or name another socket in PENSTOCK_DOCKER.",
        )  # fmt: skip


def _pythons() -> Check:
    minors = interpreters.list_minors(os.environ)
    return Check("pythons", "good", f"{', '.join(minors)} are here; uv fetches others that images need, where it may.")


def _ports(settings: Settings) -> Check:
    if presence.running(settings.data):
        return Check("ports", "good", "in use by the server of this folder.")
    for port in (settings.port, settings.doorway_port):
        try:
            socket.create_server((settings.host, port)).close()
        except OSError as fault:
            return Check(
                "ports",
                "bad",
                f"{findings.owner_of_port(port) or 'Another program'} listens on {settings.host}:{port}."
                if fault.errno == errno.EADDRINUSE
                else f"{settings.host}:{port} cannot be used: {os.strerror(fault.errno or 0)}.",
                f"{world.typed('up', settings)} --detach --port 0   (takes free ones; other commands find it there)",
            )
    return Check("ports", "good", f"{settings.host}:{settings.port} and :{settings.doorway_port} are free.")


def _server(settings: Settings) -> Check:
    about = presence.running(settings.data)
    if about is None:
        return Check("server", "good", "none is up on this folder.")
    if not presence.healthy(str(about["url"]).removeprefix("http://")):
        return Check(
            "server",
            "bad",
            f"pid {about['pid']} does not answer at {about['url']}.",
            f"See {settings.data / 'server.log'}; `{world.typed('down', settings)}`, then `{world.typed('up', settings)}`.",
        )
    return Check("server", "good", f"up at {about['url']} (pid {about['pid']}).")


def _tools() -> Check:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        return Check("uv", "bad", "uv, which builds the images' environments, is not there.", "pip install uv")
    return Check("uv", "good", f"{uv}")


def _sqlite() -> Check:
    if sqlite3.sqlite_version_info < (3, 35):
        return Check("sqlite", "bad", f"SQLite {sqlite3.sqlite_version} is older than 3.35.", "Use a newer Python.")
    return Check("sqlite", "good", f"SQLite {sqlite3.sqlite_version}.")
