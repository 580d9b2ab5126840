"""What keeps a run within its memory, its processes and its disk: the best means that this machine offers.

cgroup v2 (delegated to this user, by a systemd scope say), or cgroup v1 as root; else a look at the processes' memory (PSS) every second,
with rlimits. The disk is looked at in any case.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROCESSES = 8192
OPEN_FILES = 65536
NICE = 5
SUPERVISOR_OOM_SCORE = -900
PREFIX = "penstock."
FORGOTTEN_S = 3600.0
NEEDED = frozenset({"memory.max", "memory.limit_in_bytes", "cpu.weight", "cpu.shares"})
"""Without these there is no limit; the others (swap accounting, say) only some kernels have."""


@dataclass(frozen=True, slots=True)
class Means:
    """How limits are held here: the folder of each cgroup controller that works; none for the watch alone."""

    version: int = 0
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def memory(self) -> bool:
        return "memory" in self.folders

    def describe(self) -> str:
        """A sentence for the operator."""
        if not self.folders:
            return "Limits by rlimits and a look at each run's memory every second (no cgroup may be written)."
        rest = "" if self.memory else "; memory by a look every second"
        return f"Limits by cgroup v{self.version} ({', '.join(sorted(self.folders))}){rest}."


def describe() -> str:
    """Names the means that a runner started now would find."""
    return find_means(take=False).describe()


def find_means(take: bool = True) -> Means:
    """Finds the means; `take` also moves this process (the runner) into a leaf, which cgroup v2 wants before it delegates."""
    for version in (2, 1):
        folders = dict(_own_folders(version))
        usable = {name: path for name, path in folders.items() if os.access(path, os.W_OK)}
        if version == 2 and usable:
            usable = _delegated(usable["unified"], take)
        if usable:
            return Means(version, usable)
    return Means()


def launch_prefix() -> list[str]:
    """A command in front of the runner's that gives it a cgroup of its own, where a user's systemd can; else nothing."""
    run = shutil.which("systemd-run")
    if os.geteuid() == 0 or run is None or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return []
    prefix = [run, "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return prefix if tried.returncode == 0 else []


def _own_folders(version: int) -> Iterator[tuple[str, Path]]:
    """This process's cgroup folders by controller ("unified" for version 2)."""
    mounts = {}
    try:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            root, point = left.split()[3:5]
            kind, _, options = right.split(maxsplit=2)
            if kind == f"cgroup{'2' if version == 2 else ''}":
                for name in ["unified"] if version == 2 else options.split(","):
                    mounts[name] = (root, point)
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in groups:
        _, names, own = line.split(":", 2)
        for name in ["unified"] if not names else names.split(","):
            if (name == "unified" or name in ("memory", "pids", "cpu", "cpuacct")) and name in mounts:
                root, point = mounts[name]
                yield name, Path(point) / os.path.relpath(own, root) if own.startswith(root) else Path(point)


def _delegated(own: Path, take: bool) -> dict[str, Path]:
    """The controllers of a cgroup v2 folder that can be handed to children; processes must live in leaves, so we move to one."""
    if own.name == "penstock-runner":
        own = own.parent
    try:
        offered = (own / "cgroup.controllers").read_text().split()
        wanted = [name for name in ("memory", "pids", "cpu") if name in offered]
        if not wanted or not os.access(own / "cgroup.subtree_control", os.W_OK):
            return {}
        if take:
            leaf = own / "penstock-runner"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")
            (own / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        return dict.fromkeys(wanted, own)
    except OSError:
        return {}


# --- one instance's cell ---------------------------------------------------------------------------------------------------


class Cell:
    """One instance's cgroups; nothing at all where the machine has none."""

    def __init__(self, means: Means, name: str):
        self.name, self._means = name, means
        self._home = {controller: folder / _leaf(means) for controller, folder in means.folders.items()}
        self.folders = {controller: folder / (PREFIX + name) for controller, folder in means.folders.items()}
        with contextlib.suppress(FileNotFoundError):  # swept between two lines; `enter` makes it again
            self._make()

    def _make(self) -> None:
        for folder in set(self.folders.values()):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
        if "pids" in self.folders:
            _write(f"{self.folders['pids']}/pids.max", PROCESSES)

    def count(self, processes: int) -> None:
        """Sets how many processes there may be."""
        if "pids" in self.folders:
            _write(f"{self.folders['pids']}/pids.max", processes)

    def limit(self, memory_bytes: int, cpus: float) -> bool:
        """Sets the limits; False if more memory is in use already and cannot be had back.

        Raises: OSError where one that every kernel has could not be set.
        """
        if self._means.version == 2:
            values = {
                "memory": [("memory.max", memory_bytes), ("memory.swap.max", 0), ("memory.oom.group", 0)],
                "cpu": [("cpu.weight", min(10_000, max(1, int(cpus * 50))))],
            }
        else:
            values = {
                "memory": [("memory.limit_in_bytes", memory_bytes), ("memory.memsw.limit_in_bytes", memory_bytes)],
                "cpu": [("cpu.shares", max(2, int(cpus * 512)))],
            }
        for controller, folder in self.folders.items():
            for name, value in values.get(controller, ()):
                try:
                    _write(f"{folder}/{name}", value)
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        return False
                    if name in NEEDED:
                        raise
        return True

    def rest(self, resting: bool) -> None:
        """Whether it has only what nobody else wants of the cores, and gives way at once; before Linux 5.15 nothing changes."""
        with contextlib.suppress(KeyError, OSError):
            fd = os.open(f"{self.folders['cpu']}/cpu.idle", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"%d" % resting)
            finally:
                os.close(fd)

    def enter(self) -> None:
        """Moves the caller in: what it starts now is born inside.

        It may take 10 ms: the kernel waits until no other process is being born (measured on cgroup v1).
        """
        for last in (False, False, True):
            try:
                for folder in set(self.folders.values()):
                    _move_to(folder)
                return
            except FileNotFoundError:  # swept meanwhile
                if last:
                    raise
            self._make()

    def leave(self) -> None:
        """Moves the caller out again."""
        for folder in set(self._home.values()):
            _move_to(folder)

    def ran_out(self) -> bool:
        """Whether the kernel killed a process for its memory."""
        try:
            name = "memory.events" if self._means.version == 2 else "memory.oom_control"
            words = (self.folders["memory"] / name).read_text().split()
            return int(words[words.index("oom_kill") + 1]) > 0
        except (KeyError, OSError, ValueError):
            return False

    def refused_processes(self) -> bool:
        """Whether a process was not born since there were too many."""
        try:
            words = (self.folders["pids"] / "pids.events").read_text().split()
            return int(words[words.index("max") + 1]) > 0
        except (KeyError, OSError, ValueError):
            return False

    def peak_bytes(self) -> float | None:
        """The most memory that was in use, page cache included."""
        try:
            name = "memory.peak" if self._means.version == 2 else "memory.max_usage_in_bytes"
            return float((self.folders["memory"] / name).read_text())
        except (KeyError, OSError, ValueError):
            return None

    def cpu_s(self) -> float | None:
        """Processor time used."""
        try:
            if self._means.version == 2:
                words = (self.folders["cpu"] / "cpu.stat").read_text().split()
                return int(words[words.index("usage_usec") + 1]) / 1e6
            return int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
        except (KeyError, OSError, ValueError):
            return None

    def remove(self) -> None:
        """Gives the cgroups back; those still in use stay for the runner's sweep."""
        for folder in set(self.folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write(path: str, value: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)


def _move_to(folder: Path) -> None:
    fd = os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _leaf(means: Means) -> str:
    return "penstock-runner" if means.version == 2 else ""


def clear_lost(means: Means, folder: Path, cell: str | None) -> None:
    """Kills what the supervisor of a run, which is gone, left: by its cgroups, or where there are none by the run's folder."""
    if not means.folders:
        clear_strays(folder)
    elif cell:
        clear_cells(means, cell)


def clear_cells(means: Means, name: str) -> None:
    """Gives the cgroups of a supervisor that is gone back, killing what it left in them."""
    for folder in set(means.folders.values()):
        for cell in folder.glob(f"{PREFIX}{name}*"):
            with contextlib.suppress(OSError):
                for pid in (cell / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                cell.rmdir()


def clear_strays(folder: Path) -> None:
    """Kills what a supervisor that is gone left, where no cgroup tells: bubblewrap that works in the run's folder.

    Killed while bubblewrap makes its namespaces, a supervisor leaves a pid 1 that waits for ever; any later, all dies with it.
    """
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/comm").read_text() == "bwrap\n" and os.readlink(f"/proc/{name}/cwd") == str(folder):
                os.kill(int(name), signal.SIGKILL)


def sweep_cells(means: Means, keep: set[str], house: str) -> None:
    """Removes empty cgroups of a house that nobody remembers (of runs whose folders are gone), and other houses' old ones.

    A fresh one of another house may be empty because its supervisor is about to enter it.
    """
    for folder in set(means.folders.values()):
        for cell in folder.glob(f"{PREFIX}*"):
            name = cell.name.removeprefix(PREFIX)
            known = any(name == kept or name.startswith(kept + ".") for kept in keep)
            with contextlib.suppress(OSError):
                if not known and (name.startswith(house + "-") or cell.stat().st_ctime < time.time() - FORGOTTEN_S):
                    cell.rmdir()


def name_house(data: Path) -> str:
    """The beginning of the names of a data folder's cgroups: several servers may share a machine."""
    return hashlib.sha256(os.fsencode(data)).hexdigest()[:8]


def limit_self(counted: bool) -> None:
    """The limits that a supervisor takes, and its programs with it: it is behind the server, too.

    Takes: `counted`, whether a cgroup counts their processes.
    """
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for what, value in ((resource.RLIMIT_NPROC, PROCESSES), (resource.RLIMIT_NOFILE, OPEN_FILES)):
        if counted and what == resource.RLIMIT_NPROC:
            continue
        hard = resource.getrlimit(what)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (limit, limit))
    _set_oom_score(SUPERVISOR_OOM_SCORE)


@contextlib.contextmanager
def oom_as_program() -> Iterator[None]:
    """What is started meanwhile goes before its supervisor when memory runs out."""
    _set_oom_score(0)
    yield
    _set_oom_score(SUPERVISOR_OOM_SCORE)


def _set_oom_score(score: int) -> None:
    with contextlib.suppress(OSError):  # only root may lower it; lowering it again needs no right
        _write("/proc/self/oom_score_adj", score)


def free_bytes() -> int:
    """The memory that programs could have now without anything being swapped out."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it."""
    found = [pid]
    while found:
        pid = found.pop()
        yield pid
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
