"""What `penstock doctor` looks at."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

from penstock import presence
from penstock.runs import limits, lookout, sandbox
from penstock.settings import Settings


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
        _data(settings),
        _disk(settings),
        _ports(settings),
        _server(settings),
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
    usage = shutil.disk_usage(folder)
    free, reserve = usage.free, min(lookout.RESERVE_BYTES, usage.total // 100)
    if free < reserve:
        sentence = f"{free >> 20} MiB are free; below {reserve >> 20} MiB running jobs are ended."
        return Check("disk", "bad", sentence, "Make room on the disk of the data folder.")
    return Check("disk", "good", f"{free / (1 << 30):.0f} GiB are free.")


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
                f"Another program listens on {settings.host}:{port}."
                if fault.errno == errno.EADDRINUSE
                else f"{settings.host}:{port} cannot be used: {os.strerror(fault.errno or 0)}.",
                "penstock up --detach --port 0 --doorway-port 0   (takes free ones; other commands find it there)",
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
            f"See {settings.data / 'server.log'}; `penstock down`, then `penstock up`.",
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
