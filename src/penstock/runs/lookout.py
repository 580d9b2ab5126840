"""The watch over what a run takes while it runs: memory where no cgroup holds it, and the disk in any case."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.runs.limits import descendants
from penstock.runs.trees import measure_tree

LOOK_S = 1.0
SOON_S = 0.05
NEAR_BYTES = 8 << 30
"""With less than this above the reserve, one second of writing may use it up: looked at the more often the less there is."""
RESERVE_BYTES = 1 << 30
"""What runs must leave free on the disk (or 1 % of it, if that is less)."""
RESERVE_NAMES = 100
"""One in so many of the file system's inodes."""
FILE_BYTES = 16384
"""A volume has a name for every so many bytes, as ext4 gives them: 65,536 a GiB."""
WALK_SHARE = 50
"""A walk may take one in so many seconds."""


@dataclass(frozen=True, slots=True)
class Space:
    """A file system: what is free for an ordinary user, in bytes and in names, and how much it has."""

    free_bytes: int
    total_bytes: int
    free_names: int
    total_names: int

    @property
    def above_bytes(self) -> int:
        """Free beyond the reserve; negative where runs have begun to use it up."""
        return self.free_bytes - min(RESERVE_BYTES, self.total_bytes // 100)

    @property
    def full(self) -> bool:
        # Some file systems count no inodes.
        return self.above_bytes < 0 or (self.total_names > 0 and self.free_names < self.total_names // RESERVE_NAMES)


def space_of(folder: str | os.PathLike[str]) -> Space:
    """The file system of a folder."""
    told = os.statvfs(folder)
    return Space(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize, told.f_favail, told.f_files)


class Lookout:
    """Looks every second, and the more often the fuller the disk is, whether a run keeps within its memory and its disk."""

    def __init__(self, written: list[Path], disk_bytes: int, memory_bytes: int | None):
        """`written`: the folders that grow; `memory_bytes` None: a cgroup holds the memory."""
        self._written, self._disk_bytes, self._memory_bytes = written, disk_bytes, memory_bytes
        self._next_walk = self._walk_s = 0.0
        self._spare_bytes: float = 0
        self._free_bytes = 0
        self.due = time.monotonic() + LOOK_S
        self.peak_bytes = 0
        self.cpu_s = 0.0
        self.sentence = ""
        """What was wrong, where the reason alone does not tell."""

    def look(self, first_pids: list[int]) -> str:
        """Gives "memory", "disk", "room" or "". `first_pids`: pid 1 of each instance, as seen from here."""
        self.due = time.monotonic() + LOOK_S
        if self._memory_bytes is not None and any(self._memory_over(pid) for pid in first_pids):
            return "memory"
        space = space_of(self._written[0])
        if space.full:
            self.sentence = (
                f"The server's disk is full ({space.free_bytes >> 20} MiB and {space.free_names} files are left)."
            )
            return "room"
        if space.above_bytes < NEAR_BYTES:
            self.due = time.monotonic() + max(SOON_S, LOOK_S * space.above_bytes / NEAR_BYTES)
        return "disk" if self._is_walk_due(space) and self._disk_over(space) else ""

    def _is_walk_due(self, space: Space) -> bool:
        """Large folders are walked through seldom, but at once when so much was written that it may be too much."""
        now = time.monotonic()
        gone_bytes = self._free_bytes - space.free_bytes
        return now >= self._next_walk or (
            gone_bytes > self._spare_bytes and now >= self._next_walk - self._walk_s * (WALK_SHARE - 2)
        )

    def _disk_over(self, space: Space) -> bool:
        began = time.monotonic()
        found = self.measure()
        self._walk_s = time.monotonic() - began
        self._next_walk = time.monotonic() + WALK_SHARE * self._walk_s
        self._free_bytes, self._spare_bytes = space.free_bytes, self._disk_bytes - max(size for size, _ in found)
        most = max(self._disk_bytes // FILE_BYTES, 1)
        if self._spare_bytes < 0:
            self.sentence = f"It wrote more than {self._disk_bytes >> 20} MiB."
        elif any(names > most for _, names in found):
            self.sentence = f"It made more than {most} files."
        return bool(self.sentence)

    def measure(self) -> list[tuple[float, int]]:
        """What was written, in bytes and names, folder by folder."""
        return [measure_tree(folder) for folder in self._written]

    def _memory_over(self, first: int) -> bool:
        assert self._memory_bytes is not None
        pids = list(descendants(first))
        self.cpu_s = max(self.cpu_s, sum(_cpu_s(pid) for pid in pids))
        resident = sum(_resident_bytes(pid) for pid in pids)
        if resident > self._memory_bytes:  # shared pages count once: ask more exactly, which takes longer
            resident = sum(_proportional_bytes(pid) for pid in pids)
        self.peak_bytes = max(self.peak_bytes, resident)
        return resident > self._memory_bytes


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return _resident_bytes(pid)
    return 0
