"""Log streams as append-only files: one file a stream, one line an event, `<epoch milliseconds> <text>`.

A place in a stream is a byte offset, so a reader's token stays good while the file grows, and at its end. The parts of
a stream's name between slashes are folders, so the streams of one job are listed without looking at the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

BREAK = "\x1e"
"""Stands for a line break inside an event's text."""
PIECE = 120
"""Longest file name that a part of a name becomes; what is longer continues in a folder below (marked by "+")."""
GROUP = "group.json"
"""Lies in a group's folder, and says that it is one."""
DROPPED = ".dropped"
"""How the name of a folder ends that was a group's."""
TAIL_BYTES = 64 * 1024
SCAN_BYTES = 1 << 20
"""Files up to this size are read from the start to find a moment; larger ones are bisected (by time)."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event. `place` is its offset in the stream; `after` the offset of the next."""

    time_ms: int
    text: str
    place: int
    after: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What a listing tells of a stream; 0 for moments of an empty one."""

    name: str
    created_ms: int
    first_ms: int
    last_ms: int
    written_ms: int
    size_bytes: int


class Logs:
    """The folder that holds every account's log groups."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    # --- groups
    @contextmanager
    def holding(self, account: str, region: str, group: str, shared: bool = False) -> Iterator[Path]:
        """A group's folder, which nobody else makes a group of, or drops, meanwhile; `shared`: others may hold it so, too.

        Raises: BlockingIOError where somebody else holds it; FileNotFoundError where there is none to be shared.
        """
        folder = self.group_folder(account, region, group)
        if not shared:
            folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not _is_there(folder, fd):  # dropped since it was opened
                raise BlockingIOError(group)
            yield folder
        finally:
            os.close(fd)

    def group_folder(self, account: str, region: str, group: str) -> Path:
        return self.folder / account / region / (_safe(group) + ".group")

    def make_group(self, account: str, region: str, group: str, **about: Any) -> None:
        """Makes a group, with what is to be remembered of it.

        Raises: FileExistsError.
        """
        folder = self.group_folder(account, region, group)
        if (folder / GROUP).exists():
            raise FileExistsError(group)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / GROUP, {"name": group, **about})

    def about_group(self, account: str, region: str, group: str) -> dict[str, Any] | None:
        """What is remembered of a group (`name`, `created_ms`, …), or None where there is none."""
        return _about(self.group_folder(account, region, group))

    def change_group(self, account: str, region: str, group: str, **about: Any) -> None:
        """Changes what is remembered; None forgets."""
        folder = self.group_folder(account, region, group)
        known = {**(_about(folder) or {}), **about}
        _write(folder / GROUP, {name: value for name, value in known.items() if value is not None})

    def drop_group(self, account: str, region: str, group: str) -> None:
        """Drops a group with its streams, at once: what a crash leaves of the files, `drop_old` removes."""
        folder = self.group_folder(account, region, group)
        aside = self.folder / account / region / f"{secrets.token_hex(8)}{DROPPED}"
        with suppress(FileNotFoundError):
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def drop_old(self, now: float, days: float = 0.0) -> int:
        """Drops the streams that got no line for longer than their group's retention, or than `days`; gives how many.

        One that a program writes to still is locked by its supervisor, and stays however long the program is silent.
        """
        count = 0
        for left in self.folder.glob(f"*/*/*{DROPPED}"):
            shutil.rmtree(left, ignore_errors=True)
        for region in self.folder.glob("*/*"):
            for about in _groups(region) if region.is_dir() else ():
                limits = [limit for limit in (about.get("retention"), days) if limit]
                folder = self.group_folder(region.parent.name, region.name, about["name"])
                for file in folder.rglob("*.log") if limits else ():
                    if file.is_file() and file.stat().st_mtime < now - min(limits) * 86400:
                        count += _drop_unused(file)
        return count

    def groups(self, account: str, region: str) -> list[dict[str, Any]]:
        """What is remembered of every group, by name."""
        return sorted(_groups(self.folder / account / region), key=lambda about: about["name"])

    # --- streams
    def file(self, account: str, region: str, group: str, stream: str) -> Path:
        """Where a stream's lines are, or would be."""
        parts = [_safe(part) for part in stream.split("/")]
        return self.group_folder(account, region, group).joinpath(*parts[:-1], parts[-1] + ".log")

    def make_stream(self, account: str, region: str, group: str, stream: str) -> None:
        """Makes an empty stream of a group that is there.

        Raises: FileExistsError; BlockingIOError or FileNotFoundError where the group is being dropped, or is not there.
        """
        with self.holding(account, region, group, shared=True):
            file = self.file(account, region, group, stream)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(exist_ok=False)

    def path(self, account: str, region: str, group: str, stream: str) -> str:
        """The file of a stream, which is made with its group if need be."""
        folder = self.group_folder(account, region, group)
        file = str(self.file(account, region, group, stream))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        Path(file).touch()
        if not os.path.exists(f"{folder}/{GROUP}"):
            _write(folder / GROUP, {"name": group, "created_ms": int(os.stat(file).st_ctime * 1000)})
        return file

    def drop_stream(self, account: str, region: str, group: str, stream: str) -> None:
        """Raises: FileNotFoundError."""
        self.file(account, region, group, stream).unlink()

    def streams(self, account: str, region: str, group: str, prefix: str = "") -> Iterator[str]:
        """The names of a group's streams that start with the prefix, in no order."""
        folder = self.group_folder(account, region, group)
        start = prefix.rpartition("/")[0]
        below = folder.joinpath(*(_safe(part) for part in start.split("/"))) if "/" in prefix else folder
        for quoted in _walk(below, ""):
            name = (start + "/" if "/" in prefix else "") + _plain(quoted)
            if name.startswith(prefix):
                yield name

    def about(self, account: str, region: str, group: str, stream: str) -> Stream | None:
        """What a listing tells of a stream; None where there is none."""
        file = self.file(account, region, group, stream)
        try:
            with open(file, "rb") as opened:
                facts = os.fstat(opened.fileno())
                first = next(_lines(opened, 0, facts.st_size), None)
                last = next(_lines_back(opened, facts.st_size), None)
        except FileNotFoundError:
            return None
        written = int(facts.st_mtime * 1000)
        return Stream(
            name=stream,
            created_ms=first.time_ms if first else written,
            first_ms=first.time_ms if first else 0,
            last_ms=last.time_ms if last else 0,
            written_ms=written,
            size_bytes=facts.st_size,
        )

    # --- lines
    def append(self, path: str, time_s: float, *texts: str) -> None:
        """Adds events of one moment to a stream's file."""
        self.append_events(path, [(int(time_s * 1000), text) for text in texts])

    def append_events(self, path: str, events: list[tuple[int, str]]) -> None:
        data = "".join(f"{time_ms} {text.replace(chr(10), BREAK)}\n" for time_ms, text in events)
        with open(path, "ab") as file:
            file.write(data.encode("utf-8", "surrogateescape"))

    def read(
        self,
        path: str,
        start: int = 0,
        limit: int = 10_000,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit_bytes: int = 1 << 20,
    ) -> tuple[list[LogLine], int]:
        """Events from a place on, `since_ms` <= time < `until_ms`, and the place after them.

        A line that has no end yet waits.
        Raises: FileNotFoundError.
        """
        found: list[LogLine] = []
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            place = max(start, _place_of(file, size, since_ms)) if since_ms else start
            left = limit_bytes
            for line in _lines(file, place, size):
                if until_ms is not None and line.time_ms >= until_ms:
                    break
                if len(found) >= limit or (found and left < line.after - line.place):
                    break
                place = line.after
                if since_ms is None or line.time_ms >= since_ms:
                    found.append(line)
                    left -= line.after - line.place
        return found, place

    def read_back(
        self,
        path: str,
        end: int | None = None,
        limit: int = 10_000,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit_bytes: int = 1 << 20,
    ) -> tuple[list[LogLine], int, int]:
        """The last events before a place (default: the end), oldest first; the places where they begin and end.

        Raises: FileNotFoundError.
        """
        found: list[LogLine] = []
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = finish = None
            left = limit_bytes
            for line in _lines_back(file, size if end is None else min(end, size)):
                if since_ms is not None and line.time_ms < since_ms:
                    break
                if len(found) >= limit or (found and left < line.after - line.place):
                    break
                if until_ms is not None and line.time_ms >= until_ms:
                    continue
                begin, finish = line.place, finish or line.after
                found.append(line)
                left -= line.after - line.place
        rest = end if end is not None else 0
        return found[::-1], rest if begin is None else begin, rest if finish is None else finish


def _is_there(folder: Path, fd: int) -> bool:
    """Whether the folder opened is the one that has the name."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(fd))
    except FileNotFoundError:
        return False


def _drop_unused(file: Path) -> bool:
    """Deletes a stream's file, unless somebody holds a lock on it."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(fd)
    return True


def _safe(part: str) -> str:
    """A part of a name as a file name (or several, one below the other): reversible, without dots, never too long."""
    if not part:
        return "%"
    text = quote(part, safe="#").replace(".", "%2E")
    return "+/".join(text[place : place + PIECE] for place in range(0, len(text), PIECE))


def _walk(folder: Path, name: str) -> Iterator[str]:
    """The names below a folder, still quoted."""
    for entry in _entries(folder):
        if entry.endswith(".log"):
            yield name + entry[:-4]
        elif entry.endswith("+"):
            yield from _walk(folder / entry, name + entry[:-1])
        elif "." not in entry:
            yield from _walk(folder / entry, name + entry + "/")


def _plain(name: str) -> str:
    return "/".join("" if part == "%" else unquote(part) for part in name.split("/"))


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _groups(folder: Path) -> Iterator[dict[str, Any]]:
    for entry in _entries(folder):
        if entry.endswith("+"):
            yield from _groups(folder / entry)
        elif not entry.endswith(DROPPED) and (about := _about(folder / entry)):
            yield about


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / GROUP).read_bytes())
    except FileNotFoundError:
        return None
    return dict(about)


def _write(file: Path, about: dict[str, Any]) -> None:
    fresh = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")  # two jobs may be a group's first
    fresh.write_text(json.dumps(about))
    fresh.replace(file)


def _line(data: bytes, place: int) -> LogLine:
    text = data.rstrip(b"\n").decode("utf-8", "replace")
    stamp, _, rest = text.partition(" ")
    time_ms, shown = (int(stamp), rest) if stamp.isdigit() else (0, text)
    return LogLine(time_ms, shown.replace(BREAK, "\n"), place, place + len(data))


def _lines(file: IO[bytes], place: int, size: int) -> Iterator[LogLine]:
    file.seek(place)
    while place < size:
        data = file.readline()
        if not data.endswith(b"\n"):
            return
        yield _line(data, place)
        place += len(data)


def _lines_back(file: IO[bytes], end: int) -> Iterator[LogLine]:
    """Whole lines before `end`, the last one first."""
    rest = b""
    place = end
    whole = False
    while place > 0:
        step = min(TAIL_BYTES, place)
        place -= step
        file.seek(place)
        rest = file.read(step) + rest
        if not whole:  # what follows the last line break is not a line yet
            cut = rest.rfind(b"\n") + 1
            if not cut:
                continue
            rest, whole = rest[:cut], True
        lines = rest.split(b"\n")[:-1]
        after = place + len(rest)
        first = 0 if place == 0 else 1
        for data in reversed(lines[first:]):
            after -= len(data) + 1
            yield _line(data + b"\n", after)
        rest = lines[0] + b"\n" if first and lines else b""


def _place_of(file: IO[bytes], size: int, since_ms: int) -> int:
    """A place at or before the first event of that moment or later."""
    low, high = 0, size
    while high - low > SCAN_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        place = file.tell()
        data = file.readline()
        if data.endswith(b"\n") and _line(data, place).time_ms < since_ms:
            low = place
        else:
            high = middle
    return low
